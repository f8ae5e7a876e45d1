"""Observed state of a service: its pools, components and gateways (values only, no I/O)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Intensity:
    """Carbon intensity of a tier in gCO2e/kWh, and where it is from: constant, series or the name of a provider."""

    value: float
    source: str


@dataclass(frozen=True, slots=True)
class PoolObserved:
    """Observed state of one pool; None is unknown, which is not zero.

    Attributes:
        app: status of the Serve application that serves (RUNNING, DEPLOYING, ...), None if Serve does not answer.
        message: Serve's error message, tracebacks of replicas included.
        running: running replicas of any revision.
        desired: Serve's target number of replicas.
        decision: last decision of the autoscaling policy.
        gateway: the gateway's figures of the pool, health check included.
        decision_age_s: age of the decision by the clock of the agent that reports it; None is unknown.
        revision: rendered revision that serves; None while it is unknown or another one is rolling out.
        previous: running replicas of an older revision than the last one rendered.
        update: status of the Serve application of the revision that is rolling out, if that is not `app`.
    """

    app: str | None = None
    message: str = ""
    running: int | None = None
    desired: int | None = None
    decision: Mapping[str, Any] | None = None
    gateway: Mapping[str, Any] | None = None
    decision_age_s: float | None = None
    revision: str | None = None
    previous: int | None = None
    update: str | None = None

    @property
    def serves(self) -> bool:
        """Whether it serves requests, as far as is known."""
        return self.app == "RUNNING" or bool(self.running)


@dataclass(frozen=True, slots=True)
class Observed:
    """Observed state of a service in one reconcile.

    Attributes:
        now: Unix seconds.
        endpoint: base URL of the service.
        pools: by name, including pools that are no longer in the spec.
        components: whether each component (gateway, agent, Ray head, nodes) is running.
        problems: errors, one sentence each.
        routed: pools to which a gateway routes requests; None until all gateways report it.
        carbon: carbon intensity by the name of the tier; one that is left out has that of the resource.
    """

    now: float
    endpoint: str
    pools: Mapping[str, PoolObserved] = field(default_factory=dict)
    components: Mapping[str, bool] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    routed: frozenset[str] | None = None
    carbon: Mapping[str, Intensity] = field(default_factory=dict)
