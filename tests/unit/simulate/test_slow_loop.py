"""The simulated gateway fills the tiers in the order that the operator's own step applies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tierserve.api import GenAIDeployment, parse
from tierserve.plan.placement import place
from tierserve.simulate.cluster import Setup
from tierserve.simulate.multi_tier import Site, Traffic, simulate_tiers
from tierserve.simulate.policies.static import Static
from tierserve.simulate.results import TiersResult
from tierserve.simulate.slow_loop import SlowLoop
from tierserve.simulate.types import Objective, Pool
from tierserve.simulate.workload import Workload

RATE, LENGTH_S = 2.0, 3 * 3600.0


def service(series: str) -> GenAIDeployment:
    def tier(name: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "kind": "cloud", "accelerator": {"preset": "A100-80GB"}, "replicas": {"max": 2}, **more}

    return parse(
        {
            "apiVersion": "serving.tierserve.io/v1alpha1",
            "kind": "GenAIDeployment",
            "metadata": {"name": "green"},
            "spec": {
                "objective": {
                    "responseTime": {"target": "8s"},
                    "optimize": {"by": "carbon", "mode": "apply", "interval": "5m"},
                },
                "models": [
                    {
                        "name": "m", "engine": "emulated", "memory": {"weights": "16Gi", "perRequest": "250Mi"},
                        "profile": {"alpha": "20ms", "beta": "30us", "gamma": "10ns"}, "output": {"tokens": 50},
                    }
                ],
                "tiers": [tier("flat", carbonIntensity=300), tier("solar", carbonSource={"series": series})],
                "traffic": [{"name": "chat", "input": 100, "output": 50}],
                "routing": {"overflow": ["flat", "solar"]},
            },
        }
    )  # fmt: skip


def run(gaid: GenAIDeployment) -> tuple[SlowLoop, TiersResult]:
    n = int(RATE * LENGTH_S)
    times = np.sort(np.random.default_rng(3).uniform(0.0, LENGTH_S, n))
    work = Workload(times, np.full(n, 100), np.full(n, 50), LENGTH_S)
    placements = place(gaid)
    sites = []
    for one in placements:
        pool = Pool(
            profile=one.profile, slots=one.slots, startup_s=60.0, max_replicas=2, input_tokens=100.0,
            output_tokens=50.0, objective=Objective(one.target_s, percentile=one.percentile),
        )  # fmt: skip
        sites.append(Site(one.pool, one.tier, pool, Static(pool, 1), Setup(initial=1)))
    loop = SlowLoop(gaid, placements)

    def reorder(t: float, seen: Any) -> dict[str, tuple[str, ...]] | None:
        changed = loop(t, seen)
        return None if changed is None else {"chat": tuple(tier.name for tier in changed.overflow)}

    return loop, simulate_tiers(Traffic(work, {"chat": ("flat", "solar")}), sites, reorder=reorder)


def test_requests_go_to_the_greener_tier_while_it_is_the_greener_one() -> None:
    loop, found = run(service("00:00,900\n00:50,50\n01:50,900"))
    assert [order for _, order in loop.changes] == [("solar", "flat"), ("flat", "solar")]
    begin, end = (t for t, _ in loop.changes)
    assert 3000.0 <= begin <= 3000.0 + 3 * 300.0  # the change of the grid, two searches, one round
    assert 6600.0 <= end <= 6600.0 + 3 * 300.0
    green = found.in_pool("solar-default")
    within = (found.arrive_s > begin + 10.0) & (found.arrive_s < end - 10.0)
    assert green[within].mean() > 0.99
    assert green[~within & ((found.arrive_s < begin - 10.0) | (found.arrive_s > end + 10.0))].mean() < 0.01
    assert found.refused.sum() == 0


@pytest.mark.parametrize("series", ["00:00,290", "00:00,310"])
def test_a_difference_below_five_per_cent_changes_nothing(series: str) -> None:
    loop, _ = run(service(series))
    assert loop.changes == []
