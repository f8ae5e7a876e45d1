"""Offered load of each pool, from HAProxy's arrival counters by class, model, pool and routing outcome.

A request is offered to each tier that it would have used had there been a free slot: in the order of its class, the
full tiers before the one with a free slot, and that one; if all tiers are full, all of them. Without this the load of a
full tier would appear constant, and it would not be scaled up.

A pool scaled to zero has no slot either, but a request that another pool served at once is no reason to scale it up:
such requests are counted separately (`bypassed`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from tierserve_serving.gateway.access_log import RequestRecord
from tierserve_serving.gateway.agent_config import AgentConfig, AgentPool

DIRECT = "d"
ANY_MODEL = "*"
_PARTS = 4
_PROCESSES_KEPT = 8


_NO_SERVER_IN_TIME = (503, 504)


class AnswerCounter:
    """Cumulative responses per pool, and those that missed the response-time objective, from the log.

    Counted are responses with a status below 400, and requests that timed out in the queue; the latter count as late,
    since more replicas would have served them. Not counted are requests that the client cancelled, invalid requests,
    and failures of an engine, which more replicas do not prevent.
    """

    def __init__(self, config: AgentConfig) -> None:
        self.answered: dict[str, float] = {}
        self.late: dict[str, float] = {}
        self.configure(config)

    def configure(self, config: AgentConfig) -> None:
        """Applies a changed set of pools; counts of remaining pools are kept."""
        self._targets = {p.name: p.target_s for p in config.pools}
        self.answered = {name: self.answered.get(name, 0.0) for name in self._targets}
        self.late = {name: self.late.get(name, 0.0) for name in self._targets}

    def add(self, record: RequestRecord) -> None:
        """Counts one finished request; pools without an objective are not counted."""
        target_s = self._targets.get(record.pool)
        timed_out = record.code in _NO_SERVER_IN_TIME
        if target_s is None or record.aborted or not (record.code < 400 or timed_out):
            return
        self.answered[record.pool] += 1
        self.late[record.pool] += timed_out or record.duration_s > target_s


class OfferedCounter:
    """Cumulative offered requests per pool; fractional if the sites of a full tier share a request that overflowed."""

    def __init__(self, config: AgentConfig) -> None:
        self.totals: dict[str, float] = {}
        self.arrivals: dict[str, float] = {}
        self.bypassed: dict[str, float] = {}
        self._last: dict[int, dict[str, int]] = {}
        self.configure(config)

    def configure(self, config: AgentConfig) -> None:
        """Applies a changed set of pools and classes; totals of remaining pools are kept."""
        self._pools = {p.name: p for p in config.pools}
        self._tiers = {c.name: c.tiers for c in config.classes}
        self.totals = {name: self.totals.get(name, 0.0) for name in self._pools}
        self.arrivals = {name: self.arrivals.get(name, 0.0) for name in self._pools}
        self.bypassed = {name: self.bypassed.get(name, 0.0) for name in self._pools}

    def update(self, counts: Mapping[str, int], process: int = 0, scaled_to_zero: Collection[str] = ()) -> None:
        """Adds the increase of `counts` since the last call for the same HAProxy process; a process starts at zero.

        During a reload the old and the new process may respond alternately, so the last counts are kept per process.

        Args:
            counts: cumulative arrivals by route key.
            process: process id of HAProxy.
            scaled_to_zero: names of the pools that are scaled to zero.
        """
        last = self._last.pop(process, {})
        fresh = {key: n - last.get(key, 0) for key, n in counts.items()}
        if any(n < 0 for n in fresh.values()):  # a new process that reuses a process id
            fresh = dict(counts)
        self._last[process] = dict(counts)
        while len(self._last) > _PROCESSES_KEPT:
            del self._last[next(iter(self._last))]
        self._add(fresh, scaled_to_zero)

    def _add(self, fresh: Mapping[str, int], scaled_to_zero: Collection[str]) -> None:
        arrivals = [(key.split("|"), n) for key, n in fresh.items() if n > 0 and key.count("|") == _PARTS - 1]
        for (_, _, pool, _), count in arrivals:
            if pool in self._pools:
                self.arrivals[pool] += count
        for (cls, model, pool, outcome), count in arrivals:
            served_by = self._pools.get(pool) if outcome == DIRECT else None
            for tier in self._full_tiers(cls, served_by):
                sites = [p for p in self._of_tier(tier) if model in (ANY_MODEL, *p.models)]
                idle = [p for p in sites if served_by is not None and p.name in scaled_to_zero]
                self._share([p for p in sites if p not in idle], count, self.totals)
                if len(idle) == len(sites):
                    self._share(idle, count, self.bypassed)
            if served_by is not None:
                self.totals[pool] += count

    def _full_tiers(self, cls: str, served_by: AgentPool | None) -> Iterable[str]:
        """Tiers without a free slot at the arrival: those before the tier that served the request, or all."""
        for tier in self._tiers.get(cls, ()):
            if served_by is not None and tier == served_by.tier:
                return
            yield tier

    def _of_tier(self, tier: str) -> list[AgentPool]:
        return [p for p in self._pools.values() if p.tier == tier]

    def _share(self, sites: list[AgentPool], count: int, among: dict[str, float]) -> None:
        """Splits a count over the sites of a tier in proportion to their arrivals so far."""
        total = sum(self.arrivals[p.name] for p in sites)
        for p in sites:
            part = self.arrivals[p.name] / total if total else 1 / len(sites)
            among[p.name] += count * part
