"""What stays while it is in use, and how often a status is written."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from tierserve.api import parse
from tierserve.controller.metrics import Metrics
from tierserve.controller.reconciler import Reconciler
from tierserve.plan.placement import place
from tierserve.reconcile import InUse, in_use
from tierserve.state import Observed, PoolObserved

RESOURCE = yaml.safe_load((Path(__file__).parents[3] / "examples" / "assistant.yaml").read_text())
RESOURCE["metadata"] |= {"namespace": "ns", "uid": "1", "generation": 1}
PLACEMENTS = place(parse(RESOURCE))
RUNNING = PoolObserved("RUNNING", running=1, desired=1)


def observed(old: PoolObserved, new: PoolObserved, routed: frozenset[str] | None) -> Observed:
    pools = {p.pool: RUNNING for p in PLACEMENTS} | {PLACEMENTS[0].pool: new, "old-default": old}
    return Observed(0.0, "http://x", pools, routed=routed)


OLD = frozenset({"old-default"})


@pytest.mark.parametrize(
    ("old", "new", "routed", "kept"),
    [
        (RUNNING, PoolObserved(), frozenset(), InUse(OLD, hold_routes=True)),
        (RUNNING, PoolObserved("DEPLOYING"), OLD, InUse(OLD, hold_routes=True)),
        (RUNNING, RUNNING, OLD, InUse(OLD)),
        (RUNNING, RUNNING, None, InUse(OLD)),
        (RUNNING, RUNNING, frozenset(), InUse()),
        (PoolObserved("DEPLOYING", running=1), RUNNING, OLD, InUse(OLD)),
        (PoolObserved("DEPLOY_FAILED", running=0), PoolObserved(), OLD, InUse()),
        (PoolObserved(), PoolObserved(), None, InUse()),
    ],
)
def test_a_renamed_tier_serves_until_the_new_one_does_and_gateways_have_left_it(old, new, routed, kept):
    assert in_use(PLACEMENTS, observed(old, new, routed)) == kept


class Place:
    """A runtime that runs everything as desired; its figures change with every look."""

    on_cluster: ClassVar[bool] = True

    def __init__(self) -> None:
        self.looks = 0
        self.app = "RUNNING"

    async def observe(self, _gaid: Any) -> Observed:
        self.looks += 1
        decision = {"running": 1, "lambda": 1.0 + self.looks, "rho": 0.5}
        gateway = {"p95_s": 0.5 + 0.001 * self.looks, "in_flight": self.looks % 4, "total": self.looks, "up": True}
        pool = replace(RUNNING, app=self.app, decision=decision, decision_age_s=0.1, gateway=gateway, revision="a")
        return Observed(0.0, "http://x", {p.pool: pool for p in PLACEMENTS}, {"gateway": True})

    def render(self, _gaid: Any, placements: Sequence[Any]) -> Sequence[Any]:
        return placements

    def revisions(self, desired: Sequence[Any]) -> Mapping[str, str]:
        return {p.pool: "a" for p in desired}

    async def apply(self, _gaid: Any, _desired: Any, _keep: InUse) -> Sequence[str]:
        return ()

    def forget(self, *_: str) -> None: ...


class Written:
    """Takes statuses as an API server does."""

    def __init__(self) -> None:
        self.statuses: list[Any] = []

    async def apply_status(self, _resource: Any, status: Any) -> None:
        self.statuses.append(copy.deepcopy(status))

    async def post_event(self, _event: Any) -> None: ...


@pytest.fixture
def served():
    """A reconciler, its runtime, what it wrote, and its clock in seconds."""
    now, runtime, written = [0.0], Place(), Written()
    reconciler = Reconciler(
        lambda _key: RESOURCE, written, runtime, Metrics(), resync_s=10.0, clock=lambda: 0.0, monotonic=lambda: now[0]
    )  # type: ignore[arg-type]
    return reconciler, runtime, written, now


async def test_changing_figures_are_written_once_per_resync_period(served):
    reconciler, runtime, written, now = served
    for now[0] in range(100):  # a reconcile every second, as events of a RayService may cause them
        await reconciler(("ns", "assistant"))
    assert runtime.looks == 100
    assert len(written.statuses) == 10


async def test_a_condition_that_changes_is_written_at_once(served):
    reconciler, runtime, written, now = served
    await reconciler(("ns", "assistant"))
    now[0], runtime.app = 1.0, "DEPLOY_FAILED"
    await reconciler(("ns", "assistant"))
    assert [s["ready"] for s in written.statuses] == ["True", "False"]


async def test_a_progressing_resource_is_reconciled_more_often_than_the_resync_period(served):
    reconciler, runtime, _, _ = served
    assert await reconciler(("ns", "assistant")) == 10.0
    runtime.app = "DEPLOYING"
    assert await reconciler(("ns", "assistant")) == 2.0
