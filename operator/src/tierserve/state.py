"""What was observed of a service: its pools, components and gateways (values only, no I/O)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class PoolObserved:
    """What is known of one pool; None is "not known", which is not zero.

    Attributes:
        app: state of the Serve application that serves (RUNNING, DEPLOYING, ...), None when Serve does not answer.
        message: Serve's message when something is wrong, tracebacks of replicas included.
        running: replicas that serve, of whatever version.
        desired: replicas that Serve aims at.
        decision: the policy's last decision.
        gateway: the gateway's figures of the pool, its health check among them.
        decision_age_s: age of the decision by the clock of whoever reports it; None: no age is known.
        revision: rendered version that serves; None while it is not known, or another one is on its way.
        previous: replicas that serve and are of an older version than the last one rendered.
        update: state of the Serve application of the version on its way, where that is not `app`.
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
        """Whether it answers requests, as far as that is known."""
        return self.app == "RUNNING" or bool(self.running)


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything observed in one pass.

    Attributes:
        now: Unix seconds.
        endpoint: base URL of the service.
        pools: per pool name, those included that the service no longer has.
        components: whether each component (gateway, agent, Ray head, nodes) is alive.
        problems: what is wrong, one sentence each.
        routed: pools that a gateway sends requests to; None while not all gateways report it.
    """

    now: float
    endpoint: str
    pools: Mapping[str, PoolObserved] = field(default_factory=dict)
    components: Mapping[str, bool] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    routed: frozenset[str] | None = None
