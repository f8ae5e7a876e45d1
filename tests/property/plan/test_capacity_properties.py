"""What must hold of every plan, whatever the demand."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from tierserve.api import GenAIDeployment, parse
from tierserve.plan.capacity import Demand, make_plan, pool_plan
from tierserve.plan.placement import Placement, place
from tierserve.plan.pool_sizing import most_rate, replicas_for
from tierserve.queueing import BatchProfile

EXAMPLES = settings(max_examples=60, deadline=None)
RATES = st.floats(1e-3, 1e5)


def service(share: float = 0.7) -> GenAIDeployment:
    tiers = [
        {"name": "cloud", "kind": "cloud", "accelerator": {"preset": "A100-80GB"}, "replicas": {"min": 0, "max": 50}},
        {"name": "edge", "kind": "edge", "accelerator": {"preset": "L4"}, "sites": [{"name": "a"}, {"name": "b"}]},
    ]
    model = {
        "name": "large",
        "engine": "emulated",
        "memory": {"weights": "14Gi", "perRequest": "200Mi"},
        "profile": {"alpha": "8ms", "beta": "40us", "gamma": "80ns"},
    }
    traffic = [
        {"name": "open", "share": share},
        {"name": "closed", "share": 1 - share, "privacy": "site", "output": 150},
    ]
    spec = {
        "objective": {"responseTime": {"target": "4s"}},
        "models": [model],
        "tiers": tiers,
        "traffic": traffic,
        "routing": {"overflow": ["edge", "cloud"], "defaultClass": "closed"},
    }
    meta = {"apiVersion": "serving.tierserve.io/v1alpha1", "kind": "GenAIDeployment", "metadata": {"name": "s"}}
    return parse({**meta, "spec": spec})


GAID = service()
POOLS = place(GAID)


def pool(slots: int, alpha: float, left: float, percentile: float) -> Placement:
    profile = BatchProfile(alpha, alpha / 100, 0.0)
    target = profile.service_time(slots, 100, 100) * (1 + left)
    return Placement(
        "t", "s", "edge", "m", "emulated", None, slots, profile, 100, 100, 0.01, 0.01, 0, 10**6, 3.0, percentile, target
    )


@EXAMPLES
@given(RATES)
def test_all_requests_are_placed_or_counted_as_unserved(rate: float) -> None:
    plan = make_plan(GAID, Demand(rate=rate), POOLS)
    assert math.isclose(sum(one.rate for one in plan.pools) + plan.unserved_rate, rate, rel_tol=1e-9)
    assert all(one.rate <= one.capacity * (1 + 1e-9) for one in plan.pools)


@EXAMPLES
@given(RATES)
def test_what_is_placed_meets_the_objective_within_the_bounds(rate: float) -> None:
    for one in make_plan(GAID, Demand(rate=rate), POOLS).pools:
        assert one.meets
        assert one.placement.min_replicas <= one.replicas <= one.placement.max_replicas
        assert one.utilisation < 1.0


@EXAMPLES
@given(RATES, st.floats(1.0, 3.0))
def test_more_demand_never_needs_less(rate: float, more: float) -> None:
    low, high = (make_plan(GAID, Demand(rate=x), POOLS) for x in (rate, rate * more))
    assert all(a.replicas <= b.replicas for a, b in zip(low.pools, high.pools, strict=True))
    assert low.unserved_rate <= high.unserved_rate * (1 + 1e-9)


@EXAMPLES
@given(st.floats(1, 1e6), st.floats(0, 100))
def test_little_holds_for_a_closed_population(n: float, think: float) -> None:
    plan = make_plan(GAID, Demand(connections=n, think_s=think), POOLS)
    shortest = think + min(one.network_s for one in POOLS)
    assert 0 < plan.rate <= n / shortest
    assert plan.rate >= n / (think + 4.0) * 0.999  # no served request takes longer than the target


@EXAMPLES
@given(st.integers(1, 128), st.floats(1e-4, 0.1), st.floats(0.01, 2.0), st.floats(50, 99.9), st.floats(1e-3, 1e4))
def test_replicas_and_highest_rate_are_inverse(
    slots: int, alpha: float, left: float, percentile: float, rate: float
) -> None:
    one = pool(slots, alpha, left, percentile)
    replicas = replicas_for(one, rate)
    assert most_rate(one, replicas) >= rate * (1 - 1e-9)
    assert replicas == 1 or most_rate(one, replicas - 1) <= rate * (1 + 1e-9)


@EXAMPLES
@given(st.floats(1e-3, 1e3))
def test_the_response_is_never_below_an_empty_machine_nor_above_the_target(rate: float) -> None:
    edge = POOLS[1]
    one = pool_plan(GAID, edge, min(rate, most_rate(edge, edge.max_replicas)))
    alone = edge.profile.service_time(1, edge.input_tokens, edge.output_tokens)
    assert edge.network_s + alone * 0.999 <= one.response_s <= 4.0 * (1 + 1e-9)
    assert one.mean_response_s >= edge.network_s + alone * 0.999
