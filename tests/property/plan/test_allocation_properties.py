"""What must hold of every allocation, whatever the demand and the prices."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tierserve.api import GenAIDeployment, parse
from tierserve.api.v1alpha1.traffic import KINDS_ALLOWED
from tierserve.plan.allocation.optimum import find

pytestmark = pytest.mark.slow  # each example solves several programmes

FEW = settings(max_examples=25, deadline=None)
RATES = st.floats(0.1, 120.0)
KINDS = st.sampled_from(["cost", "energy", "carbon"])


def service(prices: tuple[float, float], share: float, optimize: str, caps: dict[str, Any] | None) -> GenAIDeployment:
    def tier(name: str, kind: str, price: float, most: int, sites: int) -> dict[str, Any]:
        return {
            "name": name,
            "kind": kind,
            "accelerator": {"preset": "L4" if kind == "edge" else "A100-80GB"},
            "price": price,
            "replicas": {"min": 0, "max": most},
            "sites": [{"name": f"{name}{k}"} for k in range(sites)],
        }

    model = {
        "name": "m",
        "engine": "emulated",
        "memory": {"weights": "14Gi", "perRequest": "512Mi"},
        "profile": {"alpha": "20ms", "beta": "50us", "gamma": "100ns"},
        "output": {"tokens": 32},
        "maxConcurrency": 4,
    }
    traffic = [
        {"name": "open", "share": share, "input": 128},
        {"name": "near", "share": 1 - share, "input": 64, "privacy": "site"},
    ]
    objective: dict[str, Any] = {"responseTime": {"target": "1500ms"}, "optimize": {"by": optimize}}
    spec = {
        "objective": {**objective, "caps": caps} if caps else objective,
        "models": [model, {**model, "name": "n", "profile": {"alpha": "15ms", "beta": "90us", "gamma": "0s"}}],
        "tiers": [tier("edge", "edge", prices[0], 5, 4), tier("cloud", "cloud", prices[1], 40, 1)],
        "traffic": traffic,
        "routing": {"overflow": ["edge", "cloud"], "defaultClass": "near"},
    }
    meta = {"apiVersion": "serving.tierserve.io/v1alpha1", "kind": "GenAIDeployment", "metadata": {"name": "s"}}
    return parse({**meta, "spec": spec})


SERVICES = st.builds(
    service,
    st.tuples(st.floats(0.1, 5.0), st.floats(0.1, 5.0)),
    st.sampled_from([0.2, 0.5, 0.9]),
    KINDS,
    st.none() | st.fixed_dictionaries({"costPerHour": st.floats(1.0, 60.0)}),
)


@FEW
@given(SERVICES, RATES)
def test_all_is_served_where_it_may_be_within_capacity_bounds_and_caps(gaid: GenAIDeployment, rate: float) -> None:
    found = find(gaid, rate)
    assume(found is not None)
    assert found is not None
    for traffic in gaid.spec.traffic:
        got = sum(one.rates.get(traffic.name, 0.0) for one in found.pools)
        assert abs(got - rate * traffic.share) <= 1e-5 * rate
    for one in found.pools:
        tier = gaid.tier(one.placement.tier)
        seen = {traffic for traffic in gaid.spec.traffic if one.rates.get(traffic.name)}
        assert all(tier.kind in KINDS_ALLOWED[traffic.privacy] for traffic in seen)
        assert tier.min_replicas <= one.replicas <= tier.max_replicas
        assert one.work <= one.capacity * (1 + 1e-5)
        assert one.late <= 0.05 * (1 + 1e-5)
    caps = gaid.spec.objective.caps
    assert caps is None or found.cost_per_hour <= (caps.cost_per_hour or 0.0) * (1 + 1e-9)


@FEW
@given(SERVICES, RATES, st.floats(1.0, 2.0))
def test_more_demand_never_costs_less_and_never_becomes_possible(
    gaid: GenAIDeployment, rate: float, more: float
) -> None:
    low, high = (find(gaid, x, bursty=False) for x in (rate, rate * more))
    assert high is None or low is not None
    # the planner may pay a thousandth of a replica for ties
    assert high is None or low is None or low.value <= high.value * (1 + 1e-3)


@FEW
@given(SERVICES, RATES)
def test_planning_for_bursts_never_costs_less(gaid: GenAIDeployment, rate: float) -> None:
    fresh, bursty = find(gaid, rate, bursty=False), find(gaid, rate)
    assert bursty is None or fresh is not None
    assert bursty is None or fresh is None or fresh.value <= bursty.value * (1 + 1e-3)
