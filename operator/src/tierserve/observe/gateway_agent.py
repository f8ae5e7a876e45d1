"""Reads the gateway agent's /status: latency, queue and demand per pool, and the last autoscaling decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from tierserve.observe.client import client

Figures = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class AgentReport:
    """Report of an agent, by pool; empty if it does not answer (missing is not zero).

    Attributes:
        figures: the gateway's figures.
        decisions: last autoscaling decisions.
        ages_s: their ages by the agent's clock.
        routed: pools to which HAProxy routes requests; None if unknown.
    """

    figures: Figures = field(default_factory=dict)
    decisions: Figures = field(default_factory=dict)
    ages_s: Mapping[str, float] = field(default_factory=dict)
    routed: frozenset[str] | None = None


def get_gateway(agent_url: str, *, timeout_s: float = 2.0) -> AgentReport:
    """Read the report of the agent at a URL."""
    try:
        response = client().get(f"{agent_url}/status", timeout=timeout_s)
        response.raise_for_status()
        body = response.json()
    except (httpx.HTTPError, ValueError):
        return AgentReport()
    pools: Mapping[str, Mapping[str, Any]] = body.get("pools") or {}
    routed = body.get("routed")
    return AgentReport(
        figures={name: {k: v for k, v in pool.items() if not k.startswith("decision")} for name, pool in pools.items()},
        decisions={name: pool["decision"] for name, pool in pools.items() if pool.get("decision")},
        ages_s={
            name: float(pool["decision_age_s"])
            for name, pool in pools.items()
            if pool.get("decision_age_s") is not None
        },
        routed=None if routed is None else frozenset(routed),
    )
