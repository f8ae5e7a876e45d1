"""Requests that never end: each occupies the waiting room of a pool that may scale to zero, so that others queue.

See `tierserve/render/haproxy/scale_to_zero.py`. They belong to one HAProxy process: after a reload they must not keep
the old process alive, and the new one needs its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

_OPENING_S = 2.0


class HeldSlots:
    """One connection to the socket of `hold_entry` for each pool that may scale to zero."""

    def __init__(self, hold_entry_socket: str) -> None:
        self.hold_entry_socket = hold_entry_socket
        self._open: dict[str, asyncio.StreamWriter] = {}
        self._process: int | None = None

    async def keep(self, held: Mapping[str, bool], process: int | None) -> None:
        """Opens missing connections and closes those that are no longer needed; failures are retried at the next call.

        Args:
            held: pools that may scale to zero, and whether their waiting room is occupied.
            process: process id of HAProxy.
        """
        if process != self._process:
            self.close()
            self._process = process
        for pool in [p for p in self._open if not held.get(p, False)]:
            self._open.pop(pool).close()
        for pool in held:
            if pool not in self._open:
                with contextlib.suppress(OSError, TimeoutError):
                    self._open[pool] = await self._hold(pool)

    async def _hold(self, pool: str) -> asyncio.StreamWriter:
        async with asyncio.timeout(_OPENING_S):
            _, writer = await asyncio.open_unix_connection(self.hold_entry_socket)
            # The body of one byte is never sent, so HAProxy waits for it.
            writer.write(f"POST /{pool} HTTP/1.1\r\nHost: hold\r\nContent-Length: 1\r\n\r\n".encode())
            await writer.drain()
        return writer

    def close(self) -> None:
        """Closes all connections."""
        for writer in self._open.values():
            writer.close()
        self._open.clear()
