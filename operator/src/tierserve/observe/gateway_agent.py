"""The gateway agent's /status: latency, queue and demand per pool, and the policies' last decisions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from tierserve.observe.client import client

Figures = dict[str, Mapping[str, Any]]


def get_gateway(agent_url: str, *, timeout_s: float = 2.0) -> tuple[Figures, Figures]:
    """Gateway figures and decisions, each by pool; empty when the agent does not answer (missing is not zero)."""
    try:
        response = client().get(f"{agent_url}/status", timeout=timeout_s)
        response.raise_for_status()
        body = response.json()
    except (httpx.HTTPError, ValueError):
        return {}, {}
    pools: Mapping[str, Mapping[str, Any]] = body.get("pools") or {}
    decisions = {name: pool["decision"] for name, pool in pools.items() if pool.get("decision")}
    figures: Figures = {name: {k: v for k, v in pool.items() if k != "decision"} for name, pool in pools.items()}
    return figures, decisions
