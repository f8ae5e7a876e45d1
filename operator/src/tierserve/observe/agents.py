"""Reads the /status of every gateway agent behind one DNS name; an agent that does not answer is missing, not zero."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp

TIMEOUT_S = 2.0  # an agent answers from memory; one that is slower must not delay the reconcile


class AgentReader:
    """HTTP client of the agents; created inside a running event loop, and closed at its end."""

    def __init__(self) -> None:
        self.session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))

    async def close(self) -> None:
        """Close the connections."""
        await self.session.close()

    async def read(self, url: str) -> list[Mapping[str, Any]]:
        """The reports of the agents at all addresses of the URL's host, in the order of the addresses."""
        reports = await asyncio.gather(*(self._get(address) for address in await _addresses(url)))
        return [report for report in reports if report is not None]

    async def _get(self, url: str) -> Mapping[str, Any] | None:
        try:
            async with self.session.get(f"{url}/status", raise_for_status=True) as reply:
                body: Mapping[str, Any] = await reply.json(content_type=None)
        except (aiohttp.ClientError, OSError, ValueError):  # TimeoutError is an OSError
            return None
        return body


async def _addresses(url: str) -> list[str]:
    parts = urlsplit(url)
    port = parts.port or 80
    try:
        infos = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    # Addresses of one family only: a dual-stack agent would be counted twice.
    hosts = sorted({info[4][0] for info in infos if info[0] == infos[0][0]})
    return [
        parts._replace(netloc=f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}").geturl() for host in hosts
    ]
