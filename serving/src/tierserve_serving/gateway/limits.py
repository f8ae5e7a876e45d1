"""What the autoscalers last decided, and the limits and server states that follow from it."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import aiohttp

from tierserve_serving.gateway.admin import PoolState
from tierserve_serving.gateway.agent_config import AgentConfig, AgentPool

_LARGEST_WEIGHT = 256  # of a server of HAProxy


@dataclass(slots=True)
class Decisions:
    """The last decision of each pool; held while its source does not answer."""

    latest: dict[str, dict[str, Any]] = field(default_factory=dict)
    received: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    async def poll(self, session: aiohttp.ClientSession, config: AgentConfig) -> None:
        """Asks each URL once, all at the same time; a failure is noted and changes nothing else."""
        urls = {p.decisions_url for p in config.pools if p.decisions_url}
        await asyncio.gather(*(self._poll_one(session, url, config) for url in sorted(urls)))

    async def _poll_one(self, session: aiohttp.ClientSession, url: str, config: AgentConfig) -> None:
        try:
            async with session.get(url, timeout=aiohttp.ClientTimeout(total=2.0)) as response:
                response.raise_for_status()
                body = json.loads(await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            self.errors[url] = str(error) or type(error).__name__
            return
        self.errors.pop(url, None)
        self._take(body, [p for p in config.pools if p.decisions_url == url])

    def _take(self, body: object, pools: list[AgentPool]) -> None:
        decisions = body if isinstance(body, Mapping) else {}
        for pool in pools:
            decision = decisions.get(pool.name)
            if isinstance(decision, dict):
                age_s = decision.pop("age_s", 0.0)
                self.latest[pool.name] = decision
                self.received[pool.name] = time.monotonic() - (float(age_s) if _is_count(age_s) else 0.0)

    def age_s(self, pool: str) -> float | None:
        """Seconds since the pool's decision was made, its age when it was received included; None if there is none."""
        received = self.received.get(pool)
        return None if received is None else time.monotonic() - received

    def wanted_in_flight(self, pool: AgentPool, gateways: int = 1, name: str = "") -> int | None:
        """A gateway's share of running replicas x slots; None (leave the limit alone) when that is not known.

        Args:
            pool: the pool.
            gateways: how many gateways are in front of it.
            name: this one's name in the decision's `gateways`, the requests that each of them had when it was made.
        """
        decision = self.latest.get(pool.name, {})
        running = decision.get("running")
        if not _is_count(running):
            return None
        slots = int(running) * pool.slots
        if gateways == 1:
            return slots
        return math.ceil(_by_demand(slots, decision.get("gateways"), name) or slots / gateways)

    def start_s(self, pool: AgentPool) -> float | None:
        """Seconds that a start takes as learned, of a pool that may sleep; None of others."""
        if not pool.sleeps:
            return None
        told = self.latest.get(pool.name, {}).get("startup_s")
        return float(told) if isinstance(told, int | float) and 0 <= told < math.inf else 1.0


def _is_count(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _by_demand(slots: int, requests: object, name: str) -> float | None:
    """The share of the slots of the gateway `name`; None when not all that it takes is known.

    Where there are slots for all requests, each gateway has those of its own and an equal part of what is free; else
    the slots are divided as the requests are. Clients keep their connections to one gateway, so with equal shares some
    would wait beside free slots. A gateway that is new here has had no say yet; one that is asked for nothing keeps a
    slot, so that its first request is not held until the next decision.
    """
    if not isinstance(requests, Mapping) or name not in requests or not all(map(_is_count, requests.values())):
        return None
    own, all_of_them = float(requests[name]), float(sum(requests.values()))
    if all_of_them > slots:
        return max(slots * own / all_of_them, min(slots, 1.0))
    return own + (slots - all_of_them) / len(requests)


def commands(backend: str, wanted: int | None, state: PoolState, start_s: float | None = None) -> Iterator[str]:
    """Admin commands that bring a pool from `state` to at most `wanted` in flight; none when it is there.

    A limit of 0 means unlimited to HAProxy, so an empty pool is drained: requests under way end, none is sent. One that
    may sleep (`start_s` is given) is taken out with its health checks, and its waiting room is opened before.
    """
    if wanted is None:
        return
    if wanted == 0:
        yield from _closing(backend, state, start_s)
        return
    if state.max_in_flight != wanted:
        yield f"set maxconn server {backend}/s {wanted}"
    if state.drained:
        yield f"set server {backend}/s weight 1"
    if state.drained or (state.off and start_s is not None):
        yield f"set server {backend}/s state ready"
    if state.start_s:
        yield f"set server {backend}/w weight 0"


def _closing(backend: str, state: PoolState, start_s: float | None) -> Iterator[str]:
    if start_s is None:
        if not state.drained:
            yield f"set server {backend}/s state drain"
    elif state.held:  # else somebody would be let into the waiting room
        weight = min(max(math.ceil(start_s), 1), _LARGEST_WEIGHT)
        if state.start_s != weight:
            yield f"set server {backend}/w weight {weight}"
        if not (state.off or state.unresolved):
            yield f"set server {backend}/s state maint"
