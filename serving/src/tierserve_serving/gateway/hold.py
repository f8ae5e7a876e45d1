"""Requests that never end: each keeps the waiting room of a pool taken, so that others queue before it.

See `tierserve/render/gateway_sleep.py`. They belong to one process of HAProxy: after a reload the old one must not be
kept by them, and the new one needs its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

_OPENING_S = 2.0


class Holders:
    """One connection to the wake socket for each pool that may sleep."""

    def __init__(self, wake_socket: str) -> None:
        self.wake_socket = wake_socket
        self._open: dict[str, asyncio.StreamWriter] = {}
        self._process: int | None = None

    async def keep(self, held: Mapping[str, bool], process: int | None) -> None:
        """Opens what is missing and closes what is no longer wanted; a failure is made good at the next call.

        Args:
            held: pools that may sleep, and whether HAProxy says that their waiting room is taken.
            process: number of the HAProxy that said so.
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
            _, writer = await asyncio.open_unix_connection(self.wake_socket)
            # Of its body of one byte nothing ever comes.
            writer.write(f"POST /{pool} HTTP/1.1\r\nHost: hold\r\nContent-Length: 1\r\n\r\n".encode())
            await writer.drain()
        return writer

    def close(self) -> None:
        """Ends them all."""
        for writer in self._open.values():
            writer.close()
        self._open.clear()
