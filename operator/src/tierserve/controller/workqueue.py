"""Work queue: keys are added by watch events, requeued after their resync period, retried with exponential backoff.

One reconcile per key at a time. Level-based: a key in the queue means only that something may have changed; the
reconcile reads the current state. Everything here runs in one event loop; no other thread may call `add`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

Key = tuple[str, str]
"""Namespace and name of a GenAIDeployment."""

GATHER_S = 0.2  # events come in bursts (an apply, then its status updates): one reconcile for all of them
FIRST_RETRY_S, LONGEST_RETRY_S = 1.0, 60.0  # of an object that stays invalid, one request a minute is cheap
JITTER = 0.2
"""A resync is delayed by up to this share of its period, so that many resources do not resync together."""


@dataclass(slots=True)
class WorkQueue:
    """Calls `reconciler` for each key that is due.

    Attributes:
        reconciler: reconciles one resource and returns the seconds until its next resync, None if the resource is
            deleted; after an exception the key is retried with backoff.
        workers: most reconciles at the same time.
        clock: the event loop's, in seconds.
    """

    reconciler: Callable[[Key], Awaitable[float | None]]
    workers: int = 8
    clock: Callable[[], float] = time.monotonic
    failures: dict[Key, int] = field(default_factory=dict)
    _expected: float = field(init=False)  # when a reconcile is next expected to be completed
    _due: dict[Key, float] = field(default_factory=dict)
    _running: set[Key] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._expected = self.clock()

    def add(self, key: Key, after_s: float = GATHER_S) -> None:
        """Add a key, due after `after_s`; if it is in the queue already, the earlier time counts."""
        at = self.clock() + after_s
        if not self.pending:
            self._expected = at  # the queue was empty until now, so nothing is overdue
        if at < self._due.get(key, float("inf")):
            self._due[key] = at
            self._changed.set()

    @property
    def pending(self) -> int:
        """Number of keys in the queue or being reconciled."""
        return len(self._due.keys() | self._running)

    def depth(self) -> int:
        """Number of keys that are due and wait for a worker; of any thread."""
        now = self.clock()
        # One copy, which no other thread can interrupt: the loop's thread changes the dictionary meanwhile.
        return sum(at <= now for at in list(self._due.values()))

    @property
    def idle_s(self) -> float:
        """Seconds for which a completed reconcile has been overdue; 0 while there is nothing to reconcile.

        A failed reconcile counts as completed: a restart of the operator does not repair an invalid resource. One that
        could not reach the API server does not count: there a restart may help.
        """
        return max(self.clock() - self._expected, 0.0) if self.pending else 0.0

    async def run(self) -> None:
        """Work through the queue until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                now = self.clock()
                ready = [key for key, at in self._due.items() if at <= now and key not in self._running]
                for key in sorted(ready, key=self._due.__getitem__)[: self.workers - len(self._running)]:
                    del self._due[key]
                    self._running.add(key)
                    tasks.create_task(self._reconcile(key))
                await self._wait()

    async def _wait(self) -> None:
        self._changed.clear()
        free = len(self._running) < self.workers
        waiting = [at for key, at in self._due.items() if key not in self._running] if free else []
        timeout = max(min(waiting) - self.clock(), 0.0) if waiting else None
        try:
            await asyncio.wait_for(self._changed.wait(), timeout)
        except TimeoutError:
            return

    async def _reconcile(self, key: Key) -> None:
        after_s: float | None
        reached = True
        try:
            after_s = await self.reconciler(key)
        except Exception as error:
            self.failures[key] = count = self.failures.get(key, 0) + 1
            after_s = min(FIRST_RETRY_S * 2.0 ** min(count - 1, 16), LONGEST_RETRY_S)
            reached = not isinstance(error, ConnectionError)
        else:
            self.failures.pop(key, None)
        if after_s is not None:
            self.add(key, after_s * random.uniform(1.0, 1.0 + JITTER))
        if reached:
            self._expected = max(self._expected, self.clock() + (after_s or 0.0))
        self._running.discard(key)
        self._changed.set()
