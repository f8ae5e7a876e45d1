"""The HTTP client of observation, made once: a new one each second costs more CPU (TLS context) than all else."""

from __future__ import annotations

from functools import cache

import httpx


@cache
def client() -> httpx.Client:
    """The client of this process; every request gives its own time-out."""
    return httpx.Client()
