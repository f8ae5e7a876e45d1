"""One reconcile hands the choice of `objective.optimize` to whatever it runs on, and carries it in the status."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tierserve.api import GenAIDeployment, parse
from tierserve.plan.placement import Placement
from tierserve.reconcile import InUse, reconcile
from tierserve.state import Observed, PoolObserved
from tierserve.status.build import without_nulls

NOW = 1_800_000_000.0
INTERVAL_S = 60.0


def tier(name: str, grams: float) -> dict[str, Any]:
    return {
        "name": name, "kind": "cloud", "accelerator": {"preset": "A100-80GB"}, "carbonIntensity": grams,
        "replicas": {"min": 1, "max": 9},
    }  # fmt: skip


GAID = parse(
    {
        "apiVersion": "serving.tierserve.io/v1alpha1",
        "kind": "GenAIDeployment",
        "metadata": {"name": "green"},
        "spec": {
            "objective": {
                "responseTime": {"target": "8s"},
                "optimize": {"by": "carbon", "mode": "apply", "interval": "1m"},
                "caps": {"carbonPerHour": "1g"},
            },
            "models": [
                {
                    "name": "m", "engine": "emulated", "memory": {"weights": "16Gi", "perRequest": "250Mi"},
                    "profile": {"alpha": "20ms", "beta": "30us", "gamma": "10ns"},
                }
            ],
            "tiers": [tier("coal", 800), tier("hydro", 20)],
            "routing": {"overflow": ["coal", "hydro"]},
        },
    }
)  # fmt: skip


class Recorder:
    """A runtime that has two pools with a load, and records in which order it is asked to fill them."""

    on_cluster: ClassVar[bool] = True

    def __init__(self) -> None:
        self.now, self.orders = NOW, list[tuple[str, ...]]()

    async def observe(self, gaid: GenAIDeployment) -> Observed:
        del gaid
        pools = {
            f"{name}-default": PoolObserved(
                app="RUNNING", running=1, desired=1, decision={"rho": 0.5, "lambda": rate}, decision_age_s=1.0,
                gateway={"rate": rate, "p95_s": 0.5, "up": True},
            )
            for name, rate in (("coal", 9.0), ("hydro", 0.0))
        }  # fmt: skip
        return Observed(now=self.now, endpoint="http://127.0.0.1", pools=pools)

    def render(self, gaid: GenAIDeployment, placements: tuple[Placement, ...]) -> tuple[str, ...]:
        del placements
        return tuple(one.name for one in gaid.overflow)

    def revisions(self, desired: tuple[str, ...]) -> Mapping[str, str]:
        del desired
        return {}

    async def apply(self, gaid: GenAIDeployment, desired: tuple[str, ...], keep: InUse) -> Sequence[str]:
        del gaid, keep
        self.orders.append(desired)
        return ()


def test_a_confirmed_choice_reaches_the_runtime_and_is_in_the_status() -> None:
    runtime, status = Recorder(), None
    for _ in range(4):
        # As it comes back from an API server: without what is not known.
        status = without_nulls(asyncio.run(reconcile(GAID, runtime, status)))
        runtime.now += INTERVAL_S
    assert runtime.orders[:2] == [("coal", "hydro")] * 2
    assert runtime.orders[2:] == [("hydro", "coal")] * 2
    assert status["optimization"]["applied"]["overflow"] == ["hydro", "coal"]
    conditions = {one["type"]: (one["status"], one["reason"]) for one in status["conditions"]}
    assert conditions["Optimized"] == ("True", "Applied")
    assert conditions["CapsMet"] == ("False", "CapExceeded")


def test_power_and_intensity_of_each_pool_are_in_the_status() -> None:
    status = asyncio.run(reconcile(GAID, Recorder()))
    coal, hydro = status["pools"]
    assert (coal["carbonIntensity"], coal["carbonIntensitySource"]) == (800.0, "constant")
    assert coal["watts"] > coal["idleWatts"] > 0
    assert coal["joulesPerRequest"] > 0
    assert hydro["joulesPerRequest"] is None  # nothing is served there
    assert status["carbonGramsPerHour"] > 0
    assert status["embodiedGramsPerHour"] is None
