"""The autoscalers' last decisions, and the admin commands that apply them to HAProxy."""

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

_MAX_WEIGHT = 256  # of a server in HAProxy


@dataclass(slots=True)
class Decisions:
    """The last decision of each pool; it stays in force while its source does not respond."""

    latest: dict[str, dict[str, Any]] = field(default_factory=dict)
    received: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    async def poll(self, session: aiohttp.ClientSession, config: AgentConfig) -> None:
        """Polls each URL once, concurrently; a failure is recorded in `errors` and changes nothing else."""
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
        """Seconds since the pool's last decision, its age at the receipt included; None if there is none."""
        received = self.received.get(pool)
        return None if received is None else time.monotonic() - received

    def desired_in_flight(self, pool: AgentPool, gateways: int = 1, name: str = "") -> int | None:
        """A gateway's share of running replicas x slots; None (keep the limit) if the replicas are not known.

        Args:
            pool: the pool.
            gateways: number of gateways in front of it.
            name: this gateway's name in the decision's `gateways`, which has the requests of each gateway.
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
        """Measured start-up time of a pool that may scale to zero, in seconds (1 if unknown); None for other pools."""
        if not pool.scale_to_zero:
            return None
        startup_s = self.latest.get(pool.name, {}).get("startup_s")
        return float(startup_s) if isinstance(startup_s, int | float) and 0 <= startup_s < math.inf else 1.0


def _is_count(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _by_demand(slots: int, requests: object, name: str) -> float | None:
    """Share of the slots of the gateway `name`; None if its requests, or those of another gateway, are not known.

    If there are slots for all requests, each gateway gets those of its own requests and an equal part of the free
    ones; else the slots are divided in proportion to the requests. Clients keep their connections to one gateway, so
    with equal shares some requests would queue beside free slots. A new gateway is not in the decision yet. A gateway
    without requests keeps a slot, so that its first request does not wait for the next decision.
    """
    if not isinstance(requests, Mapping) or name not in requests or not all(map(_is_count, requests.values())):
        return None
    own, all_of_them = float(requests[name]), float(sum(requests.values()))
    if all_of_them > slots:
        return max(slots * own / all_of_them, min(slots, 1.0))
    return own + (slots - all_of_them) / len(requests)


def commands(backend: str, desired: int | None, state: PoolState, start_s: float | None = None) -> Iterator[str]:
    """Admin commands that change a pool from `state` to a limit of `desired` in flight; none if it is the same.

    HAProxy reads maxconn 0 as unlimited, so a pool without replicas is drained: its requests finish and no new ones
    are sent. A pool that may scale to zero (`start_s` is not None) is put into maintenance, without health checks,
    after its waiting room is opened.
    """
    if desired is None:
        return
    if desired == 0:
        yield from _close(backend, state, start_s)
        return
    if state.max_in_flight != desired:
        yield f"set maxconn server {backend}/s {desired}"
    if state.drained:
        yield f"set server {backend}/s weight 1"
    if state.drained or (state.maintenance and start_s is not None):
        yield f"set server {backend}/s state ready"
    if state.start_s:
        yield f"set server {backend}/w weight 0"


def _close(backend: str, state: PoolState, start_s: float | None) -> Iterator[str]:
    if start_s is None:
        if not state.drained:
            yield f"set server {backend}/s state drain"
    elif state.waiting_room_taken:  # else a client's request would be sent to the waiting room
        weight = min(max(math.ceil(start_s), 1), _MAX_WEIGHT)
        if state.start_s != weight:
            yield f"set server {backend}/w weight {weight}"
        if not (state.maintenance or state.unresolved):
            yield f"set server {backend}/s state maint"
