"""Loopback ports: free ones for the service's parts, and who holds one that is taken."""

from __future__ import annotations

import contextlib
import socket

import psutil

LOOPBACK = "127.0.0.1"
# Ray replaces 127.0.0.1 by the machine's outer address; another address of the loopback net it leaves alone.
RAY_LOOPBACK = "127.0.0.2"


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """`count` different ports that are free on every address of this machine."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in sockets]


def free_span(length: int, low: int = 20_000, high: int = 32_000) -> tuple[int, int]:
    """[first, last) of `length` neighbouring free ports below the kernel's ephemeral range.

    Raises:
        OSError: there is no such span.
    """
    taken = {c.laddr.port for c in psutil.net_connections("inet") if c.laddr}
    for first in range(low, high - length, length):
        if not taken.intersection(range(first, first + length)):
            return first, first + length
    raise OSError(f"no {length} neighbouring free ports between {low} and {high}")


def holder(port: int) -> str:
    """The process that listens on the port, in words."""
    for connection in psutil.net_connections("inet"):
        local = connection.laddr
        if connection.status == psutil.CONN_LISTEN and local and local.port == port and connection.pid:
            with contextlib.suppress(psutil.Error):
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return "another process"
