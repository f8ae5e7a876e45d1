"""Arrivals offered to each pool, from HAProxy's counters by class, model, pool and how they fared.

A request is offered to every tier it came to: in the order of its class, the tiers before the one with a free slot (it
would have been theirs, had they had room) and that one. A request that found all tiers full was offered to all of them.
Without this a full tier would look as if its load had stopped growing, and would never be given replicas.

A pool that sleeps has no slot either, but a request that another one took at once is no reason to wake it: such are
counted apart.
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
    """Cumulative answers per pool and those that missed its objective, from the log.

    Answered is what has an answer below 400, and what waited in vain for a free server, which is late: with more
    replicas it would have been served. Not counted are requests that the client gave up or got wrong, and failures of
    an engine, which more replicas do not prevent.
    """

    def __init__(self, config: AgentConfig) -> None:
        self.answered: dict[str, float] = {}
        self.late: dict[str, float] = {}
        self.configure(config)

    def configure(self, config: AgentConfig) -> None:
        """Takes a changed set of pools; counts of the pools that stay are kept."""
        self._targets = {p.name: p.target_s for p in config.pools}
        self.answered = {name: self.answered.get(name, 0.0) for name in self._targets}
        self.late = {name: self.late.get(name, 0.0) for name in self._targets}

    def add(self, record: RequestRecord) -> None:
        """Counts one finished request. A pool without objective has no late answers, and counts none."""
        target_s = self._targets.get(record.pool)
        in_vain = record.code in _NO_SERVER_IN_TIME
        if target_s is None or record.aborted or not (record.code < 400 or in_vain):
            return
        self.answered[record.pool] += 1
        self.late[record.pool] += in_vain or record.duration_s > target_s


class OfferedCounter:
    """Cumulative arrivals per pool; fractional where the sites of one tier share a spilled request."""

    def __init__(self, config: AgentConfig) -> None:
        self.totals: dict[str, float] = {}
        self.arrivals: dict[str, float] = {}
        self.bypassed: dict[str, float] = {}
        self._last: dict[int, dict[str, int]] = {}
        self.configure(config)

    def configure(self, config: AgentConfig) -> None:
        """Takes a changed set of pools and classes; totals of the pools that stay are kept."""
        self._pools = {p.name: p for p in config.pools}
        self._tiers = {c.name: c.tiers for c in config.classes}
        self.totals = {name: self.totals.get(name, 0.0) for name in self._pools}
        self.arrivals = {name: self.arrivals.get(name, 0.0) for name in self._pools}
        self.bypassed = {name: self.bypassed.get(name, 0.0) for name in self._pools}

    def update(self, counts: Mapping[str, int], process: int = 0, asleep: Collection[str] = ()) -> None:
        """Adds what is new in `counts` since the last call for that HAProxy process; each process starts at zero.

        `asleep` names the pools without a replica that wait for one to be asked for. Around a reload the old and the
        new process may answer in turn, so each has its own last counts.
        """
        last = self._last.pop(process, {})
        fresh = {key: n - last.get(key, 0) for key, n in counts.items()}
        if any(n < 0 for n in fresh.values()):  # another process with an old one's number
            fresh = dict(counts)
        self._last[process] = dict(counts)
        while len(self._last) > _PROCESSES_KEPT:
            del self._last[next(iter(self._last))]
        self._add(fresh, asleep)

    def _add(self, fresh: Mapping[str, int], asleep: Collection[str]) -> None:
        known = [(key.split("|"), n) for key, n in fresh.items() if n > 0 and key.count("|") == _PARTS - 1]
        for (_, _, pool, _), count in known:
            if pool in self._pools:
                self.arrivals[pool] += count
        for (cls, model, pool, how), count in known:
            taken = self._pools.get(pool) if how == DIRECT else None
            for tier in self._passed(cls, taken):
                sites = [p for p in self._of_tier(tier) if model in (ANY_MODEL, *p.models)]
                sleepers = [p for p in sites if taken is not None and p.name in asleep]
                self._share([p for p in sites if p not in sleepers], count, self.totals)
                if len(sleepers) == len(sites):
                    self._share(sleepers, count, self.bypassed)
            if taken is not None:
                self.totals[pool] += count

    def _passed(self, cls: str, taken: AgentPool | None) -> Iterable[str]:
        """The tiers whose slots were all busy: those before the one taken, or all."""
        for tier in self._tiers.get(cls, ()):
            if taken is not None and tier == taken.tier:
                return
            yield tier

    def _of_tier(self, tier: str) -> list[AgentPool]:
        return [p for p in self._pools.values() if p.tier == tier]

    def _share(self, sites: list[AgentPool], count: int, among: dict[str, float]) -> None:
        """Splits a spilled count over the sites of a tier as their arrivals so far."""
        total = sum(self.arrivals[p.name] for p in sites)
        for p in sites:
            part = self.arrivals[p.name] / total if total else 1 / len(sites)
            among[p.name] += count * part
