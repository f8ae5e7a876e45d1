"""Shared HTTP client for observation: creating one per request costs more CPU (TLS context) than all else here."""

from __future__ import annotations

from functools import cache

import httpx


@cache
def client() -> httpx.Client:
    """The client of this process; every request sets its own timeout.

    It ignores HTTP_PROXY, ALL_PROXY and .netrc: the observed components are on loopback or in the same cluster, which
    no proxy reaches (and a SOCKS proxy needs a package that is not installed).
    """
    return httpx.Client(trust_env=False)
