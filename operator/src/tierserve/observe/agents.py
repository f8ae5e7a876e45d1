"""The /status of every gateway agent behind one name; whoever does not answer is missing, not zero."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

TIMEOUT_S = 2.0


@dataclass(slots=True)
class AgentReader:
    """Asks agents with one HTTP client."""

    client: httpx.AsyncClient = field(default_factory=lambda: httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False))

    async def read(self, url: str) -> list[Mapping[str, Any]]:
        """The answers of all addresses of the URL's host, in their order."""
        found = await asyncio.gather(*(self._ask(one) for one in await _addresses(url)))
        return [answer for answer in found if answer is not None]

    async def _ask(self, url: str) -> Mapping[str, Any] | None:
        try:
            reply = await self.client.get(f"{url}/status")
            reply.raise_for_status()
            body: Mapping[str, Any] = reply.json()
        except (httpx.HTTPError, ValueError):
            return None
        return body


async def _addresses(url: str) -> list[str]:
    parts = urlsplit(url)
    port = parts.port or 80
    try:
        found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    hosts = sorted({info[4][0] for info in found})
    return [
        parts._replace(netloc=f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}").geturl() for host in hosts
    ]
