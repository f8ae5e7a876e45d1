"""Which service is looked at when: woken by events, again after a tick, later after a failure; one pass at a time each.

Level-based: a wake-up says only that something may have changed. What it was is read anew in the pass.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

Key = tuple[str, str]
"""Namespace and name of a GenAIDeployment."""

GATHER_S = 0.2  # events come in crowds: one pass for all of them
FIRST_RETRY_S, LONGEST_RETRY_S = 1.0, 60.0


@dataclass(slots=True)
class Controller:
    """Calls `one_pass` for each known service.

    Attributes:
        one_pass: looks at one service and says whether it is still there; what it raises makes it come again, later
            each time.
        tick_s: every service is looked at this often though nothing happens, more or less by a tenth.
        workers: passes at the same time.
    """

    one_pass: Callable[[Key], Awaitable[bool]]
    tick_s: float = 10.0
    workers: int = 8
    failures: dict[Key, int] = field(default_factory=dict)
    last_pass: float | None = None
    began: float = field(default_factory=time.monotonic)
    _due: dict[Key, float] = field(default_factory=dict)
    _running: set[Key] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self, key: Key, after_s: float = GATHER_S) -> None:
        """Look at a service soon; an earlier appointment stays."""
        at = time.monotonic() + after_s
        if at < self._due.get(key, float("inf")):
            self._due[key] = at
            self._changed.set()

    def forget(self, key: Key) -> None:
        """A service is gone."""
        self._due.pop(key, None)
        self.failures.pop(key, None)

    @property
    def known(self) -> int:
        """Services that have an appointment or are being looked at."""
        return len(self._due.keys() | self._running)

    @property
    def idle_s(self) -> float:
        """Seconds since the last pass that went through; 0 while there is nothing to look at."""
        if not self.known:
            return 0.0
        return time.monotonic() - max(self.last_pass or self.began, self.began)

    async def run(self) -> None:
        """Keep appointments until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                now = time.monotonic()
                ready = [key for key, at in self._due.items() if at <= now and key not in self._running]
                for key in sorted(ready, key=self._due.__getitem__)[: self.workers - len(self._running)]:
                    del self._due[key]
                    self._running.add(key)
                    tasks.create_task(self._look(key))
                await self._wait()

    async def _wait(self) -> None:
        self._changed.clear()
        free = len(self._running) < self.workers
        waiting = [at for key, at in self._due.items() if key not in self._running] if free else []
        timeout = max(min(waiting) - time.monotonic(), 0.0) if waiting else None
        try:
            await asyncio.wait_for(self._changed.wait(), timeout)
        except TimeoutError:
            return

    async def _look(self, key: Key) -> None:
        try:
            there = await self.one_pass(key)
        except Exception:
            there, count = True, self.failures.get(key, 0) + 1
            self.failures[key] = count
            again_s = min(FIRST_RETRY_S * 2.0 ** (count - 1), LONGEST_RETRY_S)
        else:
            self.failures.pop(key, None)
            self.last_pass = time.monotonic()
            again_s = self.tick_s
        self._running.discard(key)
        if there:
            self.wake(key, again_s * random.uniform(0.9, 1.1))
        self._changed.set()
