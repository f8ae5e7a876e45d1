"""The last 15 minutes of each tier, and the last scaling decisions: in memory, limited in number."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from tierserve.console.sources import Key, Service
from tierserve.console.summary import TierNow, tiers_of

SAMPLE_S = 2.0
LENGTH_S = 900.0
SAMPLES = int(LENGTH_S / SAMPLE_S)
COLUMNS = ("p95Seconds", "targetSeconds", "arrivalsPerSecond", "running", "desired")
MOST_TIERS = 4000
"""Tiers with a history: 4000 take 50 MB. Those beyond have figures of now only."""
DECISIONS = 20
"""Scaling decisions kept for each service."""


class Ring:
    """Samples of one tier in float32, NaN where unknown; the oldest are overwritten."""

    def __init__(self) -> None:
        self._times = np.zeros(SAMPLES)
        self._values = np.full((SAMPLES, len(COLUMNS)), np.nan, dtype=np.float32)
        self._count = 0

    def add(self, now: float, tier: TierNow) -> None:
        """Add the figures of a tier at `now`, Unix seconds."""
        figures = (tier.p95_s, tier.target_s, tier.arrivals_per_s, tier.running, tier.desired)
        at = self._count % SAMPLES
        self._times[at] = round(now, 1)  # as it is returned: a client continues after the last time that it has
        self._values[at] = [math.nan if value is None else value for value in figures]
        self._count += 1

    def after(self, since: float) -> dict[str, list[float | None]]:
        """Columns of the samples after `since`, oldest first, with their times."""
        order = np.arange(max(0, self._count - SAMPLES), self._count) % SAMPLES
        chosen = order[self._times[order] > since]
        columns: dict[str, list[float | None]] = {"time": self._times[chosen].tolist()}
        for number, name in enumerate(COLUMNS):
            values = self._values[chosen, number]
            columns[name] = [None if math.isnan(value) else float(f"{value:.4g}") for value in values]
        return columns


class History:
    """Samples of all tiers and decisions of all services."""

    def __init__(self) -> None:
        self._rings: dict[tuple[Key, str], Ring] = {}
        self._decisions: dict[Key, deque[dict[str, Any]]] = {}
        self._desired: dict[Key, dict[str, int]] = {}

    def sample(self, now: float, services: Iterable[Service]) -> None:
        """Add one sample of each service; services that are gone lose their history."""
        current: set[Key] = set()
        names: set[tuple[Key, str]] = set()
        for service in services:
            current.add(service.key)
            for tier in tiers_of(service):
                identity = (service.key, tier.name)
                names.add(identity)
                ring = self._ring(identity)
                if ring is not None:
                    ring.add(now, tier)
            self._note_decisions(now, service)
        for identity in self._rings.keys() - names:
            if identity[0] not in current:
                del self._rings[identity]
        for key in self._desired.keys() - current:
            del self._desired[key]
            self._decisions.pop(key, None)

    def _ring(self, identity: tuple[Key, str]) -> Ring | None:
        if identity not in self._rings:
            if len(self._rings) >= MOST_TIERS:
                return None
            self._rings[identity] = Ring()
        return self._rings[identity]

    def _note_decisions(self, now: float, service: Service) -> None:
        before = self._desired.setdefault(service.key, {})
        for pool in service.status.get("pools") or ():
            decision, desired = pool.get("decision") or {}, pool.get("desired")
            name = str(pool.get("pool"))
            # The reason changes with every figure in it; only another number of replicas is a new decision.
            if desired is None or not decision.get("reason") or before.get(name) == desired:
                continue
            entries = self._decisions.setdefault(service.key, deque(maxlen=DECISIONS))
            entries.appendleft(
                {
                    "time": round(now, 1),
                    "pool": name,
                    "previous": before.get(name),
                    "desired": desired,
                    "reason": decision["reason"],
                }
            )
            before[name] = desired

    def tiers(self, key: Key, since: float = 0.0) -> dict[str, Mapping[str, list[float | None]]]:
        """Columns of each tier of a service."""
        return {name: ring.after(since) for (owner, name), ring in self._of(key) if owner == key}

    def _of(self, key: Key) -> Iterator[tuple[tuple[Key, str], Ring]]:
        return ((identity, ring) for identity, ring in self._rings.items() if identity[0] == key)

    def decisions(self, key: Key) -> list[dict[str, Any]]:
        """Changes of the desired replicas, newest first, with the reason that was given."""
        return list(self._decisions.get(key, ()))
