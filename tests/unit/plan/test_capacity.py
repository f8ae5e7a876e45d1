"""Replicas of each pool, the order in which tiers fill, and where they end."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from tierserve.api import GenAIDeployment
from tierserve.plan.capacity import (
    Demand,
    allocate,
    limits_of,
    make_plan,
    make_plans,
    pool_plan,
    refused_from,
)
from tierserve.plan.paper import criteria_of, first_to_bind
from tierserve.plan.placement import PlacementError, place
from tierserve.plan.pool_sizing import most_rate, replicas_for, response_of
from tierserve.plan.sweep import sweep

Service = Callable[..., GenAIDeployment]


def test_one_replica_less_misses_the_objective(service: Service) -> None:
    cloud = place(service())[0]
    replicas = replicas_for(cloud, 90.0)
    times = [response_of(cloud, r, 90.0).quantile(0.95) + cloud.network_s for r in (replicas, replicas - 1)]
    assert times[0] <= 3.0 < times[1]


def test_the_response_is_uplink_and_inference_and_downlink(service: Service) -> None:
    one = pool_plan(service(), place(service())[0], 90.0)
    parts = one.placement.uplink_s + one.inference_s + one.placement.downlink_s
    assert one.response_s == pytest.approx(parts)
    assert one.meets
    assert one.binds == "objective"
    assert one.utilisation == pytest.approx(90.0 * one.placement.service_s / one.servers)


def test_the_highest_rate_just_keeps_the_objective(service: Service) -> None:
    cloud = place(service())[0]
    rate = most_rate(cloud, 5)
    assert response_of(cloud, 5, rate).quantile(0.95) == pytest.approx(cloud.target_s, rel=1e-6)
    assert replicas_for(cloud, rate * 0.999999) == 5
    assert replicas_for(cloud, rate * 1.000001) == 6


def test_floor_and_ceiling_bind_and_say_so(service: Service) -> None:
    gaid = service({"spec.tiers.0.replicas": {"min": 4, "max": 6}})
    cloud = place(gaid)[0]
    low, high = pool_plan(gaid, cloud, 1.0), pool_plan(gaid, cloud, 1e4)
    assert (low.replicas, low.binds) == (4, "replicas.min")
    assert (high.replicas, high.binds, high.meets) == (6, "replicas.max", False)
    assert high.response_s == math.inf


def test_headroom_is_planned_for_up_to_the_ceiling_and_says_so(service: Service) -> None:
    plain = place(service())[0]
    gaid = service({"spec.tiers.0.replicas": {"max": 6, "headroom": 0.5}})
    cloud = place(gaid)[0]
    rate = most_rate(cloud, 2)
    one = pool_plan(gaid, cloud, rate)
    assert (one.replicas, one.binds) == (replicas_for(plain, 1.5 * rate), "replicas.headroom")
    assert one.replicas > replicas_for(plain, rate)
    assert pool_plan(gaid, cloud, most_rate(cloud, 5)).binds == "replicas.max"
    assert pool_plan(gaid, cloud, most_rate(cloud, 5)).meets
    assert pool_plan(gaid, cloud, most_rate(cloud, 5)).capacity == most_rate(cloud, 6), "it takes none of the ceiling"


def test_tiers_fill_in_the_order_of_overflow(service: Service) -> None:
    gaid = service()
    pools = place(gaid)
    edge_room = sum(most_rate(one, 8) for one in pools[1:])
    quiet, _ = allocate(gaid, pools, edge_room * 0.9)
    busy, unserved = allocate(gaid, pools, edge_room * 1.5)
    assert quiet["cloud-default"] == 0.0
    assert quiet["edge-berlin"] == pytest.approx(quiet["edge-lyon"])
    assert busy["cloud-default"] == pytest.approx(edge_room * 0.5)
    assert unserved == 0.0


def test_a_private_class_is_refused_rather_than_sent_to_the_cloud(service: Service) -> None:
    gaid = service()
    pools = place(gaid)
    edge_room = sum(most_rate(one, 8) for one in pools[1:])
    shares, unserved = allocate(gaid, pools, edge_room * 10)
    assert shares["edge-berlin"] + shares["edge-lyon"] == pytest.approx(edge_room)
    assert unserved >= edge_room * 10 * 0.2 - edge_room


def test_each_tier_is_exhausted_where_it_takes_no_more(service: Service) -> None:
    gaid = service()
    limits = limits_of(gaid, place(gaid))
    edge_room = sum(most_rate(one, 8) for one in place(gaid)[1:])
    assert limits.exhausted_at["edge"] == pytest.approx(edge_room, rel=1e-6)
    at = limits.served_up_to
    assert make_plan(gaid, Demand(connections=at * 0.999)).unserved_rate == 0.0
    assert make_plan(gaid, Demand(connections=at * 1.001)).unserved_rate > 0.0


def test_a_class_is_refused_where_the_last_of_its_tiers_is_full(service: Service) -> None:
    gaid = service()
    limits = limits_of(gaid, place(gaid))
    refused = refused_from(gaid, limits.exhausted_at)
    assert refused == {"chat": limits.exhausted_at["cloud"], "health": limits.exhausted_at["edge"]}


def test_a_tier_that_no_class_reaches_is_never_exhausted(service: Service) -> None:
    routing = {"spec.routing.overflow": ["edge"], "spec.routing.defaultClass": "all"}
    gaid = service(routing | {"spec.traffic": [{"name": "all"}]})
    assert limits_of(gaid, place(gaid)).exhausted_at["cloud"] is None


def test_thinking_users_ask_less(service: Service) -> None:
    plan = make_plan(service(), Demand(connections=1000, think_s=20.0))
    busiest = max(one.placement.network_s + one.placement.service_s for one in plan.pools)
    assert 1000 / (20 + busiest) <= plan.rate <= 1000 / 20
    assert plan.exhausted_at["edge"] > make_plan(service(), Demand(connections=1000)).exhausted_at["edge"] * 20


def test_a_rate_is_as_many_connections_of_one_request_a_second(service: Service) -> None:
    by_rate, by_count = make_plan(service(), Demand(rate=30)), make_plan(service(), Demand(connections=30))
    assert by_rate == by_count


def test_nobody_asking_leaves_the_floors(service: Service) -> None:
    plan = make_plan(service(), Demand(connections=0))
    assert [one.replicas for one in plan.pools] == [1, 1, 1]
    assert plan.response_s == 0.0
    assert plan.pools[0].energy.joules_per_request is None


def test_energy_cost_and_carbon_follow_the_replicas(service: Service) -> None:
    one = pool_plan(service(), place(service())[0], 90.0)
    watts = one.replicas * (80 + 320 * one.utilisation)
    assert one.energy.watts == pytest.approx(watts)
    assert one.energy.joules_per_request == pytest.approx(watts / 90)
    assert one.energy.cost_per_hour == pytest.approx(2.1 * one.replicas)
    assert one.energy.carbon_g_per_hour == pytest.approx(watts / 1000 * 230)


@pytest.mark.parametrize("bad", [{}, {"connections": 1, "rate": 1}, {"rate": -1}, {"connections": 5, "think_s": -1}])
def test_a_demand_is_one_number_and_not_negative(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Demand"):
        Demand(**bad)


def test_criteria_say_from_which_connections_one_site_cannot_do(service: Service) -> None:
    gaid = service({"spec.models.0.flopsPerRequest": "13.1T"})
    cloud = place(gaid)[0]
    memory, bandwidth, compute = criteria_of(gaid, cloud)
    assert memory.connections == pytest.approx(200 * 60 * 1024 // 250, rel=0.01)
    assert bandwidth.connections == math.ceil(10e9 / 8192) - 1
    assert compute.connections == math.floor(200 * 312e12 * cloud.target_s / 13.1e12)
    assert first_to_bind((memory, bandwidth, compute)) is compute
    assert "13.1 TFLOP / 2.96 s x connections > 62.4 PFLOP/s" in compute.message
    assert "250 MiB a request x connections > " in memory.message


def test_the_sweep_has_a_curve_for_each_tier_and_sharp_edges(service: Service) -> None:
    result = sweep(service(), 1, 10_000, points=60)
    edge = result.limits.exhausted_at["edge"]
    assert any(abs(n / edge - 0.999) < 1e-9 for n in result.connections)
    assert [one.tier for one in result.tiers] == ["cloud", "edge"]
    assert list(result.connections) == sorted(result.connections)
    for one in result.tiers:
        assert len(one.response_s) == len(one.replicas) == len(one.utilisation) == len(result.connections)
        assert max(x for x in one.response_s if not math.isnan(x)) <= 3.0 * (1 + 1e-9)
    assert list(result.tiers[1].replicas) == sorted(result.tiers[1].replicas)
    assert result.unserved[0] == 0.0
    assert result.unserved[-1] > 0.5


@pytest.mark.parametrize("span", [(0, 10), (10, 10), (20, 10), (1, math.inf)])
def test_a_sweep_must_rise_from_above_zero(service: Service, span: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="the range must rise from above 0"):
        sweep(service(), *span)


def test_answers_known_to_vary_take_longer_at_the_percentile_and_more_replicas(service: Service) -> None:
    """Slots are held alike, so that what differs is the spread and not the size of a batch."""
    held = {"spec.models.0.maxConcurrency": 8, "spec.objective.responseTime.target": "6s"}
    alike, uneven = (
        pool_plan(one, place(one)[0], 60.0)
        for one in (service({**held, "spec.models.0.output.spread": spread}) for spread in (0.0, 0.5))
    )
    assert uneven.placement.slots == alike.placement.slots == 8
    at = [response_of(one.placement, alike.replicas, 60.0).quantile(0.95) for one in (alike, uneven)]
    assert at[1] > 1.2 * at[0]
    assert uneven.replicas >= alike.replicas


def test_a_target_that_the_longest_answers_miss_even_alone_says_how_long_they_take(service: Service) -> None:
    # parts up to 95% end with 380.7 tokens, the mean of a lognormal between its quantiles 0.94 and 0.95: 381.7 steps
    # of 8 ms, 680.7 tokens at 50 us and contexts of 300 + 380.7 (300 + 190.4) at 0.1 us make 3.1064 s; / 0.9 + 40 ms
    with pytest.raises(PlacementError, match="must be at least 3492 ms") as told:
        place(service({"spec.models.0.output.spread": 0.5}))
    given = float(told.value.problems[0].hint.split("give at least ")[1].split("ms")[0])
    place(service({"spec.models.0.output.spread": 0.5, "spec.objective.responseTime.target": f"{given + 1:.0f}ms"}))


def test_a_class_that_is_always_late_and_just_as_large_as_may_be_does_not_ask_for_endless_replicas(
    service: Service,
) -> None:
    traffic = [
        {"name": "chat", "share": 0.95, "input": 300, "output": 200},
        {"name": "book", "share": 0.05, "input": 300, "output": 2000},
    ]
    gaid = service({"spec.traffic": traffic, "spec.models.0.maxConcurrency": 16})
    cloud = place(gaid)[0]
    rate = 50.0
    assert replicas_for(cloud, rate) < 2 * rate / cloud.rate + 5


@pytest.mark.parametrize("think_s", [None, 20.0])
def test_many_plans_at_once_are_those_of_one_after_another(service: Service, think_s: float | None) -> None:
    gaid = service({"spec.tiers.0.replicas": {"min": 2, "max": 60, "headroom": 0.2}})
    demands = [Demand(connections=n, think_s=think_s) for n in (0.0, 1.0, 30.0, 200.0, 3e3, 5e4, 1e6) for _ in "ab"]
    for plan, demand in zip(make_plans(gaid, demands), demands, strict=True):
        alone = make_plan(gaid, demand)
        assert (plan.rate, plan.connections, plan.unserved_rate) == (alone.rate, alone.connections, alone.unserved_rate)
        for one, other in zip(plan.pools, alone.pools, strict=True):
            same = [(x.replicas, x.rate, x.binds, x.meets, x.servers, x.capacity) for x in (one, other)]
            assert same[0] == same[1]
            assert one.response_s == pytest.approx(other.response_s, rel=1e-8)
            assert one.mean_response_s == pytest.approx(other.mean_response_s, rel=1e-8)
            assert one.p_wait == pytest.approx(other.p_wait, rel=1e-8, abs=1e-15)
