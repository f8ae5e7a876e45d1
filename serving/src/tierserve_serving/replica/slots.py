"""Slots of a replica: a semaphore for n requests in the engine, with a bounded FIFO queue."""

from __future__ import annotations

import asyncio
from collections import deque


class QueueFullError(Exception):
    """All slots are taken and the queue is full."""


class Slots:
    """Slots and waiters, for one event loop. A cancelled waiter is removed from the queue."""

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
        """Take a slot, waiting for one if all are taken. Raises `QueueFullError` at once if the queue is full."""
        if self.running < self.slots and not self._waiters:
            self.running += 1
            return
        if len(self._waiters) >= self.max_queue:
            raise QueueFullError
        await self._wait()

    def release(self) -> None:
        """Pass the slot to the first waiter, or free it."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)  # the slot passes to the waiter: `running` does not change
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
                self.release()  # got a slot and was cancelled in the same iteration of the loop
            raise
