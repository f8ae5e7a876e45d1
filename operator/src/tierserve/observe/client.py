"""The HTTP client of observation, made once: a new one each second costs more CPU (TLS context) than all else."""

from __future__ import annotations

from functools import cache

import httpx


@cache
def client() -> httpx.Client:
    """The client of this process; every request gives its own time-out.

    It reads no HTTP_PROXY, ALL_PROXY or .netrc: what is observed are the service's own components, on loopback or in
    the same cluster, where no proxy leads (and a SOCKS proxy needs a package that is not installed).
    """
    return httpx.Client(trust_env=False)
