"""The line that everything hangs on: place -> render -> apply -> observe -> status.

Both runtimes walk it: `local` with processes of this machine, `kube` with objects of a cluster (the same line, with
`await` where the cluster is asked).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from tierserve.api import GenAIDeployment
from tierserve.plan.placement import Placement, place
from tierserve.status.build import Observed, Status, status

Desired = TypeVar("Desired")


class Runtime(Protocol[Desired]):
    """What a place to run must be able to do."""

    def observe(self) -> Observed:
        """Say what is, each part with what is known of it; missing parts are missing, not zero."""

    def render(self, gaid: GenAIDeployment, placements: tuple[Placement, ...]) -> Desired:
        """Say what shall be; no side effects."""

    def apply(self, desired: Desired) -> None:
        """Bring what is closer to what shall be; safe to repeat."""


def reconcile(gaid: GenAIDeployment, runtime: Runtime[Desired], previous: Status | None = None) -> Status:
    """One pass. Level-based: it depends on nothing but the resource and what is observed."""
    placements = place(gaid)
    desired = runtime.render(gaid, placements)
    if not gaid.spec.paused:
        runtime.apply(desired)
    return status(gaid, placements, runtime.observe(), previous)


class ClusterRuntime(Protocol[Desired]):
    """The same of a place that many services share and that is asked over the network."""

    def render(self, gaid: GenAIDeployment, placements: tuple[Placement, ...]) -> Desired:
        """Say what shall be; no side effects."""

    async def apply(self, gaid: GenAIDeployment, desired: Desired) -> None:
        """Bring what is closer to what shall be; safe to repeat."""

    async def observe(self, gaid: GenAIDeployment, placements: Sequence[Placement]) -> Observed:
        """Say what is; missing parts are missing, not zero."""


async def reconcile_on_cluster(
    gaid: GenAIDeployment, runtime: ClusterRuntime[Desired], previous: Status | None = None
) -> Status:
    """One pass on a cluster.

    Raises:
        PlacementError: the planner finds no place for a tier; nothing was changed.
    """
    placements = place(gaid)
    desired = runtime.render(gaid, placements)
    if not gaid.spec.paused:
        await runtime.apply(gaid, desired)
    return status(gaid, placements, await runtime.observe(gaid, placements), previous, cluster=True)
