"""Where the console reads services from: the values that it reads, and the protocol of a source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Key = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service as its source reports it; None is unknown, which is not zero.

    Attributes:
        namespace, name: its key; the namespace of services of this machine is `local`.
        status: as in the status of the resource.
        target_s, percentile: of the objective.
        age_s: age of the status, where the source knows it.
        problems: what is wrong beside the conditions, one sentence each.
    """

    namespace: str
    name: str
    status: Mapping[str, Any] = field(default_factory=dict)
    target_s: float | None = None
    percentile: float | None = None
    age_s: float | None = None
    problems: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.namespace, self.name


class SourceError(Exception):
    """The source cannot be read now; the message is shown on the page until it can.

    Args:
        message: what is wrong, with a hint.
        services: those of the part that can be read; None if there is none.
    """

    def __init__(self, message: str, services: Sequence[Service] | None = None) -> None:
        super().__init__(message)
        self.services = services


class Source(Protocol):
    """Services of this machine or of a cluster."""

    kind: Literal["local", "kubernetes"]

    async def services(self) -> Sequence[Service]:
        """All services now; raises SourceError."""

    async def document(self, key: Key) -> Mapping[str, Any] | None:
        """The GenAIDeployment as a document with `spec`, for the planner; None if there is none; raises SourceError."""

    async def close(self) -> None:
        """Close connections."""
