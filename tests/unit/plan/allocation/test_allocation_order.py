"""The best allocation beside the order of the file, and the file turned towards it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tierserve.api import load
from tierserve.plan.allocation.baseline import InOrder, beside, in_order
from tierserve.plan.allocation.closed_loop import best_for
from tierserve.plan.allocation.optimum import find
from tierserve.plan.allocation.types import Allocation
from tierserve.plan.capacity import Demand, make_plan
from tierserve.plan.placement import PlacementError

STORES = load(Path(__file__).parents[4] / "examples" / "stores.yaml")
DRAWN = [(seed, random.Random(seed).uniform(1.0, 70.0)) for seed in range(8)]


@pytest.fixture
def priced(made, a_model, a_tier):
    """Two tiers with two models each at prices drawn by the seed; all may go anywhere."""

    def drawn(seed, **objective):
        draw = random.Random(1000 + seed)
        tiers = [
            a_tier("edge", "edge", most=5, price=draw.uniform(0.3, 3.0), sites=[{"name": "a"}, {"name": "b"}]),
            a_tier("cloud", most=12, price=draw.uniform(0.3, 3.0)),
        ]
        return made(tiers, [a_model("slow", "26ms"), a_model("quick", "14ms")], objective=objective)

    return drawn


@pytest.mark.parametrize(("seed", "rate"), DRAWN)
def test_the_best_is_never_dearer_than_the_order_of_the_file_that_serves_all(priced, seed, rate):
    order = in_order(priced(seed), Demand(rate=rate))
    assert order.keeps
    found = find(priced(seed), rate, bursty=False)  # the order counts no bursts either
    assert found is not None
    assert found.cost_per_hour <= order.cost_per_hour * (1 + 1e-9)


def test_the_figures_of_the_order_are_those_of_the_plan(priced):
    plan, order = make_plan(priced(3), Demand(rate=40.0)), in_order(priced(3), Demand(rate=40.0))
    assert order.cost_per_hour == pytest.approx(sum(one.energy.cost_per_hour for one in plan.pools))
    assert order.watts == pytest.approx(sum(one.energy.watts for one in plan.pools))
    assert order.value == order.cost_per_hour
    assert order.models == {one.placement.tier: one.placement.model for one in plan.pools}


@pytest.mark.parametrize(
    ("optimize", "field"),
    [("energy", "watts"), ("carbon", "carbon_g_per_hour"), ("latency", "mean_response_s")],
)
def test_the_order_is_valued_by_what_is_minimised(priced, optimize, field):
    order = in_order(priced(1, optimize={"by": optimize}), Demand(rate=20.0))
    assert order.value == getattr(order, field) > 0.0


def test_an_order_that_serves_not_all_or_breaks_a_cap_does_not_keep_the_promise(priced):
    short = in_order(priced(2), Demand(rate=1e4))
    assert short.unserved_rate > 0.0
    assert not short.keeps
    dear = in_order(priced(2, caps={"costPerHour": 0.5}), Demand(rate=60.0))
    assert dear.unserved_rate == 0.0
    assert dear.over == ("costPerHour",)
    assert not dear.keeps


@pytest.mark.parametrize("connections", [500.0, 2000.0, 4000.0])
def test_the_example_turned_as_told_costs_less_than_it_did_and_serves_all(connections):
    demand = Demand(connections=connections, think_s=20.0)
    best = best_for(STORES, demand)
    assert isinstance(best, Allocation)
    other = beside(STORES, demand, best)
    assert isinstance(other.order, InOrder)
    assert isinstance(other.turned, InOrder)
    assert other.steps
    assert other.turned.cost_per_hour < other.order.cost_per_hour
    assert other.turned.unserved_rate == 0.0
    wanted = {one.placement.tier: one.placement.model for one in best.pools}
    assert {tier: other.turned.models[tier] for tier in wanted} == wanted


def test_a_file_that_runs_the_best_plan_needs_no_turning(made, a_tier):
    gaid, demand = made([a_tier("cloud")]), Demand(rate=5.0)
    best = best_for(gaid, demand)
    assert isinstance(best, Allocation)
    other = beside(gaid, demand, best)
    assert other.steps == ()
    assert other.turned is other.order


def test_a_tier_that_only_keeps_its_floor_is_left_out_of_the_overflow(made, a_tier):
    gaid = made([a_tier("edge", "edge", least=1, price=0.2, most=1), a_tier("cloud", least=1)])
    best = best_for(gaid, Demand(rate=1.0))
    assert isinstance(best, Allocation)
    (idle,) = [one.placement.tier for one in best.pools if one.rate == 0.0]
    (busy,) = {"edge", "cloud"} - {idle}
    assert beside(gaid, Demand(rate=1.0), best).steps == (
        f"fill the tiers in this order: spec.routing.overflow: [{busy}]",
    )


def test_a_tier_too_slow_for_its_model_is_no_obstacle_to_the_best_plan(made, a_model, a_tier):
    tiers = [a_tier("slow", "edge", models=["sluggish"]), a_tier("cloud", models=["m"])]
    gaid = made(tiers, [a_model("m"), a_model("sluggish", "90ms")])
    best = best_for(gaid, Demand(rate=5.0))
    assert isinstance(best, Allocation)
    assert isinstance(beside(gaid, Demand(rate=5.0), best).order, PlacementError)
