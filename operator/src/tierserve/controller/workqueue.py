"""Work queue: keys are added by watch events, requeued after their resync period, retried with exponential backoff; one
reconcile per key at a time.

Level-based: a key in the queue says only that something may have changed. What it was is read anew by the reconcile.
Everything here runs in one event loop; no other thread may call `wake`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

Key = tuple[str, str]
"""Namespace and name of a GenAIDeployment."""

GATHER_S = 0.2  # events come in bursts: one reconcile for all of them
FIRST_RETRY_S, LONGEST_RETRY_S = 1.0, 60.0
JITTER = 0.2
"""Resyncs come up to this share later, so that those of many resources spread; never earlier."""


@dataclass(slots=True)
class Controller:
    """Calls `one_pass` for each key in the queue.

    Attributes:
        one_pass: reconciles one resource and returns the seconds after which it is reconciled again without an event,
            None if the resource is gone; after an exception it is retried with backoff.
        workers: reconciles at the same time.
        clock: the event loop's, in seconds.
    """

    one_pass: Callable[[Key], Awaitable[float | None]]
    workers: int = 8
    clock: Callable[[], float] = time.monotonic
    failures: dict[Key, int] = field(default_factory=dict)
    _expected: float = field(init=False)  # when a reconcile is next expected to be completed
    _due: dict[Key, float] = field(default_factory=dict)
    _running: set[Key] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._expected = self.clock()

    def wake(self, key: Key, after_s: float = GATHER_S) -> None:
        """Reconcile a resource soon; an earlier appointment stays."""
        at = self.clock() + after_s
        if not self.known:
            self._expected = at  # there was nothing to reconcile: no time was lost until now
        if at < self._due.get(key, float("inf")):
            self._due[key] = at
            self._changed.set()

    @property
    def known(self) -> int:
        """Resources that are in the queue or being reconciled."""
        return len(self._due.keys() | self._running)

    @property
    def idle_s(self) -> float:
        """Seconds for which a completed reconcile has been due; 0 while there is nothing to reconcile.

        One that failed counts as completed too: the operator works, and what is wrong with one resource does not get
        better when it is restarted. Not so where the API server was not reached, where a restart may help.
        """
        return max(self.clock() - self._expected, 0.0) if self.known else 0.0

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
            after_s = await self.one_pass(key)
        except Exception as error:
            self.failures[key] = count = self.failures.get(key, 0) + 1
            after_s = min(FIRST_RETRY_S * 2.0 ** min(count - 1, 16), LONGEST_RETRY_S)
            reached = not isinstance(error, ConnectionError)
        else:
            self.failures.pop(key, None)
        if after_s is not None:
            self.wake(key, after_s * random.uniform(1.0, 1.0 + JITTER))
        if reached:
            self._expected = max(self._expected, self.clock() + (after_s or 0.0))
        self._running.discard(key)
        self._changed.set()
