"""The best allocation: as cheap as any plan could be, and within every bound."""

from __future__ import annotations

import math

import pytest

from tierserve.plan.allocation.best import best_allocation
from tierserve.plan.allocation.candidates import groups_of
from tierserve.plan.allocation.optimum import find
from tierserve.plan.allocation.program import _tangents
from tierserve.plan.allocation.types import Allocation
from tierserve.queueing.batching.birth_death import batch_queue
from tierserve.queueing.batching.response import batch_response

SITES = [{"name": f"s{k}"} for k in range(20)]


@pytest.mark.parametrize("rate", [0.5, 4.0, 11.0, 19.0, 33.0, 47.0])
def test_the_answer_costs_what_trying_every_plan_finds(made, a_model, a_tier, brute, rate):
    gaid = made(
        [
            a_tier("edge", "edge", most=3, price=1.3, sites=[{"name": "a"}, {"name": "b"}], models=["slow", "quick"]),
            a_tier("cloud", most=4, price=2.0, models=["quick"]),
        ],
        [a_model("slow", "25ms"), a_model("quick", "18ms")],
    )
    found = find(gaid, rate, bursty=False)
    assert found is not None
    assert found.cost_per_hour == pytest.approx(brute(gaid, rate), abs=1e-9)


@pytest.mark.parametrize("rate", [5.0, 30.0, 60.0])
def test_a_floor_of_replicas_is_kept_and_paid_for_as_the_cheapest_plan_does(made, a_tier, brute, rate):
    sites = [{"name": "a"}, {"name": "b"}]
    gaid = made([a_tier("edge", "edge", least=1, most=4, price=0.9, sites=sites), a_tier("cloud", most=5, price=0.8)])
    found = find(gaid, rate, bursty=False)
    assert found is not None
    assert found.cost_per_hour == pytest.approx(brute(gaid, rate), abs=1e-9)
    assert {one.placement.site for one in found.pools if one.placement.tier == "edge"} == {"a", "b"}


def test_more_replicas_than_levels_are_staffed_to_the_exact_number(made, a_tier):
    gaid = made([a_tier("cloud", most=400)])
    option = groups_of(gaid)[0].options[0]
    for rate in (100.0, 333.0, 777.0):
        found = find(gaid, rate)
        assert found is not None
        replicas = found.pools[0].replicas
        assert option.room(replicas - 1) < rate <= option.room(replicas)


@pytest.mark.parametrize(("spread", "bound"), [(None, 0.002), (0.0, 0.002), (0.5, 0.005)])  # the last leaves no time
def test_levels_between_exact_ones_promise_no_more_and_hardly_less_than_the_curve(made, a_model, a_tier, spread, bound):
    option = groups_of(made([a_tier("cloud", most=400)], [spread_out(a_model("m"), spread)]))[0].options[0]
    worst = 0.0
    for level in option.levels():
        for extra in range(level.span):
            exact = option.most(level.replicas + extra)
            said = level.most + level.step * extra
            assert said <= exact * (1 + 1e-6)
            worst = max(worst, 1 - said / exact)
    assert worst < bound


def test_every_pool_keeps_the_percentile_at_its_load(made, a_tier):
    found = find(made([a_tier("edge", "edge", sites=SITES[:3]), a_tier("cloud", most=50)]), 150.0)
    assert found is not None
    assert all(one.late <= 0.05 * (1 + 1e-6) for one in found.pools)
    assert all(one.work <= one.capacity * (1 + 1e-6) for one in found.pools)
    assert sum(one.rate for one in found.pools) == pytest.approx(150.0, rel=1e-6)


def test_private_classes_stay_where_they_may_be_seen(made, a_tier):
    traffic = [
        {"name": "open", "share": 0.5, "input": 128},
        {"name": "near", "share": 0.4, "input": 128, "privacy": "site"},
        {"name": "own", "share": 0.1, "input": 128, "privacy": "device"},
    ]
    gaid = made(
        [a_tier("cloud", price=0.1, most=9), a_tier("edge", "edge", price=5.0), a_tier("phone", "device", price=9.0)],
        traffic=traffic,
        routing={"overflow": ["phone", "edge", "cloud"]},
    )
    found = find(gaid, 20.0)
    assert found is not None
    assert "cloud-default" in found.shares("open")
    assert set(found.shares("near")) <= {"edge-default", "phone-default"}
    assert set(found.shares("own")) == {"phone-default"}


def test_a_private_class_of_a_site_is_served_there_though_another_has_room(made, a_tier):
    traffic = [
        {"name": "open", "share": 0.5, "input": 128},
        {"name": "lyon", "share": 0.5, "input": 128, "privacy": "site", "origin": "s1"},
    ]
    found = find(made([a_tier("edge", "edge", sites=SITES[:4]), a_tier("cloud")], traffic=traffic), 30.0)
    assert found is not None
    assert set(found.shares("lyon")) == {"edge-s1"}


def test_a_model_too_large_for_the_memory_is_never_chosen(made, a_model, a_tier):
    huge = {**a_model("huge", "5ms"), "memory": {"weights": "14Gi", "perRequest": "70Gi"}}
    models = [huge, a_model("fits")]
    found = find(made([a_tier("cloud")], models), 5.0)
    assert found is not None
    assert {one.placement.model for one in found.pools} == {"fits"}


def test_a_class_too_slow_on_a_tier_goes_to_another(made, a_tier):
    far = a_tier("far", price=0.1, network={"rtt": "900ms"})
    found = find(made([far, a_tier("near", price=3.0)]), 5.0)
    assert found is not None
    assert set(found.shares("chat")) == {"near-default"}


def test_a_slow_class_does_not_take_the_slots_of_the_others(made, a_model, a_tier):
    wide = {**a_model("m", "3ms"), "maxConcurrency": 64, "profile": {"alpha": "3ms", "beta": "300us", "gamma": "0s"}}
    traffic = [{"name": "short", "share": 0.9, "input": 64}, {"name": "long", "share": 0.1, "input": 64, "output": 128}]
    options = groups_of(made([a_tier("cloud", most=30)], [wide], traffic))[0].options
    slots = {tuple(sorted(one.uses)): one.placement.slots for one in options}
    assert slots["short",] > 2 * slots["long", "short"] > 0


def test_the_answers_of_a_site_do_not_exceed_its_downlink(made, a_model, a_tier):
    big = {**a_model("m"), "output": {"tokens": 32, "bytes": "1M"}}
    thin = a_tier("edge", "edge", price=0.1, network={"downlink": "60Mbit"}, sites=SITES[:2])
    found = find(made([thin, a_tier("cloud", price=9.0)], [big]), 20.0)
    assert found is not None
    at_edge = [one for one in found.pools if one.placement.tier == "edge"]
    assert at_edge
    assert all(one.rate * 8e6 <= 60e6 * (1 + 1e-6) for one in at_edge)
    assert "spec.tiers[0].network.downlink" in found.binding


@pytest.mark.parametrize(
    ("caps", "field", "cap"),
    [
        ({"costPerHour": 9.0}, "cost_per_hour", 9.0),
        ({"power": "1.2kW"}, "watts", 1200.0),
        ({"carbonPerHour": "300g"}, "carbon_g_per_hour", 300.0),
    ],
)
def test_caps_are_kept_where_without_them_more_would_be_spent(made, a_tier, caps, field, cap):
    tiers = [
        a_tier("dear", "edge", most=8, price=3.0, power={"idle": "10W", "max": "90W"}, carbonIntensity=20),
        a_tier("dirty", most=8, price=1.0, carbonIntensity=800),
    ]
    kind = "energy" if field == "cost_per_hour" else "cost"
    free = find(made(tiers, objective={"optimize": {"by": kind}}), 33.0)
    held = find(made(tiers, objective={"optimize": {"by": kind}, "caps": caps}), 33.0)
    assert free is not None
    assert held is not None
    assert getattr(free, field) > cap
    assert getattr(held, field) <= cap
    assert held.value > free.value


@pytest.mark.parametrize(
    ("optimize", "winner"), [("cost", "cheap"), ("energy", "frugal"), ("carbon", "green"), ("latency", "near")]
)
def test_each_objective_picks_the_tier_that_is_best_at_it(made, a_tier, optimize, winner):
    tiers = [
        a_tier("cheap", price=0.5, network={"rtt": "200ms"}, carbonIntensity=900),
        a_tier("frugal", price=2.0, network={"rtt": "200ms"}, carbonIntensity=900, power={"idle": "8W", "max": "40W"}),
        a_tier("green", price=2.0, network={"rtt": "200ms"}, carbonIntensity=5),
        a_tier("near", price=2.0, network={"rtt": "1ms"}, carbonIntensity=900),
    ]
    found = find(made(tiers, objective={"optimize": {"by": optimize}}), 8.0)
    assert found is not None
    assert set(found.shares("chat")) == {f"{winner}-default"}
    assert found.objective == optimize
    measured = {"cost": found.cost_per_hour, "energy": found.watts, "carbon": found.carbon_g_per_hour}
    assert found.value == measured.get(optimize, found.mean_response_s)


def test_of_equal_cost_the_higher_quality_is_chosen_though_named_last(made, a_model, a_tier):
    models = [a_model("plain", quality=0.3), a_model("good", quality=0.9)]
    found = find(made([a_tier("cloud")], models), 5.0)
    assert found is not None
    assert {one.placement.model for one in found.pools} == {"good"}
    assert found.quality == pytest.approx(0.9)


@pytest.mark.parametrize("order", [["one", "two"], ["two", "one"]])
def test_of_equal_cost_and_quality_the_first_in_the_order_of_overflow_is_chosen(made, a_tier, order):
    found = find(made([a_tier("one"), a_tier("two")], routing={"overflow": order}), 5.0)
    assert found is not None
    assert set(found.shares("chat")) == {f"{order[0]}-default"}


def test_headroom_keeps_room_for_a_sudden_rise(made, a_tier):
    plain, ready = (find(made([a_tier("cloud", most=30, replicas={"min": 0, "max": 30, "headroom": h})]), 40.0)
                    for h in (0.0, 0.5))  # fmt: skip
    assert plain is not None
    assert ready is not None
    assert ready.pools[0].replicas > plain.pools[0].replicas
    assert groups_of(made([a_tier("cloud", most=30)]))[0].options[0].most(ready.pools[0].replicas) >= 60.0


def test_twenty_sites_share_what_one_cannot_take(made, a_tier):
    gaid = made([a_tier("edge", "edge", most=2, sites=SITES, price=1.0), a_tier("cloud", most=5, price=9.0)])
    one_site = groups_of(gaid)[0].options[0].room(2)
    found = find(gaid, 15.5 * one_site, bursty=False)
    assert found is not None
    used = [one for one in found.pools if one.placement.tier == "edge"]
    assert len(used) == 16
    assert len({one.placement.site for one in used}) == 16
    assert found.cost_per_hour <= 32.0
    assert all(one.work <= one.capacity * (1 + 1e-6) for one in found.pools)


def test_nobody_asks_and_only_the_floor_runs(made, a_tier):
    found = best_allocation(made([a_tier("cloud", least=2), a_tier("edge", "edge")]), 0.0)
    assert isinstance(found, Allocation)
    assert [(one.placement.tier, one.replicas) for one in found.pools] == [("cloud", 2)]
    assert found.pools[0].binds == "replicas.min"
    assert found.shares("chat") == {}


def test_a_negative_demand_is_refused(made, a_tier):
    with pytest.raises(ValueError, match="rate must be >= 0, got -1"):
        best_allocation(made([a_tier("cloud")]), -1.0)
    with pytest.raises(ValueError, match="rate must be >= 0"):
        best_allocation(made([a_tier("cloud")]), math.nan)


@pytest.mark.parametrize(("beta", "bound"), [("50us", 0.01), ("1ms", 0.07), ("4ms", 0.09)])
def test_the_tangents_of_latency_lie_below_the_requests_in_service_and_near_them(made, a_model, a_tier, beta, bound):
    heavy = {**a_model("m", "3ms"), "profile": {"alpha": "3ms", "beta": beta, "gamma": "0s"}, "maxConcurrency": 8}
    option = groups_of(made([a_tier("cloud")], [heavy], objective={"responseTime": {"target": "60s"}}))[0].options[0]
    place = option.placement
    for batch in (0.01, 0.1, 0.5, 1.0, 2.0, 4.0, 6.0, 8.0):
        rate = batch / place.profile.service_time(max(batch, 1.0), place.input_tokens, place.output_tokens)
        said = max(level + slope * rate for level, slope in _tangents(option))
        assert batch * (1 - bound) <= said <= batch * (1 + 1e-9)


@pytest.mark.parametrize("replicas", [1, 3, 40])
def test_the_curve_is_the_highest_rate_that_keeps_the_percentile(made, a_tier, replicas):
    option = groups_of(made([a_tier("cloud", most=50)]))[0].options[0]
    most = option.most(replicas)
    late = [batch_queue(most * part, replicas, option.rates).wait_survival(option.budget_s) for part in (1.0, 1.001)]
    assert late[0] <= 0.05 * (1 + 1e-9) < late[1]


def spread_out(one, spread):
    return one if spread is None else {**one, "output": {**one["output"], "spread": spread}}


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_waits_are_those_of_answers_of_the_spread_that_is_given(made, a_model, a_tier, spread):
    """Alike answers wait half as long as exponential ones: a pool takes more, and its figures say so."""
    with_care, known = (made([a_tier("cloud", most=9)], [spread_out(a_model("m"), s)]) for s in (None, spread))
    option = groups_of(known)[0].options[0]
    most = option.most(4)
    late = [batch_response(most * part, 4, option.work).wait_survival(option.budget_s) for part in (1.0, 1.001)]
    assert late[0] <= 0.05 * (1 + 1e-9) < late[1]
    assert spread > 0.0 or most > groups_of(with_care)[0].options[0].most(4) * 1.01
    found = find(known, 0.9 * most)
    assert found is not None
    (pool,) = found.pools
    response = batch_response(pool.work, pool.replicas, option.work)
    network_s = option.uses["chat"].network_s
    assert pool.mean_response_s == pytest.approx(network_s + response.mean_response, rel=1e-9)
    assert response.mean_wait < batch_queue(pool.work, pool.replicas, option.rates).mean_wait
    assert pool.late == pytest.approx(response.wait_survival(option.budget_s), rel=1e-9)
