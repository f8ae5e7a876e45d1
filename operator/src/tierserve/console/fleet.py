"""The services that the page shows: read from the source every two seconds, with their history."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tierserve.console.history import LENGTH_S, SAMPLE_S, History
from tierserve.console.sources import Key, Service, Source, SourceError
from tierserve.console.summary import Json, detail, fleet, row

log = logging.getLogger("tierserve.console")


@dataclass(frozen=True, slots=True)
class SourceState:
    """Whether the source can be read: `error` and the Unix time since when it cannot, else None."""

    error: str | None = None
    since: float | None = None


class Fleet:
    """Services, their rows and their history; while the source cannot be read, the last ones stay.

    Attributes:
        identity, revision: of this process, and number of the last sample: for conditional requests.
        time: Unix seconds of the last sample that could be read.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.history = History()
        self.identity = secrets.token_hex(4)
        self.state = SourceState()
        self.revision = 0
        self.time: float | None = None
        self.rows: list[Json] = []
        self.totals: Json = fleet(())
        self._services: dict[Key, Service] = {}

    async def run(self) -> None:
        """Sample until cancelled; an error of the source is reported and the next sample tries again."""
        while True:
            began = time.monotonic()
            await self.sample()
            await asyncio.sleep(max(0.1, SAMPLE_S - (time.monotonic() - began)))

    async def sample(self) -> None:
        """Read the source once."""
        try:
            services = await self.source.services()
            await asyncio.to_thread(self._take, services, time.time())
            self.state = SourceState()
        except SourceError as error:
            if error.services is not None:
                await asyncio.to_thread(self._take, error.services, time.time())
            self._note(str(error))
        except Exception as error:  # a status of an unknown form must not end the console
            log.exception("the services cannot be read")
            self._note(f"{type(error).__name__}: {error}")
        self.revision += 1

    def _note(self, error: str) -> None:
        since = self.state.since if self.state.since is not None else time.time()
        self.state = SourceState(error, since)

    def _take(self, services: Sequence[Service], now: float) -> None:
        rows = sorted((row(service) for service in services), key=lambda one: (one["namespace"], one["name"]))
        self.history.sample(now, services)
        self._services = {service.key: service for service in services}
        self.rows, self.totals, self.time = rows, fleet(rows), now

    def listed(self, text: str, offset: int, limit: int) -> Json:
        """One page of the services whose name, namespace or reason contains `text`, with the totals of all."""
        text = text.casefold()
        matching = [one for one in self.rows if text in _searchable(one)] if text else self.rows
        return {
            **self._head(),
            "totals": self.totals,
            "matching": len(matching),
            "offset": offset,
            "services": matching[offset : offset + limit],
        }

    def of(self, key: Key, since: float) -> Json | None:
        """A service with its history after `since`, Unix seconds; None if there is none."""
        service = self._services.get(key)
        if service is None:
            return None
        return {
            **self._head(),
            "service": detail(service),
            "history": self.history.tiers(key, max(since, (self.time or 0.0) - LENGTH_S)),
            "decisions": self.history.decisions(key),
        }

    def rate_of(self, key: Key) -> float | None:
        """Arrivals per second of a service now; None if unknown."""
        rate = next((one["arrivalsPerSecond"] for one in self.rows if (one["namespace"], one["name"]) == key), None)
        return None if rate is None else float(rate)

    def _head(self) -> Json:
        source: Mapping[str, Any] = {
            "kind": self.source.kind,
            "error": self.state.error,
            "since": self.state.since,
            "time": self.time,
        }
        return {"source": dict(source), "now": time.time()}


def _searchable(one: Json) -> str:
    return f"{one['namespace']}/{one['name']} {one['reason']}".casefold()
