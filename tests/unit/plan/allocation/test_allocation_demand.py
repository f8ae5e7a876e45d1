"""The best allocation for connections: the rate it is planned for is the rate that they ask at."""

from __future__ import annotations

import pytest

from tierserve.plan.allocation.closed_loop import at_rate, best_for
from tierserve.plan.allocation.optimum import find
from tierserve.plan.allocation.types import Allocation, Infeasible
from tierserve.plan.capacity import Demand


@pytest.fixture
def two_tiers(made, a_model, a_tier):
    """A cheap slow model at the edge that runs out, and a dear quick one behind it: W jumps where it does."""
    return made(
        [
            a_tier("edge", "edge", most=2, price=0.5, models=["slow"]),
            a_tier("cloud", most=30, price=4.0, models=["quick"]),
        ],
        [a_model("slow", "30ms"), a_model("quick", "9ms")],
    )


@pytest.mark.parametrize("connections", [1.0, 7.0, 30.0, 77.0, 200.0])
@pytest.mark.parametrize("think_s", [0.0, 1.0, 20.0])
def test_the_rate_is_what_connections_that_think_ask_for(two_tiers, connections, think_s):
    found = best_for(two_tiers, Demand(connections=connections, think_s=think_s))
    assert isinstance(found, Allocation)
    assert found.rate * (think_s + found.mean_response_s) == pytest.approx(connections, rel=1e-9)
    assert sum(one.rate for one in found.pools) == pytest.approx(found.rate, rel=1e-6)
    assert all(one.work <= one.capacity * (1 + 1e-6) and one.late <= 0.05 * (1 + 1e-6) for one in found.pools)


@pytest.mark.parametrize("connections", [30.0, 77.0, 200.0])
def test_no_plan_for_a_lower_rate_carries_the_connections(two_tiers, connections):
    found = best_for(two_tiers, Demand(connections=connections, think_s=2.0))
    assert isinstance(found, Allocation)
    for part in (0.8, 0.9, 0.97):
        less = find(two_tiers, found.rate * part)
        assert less is not None
        assert less.cost_per_hour <= found.cost_per_hour
        if less.cost_per_hour < found.cost_per_hour:
            assert less.rate * (2.0 + less.mean_response_s) < connections


def test_without_a_think_time_every_connection_asks_once_a_second(two_tiers):
    found, asked = (best_for(two_tiers, one) for one in (Demand(connections=40.0), Demand(rate=40.0)))
    assert isinstance(found, Allocation)
    assert found == asked
    assert found.rate == 40.0


def test_nobody_asks_and_nothing_runs(two_tiers):
    found = best_for(two_tiers, Demand(connections=0.0, think_s=5.0))
    assert isinstance(found, Allocation)
    assert (found.rate, found.pools, found.cost_per_hour) == (0.0, (), 0.0)


def test_the_change_told_for_connections_carries_them(two_tiers):
    demand = Demand(connections=5000.0, think_s=3.0)
    told = best_for(two_tiers, demand)
    assert isinstance(told, Infeasible)
    assert told.changed is not None
    assert isinstance(best_for(told.changed, demand), Allocation)


def test_a_class_that_no_tier_can_serve_is_told_for_connections_too(made, a_model, a_tier):
    tiers = [a_tier("cloud", models=["m"]), a_tier("phone", "device", models=["sluggish"])]
    traffic = [{"name": "own", "input": 128, "privacy": "device"}]
    gaid = made(tiers, [a_model("m"), a_model("sluggish", "30s")], traffic)
    told = best_for(gaid, Demand(connections=5.0, think_s=3.0))
    assert isinstance(told, Infeasible)
    assert "class own" in told.reason
    assert told.changes == ()


def test_an_allocation_at_a_lower_rate_keeps_its_replicas_and_shares(two_tiers):
    planned = find(two_tiers, 60.0)
    assert planned is not None
    less = at_rate(two_tiers, planned, 45.0)
    assert [one.replicas for one in less.pools] == [one.replicas for one in planned.pools]
    assert less.shares("chat") == pytest.approx(planned.shares("chat"))
    assert less.cost_per_hour == planned.cost_per_hour
    assert less.watts < planned.watts
    assert less.mean_response_s < planned.mean_response_s
