"""Checks before a load starts: whose machine it would hit, and whether this one allows so many sockets."""

from __future__ import annotations

import asyncio
import ipaddress
import resource
import socket
from urllib.parse import urlsplit

from tierserve.loadgen.errors import LoadError, LoadUsageError
from tierserve.loadgen.scenario import LoadPlan

SPARE_FILES = 128
"""Descriptors left for all else in the process."""


async def check_target(url: str, *, allow_remote: bool) -> bool:
    """Return whether the target is this machine; refuse another unless it is allowed.

    Raises:
        LoadError: the address is no HTTP URL, is unknown, or is remote.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise LoadUsageError(f"url: must be an HTTP URL ({url})", "for example http://127.0.0.1:8080")
    loopback = await _is_loopback(parts.hostname, may_be_unknown=allow_remote)
    if loopback or allow_remote:
        return loopback
    raise LoadUsageError(
        f"url: {parts.hostname} is not this machine, and a load test can overload it",
        "if the service is yours to load, add --allow-remote",
    )


async def _is_loopback(host: str, *, may_be_unknown: bool) -> bool:
    """Whether a host is this machine. One that only a proxy can resolve is not."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        if may_be_unknown:
            return False
        raise LoadError(f"url: host is unknown ({host}): {error}", "check the address") from error
    return all(ipaddress.ip_address(str(info[4][0]).partition("%")[0]).is_loopback for info in found)


def allow_sockets(plan: LoadPlan) -> int:
    """Raise the soft limit of open files as far as needed and allowed; most requests in flight that fit.

    Raises:
        LoadError: the closed loops alone need more sockets than the limit allows.
    """
    wanted = plan.max_in_flight if plan.is_open else max(1, plan.peak_connections)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    room = wanted if soft == resource.RLIM_INFINITY else min(wanted, soft - SPARE_FILES)
    if room < plan.peak_connections:
        raise LoadError(
            f"{plan.peak_connections:,} connections need {plan.peak_connections + SPARE_FILES:,} open files; "
            f"this process may have {soft:,}",
            f"run `ulimit -n {plan.peak_connections + SPARE_FILES}` first (as root above the hard limit of {hard:,})",
        )
    return room
