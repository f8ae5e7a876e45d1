"""Reconcile loop: observe, plan, render, apply, report status. Both runtimes run it.

Level-based: it depends on the resource and the observed state only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, TypeVar

from tierserve.api import GenAIDeployment
from tierserve.observe.carbon import intensities
from tierserve.plan.optimizer import in_effect, step
from tierserve.plan.placement import Placement, place
from tierserve.state import Observed, PoolObserved
from tierserve.status.build import status, with_optimization
from tierserve.status.conditions import Status

Desired = TypeVar("Desired")


@dataclass(frozen=True, slots=True)
class InUse:
    """What must be kept in this reconcile although it is no longer in the spec.

    Attributes:
        pools: pools of an earlier spec that must not be removed yet.
        hold_routes: gateways keep their configuration, because the pools of the new one do not serve yet.
    """

    pools: frozenset[str] = frozenset()
    hold_routes: bool = False


class Runtime(Protocol[Desired]):
    """A runtime: observes services and applies their plans."""

    on_cluster: ClassVar[bool]

    async def observe(self, gaid: GenAIDeployment) -> Observed:
        """Return the observed state; missing data is unknown, not zero."""

    def render(self, gaid: GenAIDeployment, placements: tuple[Placement, ...]) -> Desired:
        """Return the desired state; no side effects."""

    def revisions(self, desired: Desired) -> Mapping[str, str]:
        """Return the rendered revision of each pool, comparable to `PoolObserved.revision`."""

    async def apply(self, gaid: GenAIDeployment, desired: Desired, keep: InUse) -> Sequence[str]:
        """Bring the observed state closer to the desired; idempotent. Returns its errors, one sentence each."""


async def reconcile(gaid: GenAIDeployment, runtime: Runtime[Desired], previous: Status | None = None) -> Status:
    """Reconcile one resource; returns its new status.

    Raises:
        PlacementError: no model fits a tier; nothing was changed.
    """
    spec, gaid = gaid, in_effect(gaid, previous)  # with what `objective.optimize` has applied
    observed, carbon = await asyncio.gather(runtime.observe(gaid), intensities(gaid))
    observed = replace(observed, carbon=carbon)
    placements = place(gaid)
    desired = runtime.render(gaid, placements)
    if not gaid.spec.paused:
        failures = await runtime.apply(gaid, desired, in_use(placements, observed))
        observed = replace(observed, problems=(*dict.fromkeys((*failures, *observed.problems)),))
    revisions = runtime.revisions(desired)
    new = status(gaid, placements, observed, previous, revisions=revisions, cluster=runtime.on_cluster)
    # A search takes a part of a second of CPU: beside the loop that serves all resources.
    optimization = await asyncio.to_thread(step, spec, new, previous, observed.now)
    return with_optimization(spec, new, optimization, observed.now, previous)


def in_use(placements: Sequence[Placement], observed: Observed) -> InUse:
    """Pools of an earlier spec that still serve: each is kept until the new ones serve and no gateway routes to it."""
    names = {p.pool for p in placements}
    old = {name for name, pool in observed.pools.items() if name not in names and pool.serves}
    if not old:
        return InUse()
    if not all(observed.pools.get(name, PoolObserved()).app == "RUNNING" for name in names):
        return InUse(frozenset(old), hold_routes=True)
    if observed.routed is None:
        return InUse(frozenset(old))
    return InUse(frozenset(old & observed.routed))
