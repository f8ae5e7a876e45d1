"""The slots of a replica: n requests in the engine at once, the others wait in the order they came."""

from __future__ import annotations

import asyncio
from collections import deque


class QueueFullError(Exception):
    """All slots are taken and as many requests wait as may."""


class Slots:
    """Counts slots and waiters. One event loop; a waiter that is cancelled leaves no trace."""

    def __init__(self, slots: int, max_queue: int) -> None:
        self.slots = slots
        self.max_queue = max_queue
        self.running = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return len(self._waiters)

    async def acquire(self) -> None:
        """Take a slot, waiting for one if need be. Raises `QueueFullError` at once at the bound."""
        if self.running < self.slots and not self._waiters:
            self.running += 1
            return
        if len(self._waiters) >= self.max_queue:
            raise QueueFullError
        await self._wait()

    def release(self) -> None:
        """Give the slot to the first in the queue, or back."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)  # the slot changes hands: `running` stays
                return
        self.running -= 1

    async def _wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
            else:
                self.release()  # given a slot and cancelled in the same turn of the loop
            raise
