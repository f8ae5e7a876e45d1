"""Loopback ports: finds free ones for the components, and the process that holds one that is in use.

A port that the kernel picks (`bind` to 0) is in its ephemeral range: any outgoing connection may take it before the
component listens, or while it restarts. So ports are taken from below that range.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import socket

import psutil

LOOPBACK = "127.0.0.1"
# Ray replaces 127.0.0.1 by the machine's external address, but no other address of the loopback network.
RAY_LOOPBACK = "127.0.0.2"
# Below Linux's ephemeral range (from 32,768) and NodePorts (from 30,000), above the ports of Ray's workers (to 19,999).
_SPANS = range(20_000, 28_000)
_SINGLE = range(28_000, 30_000)
# In random order per process, each port once per cycle: two calls before the first port is in use return two ports.
_untried = itertools.cycle(random.sample(_SINGLE, len(_SINGLE)))


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server can listen on the port now."""
    return why_taken(port, host) is None


def why_taken(port: int, host: str = LOOPBACK) -> OSError | None:
    """The error of listening on the port now; None if it is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error
    return None


def free_ports(count: int) -> list[int]:
    """Return `count` different ports that are free on every address of this machine, for TCP and UDP.

    Raises:
        OSError: too few are free.
    """
    candidates = itertools.islice(_untried, len(_SINGLE))
    ports = list(itertools.islice(filter(_free_everywhere, candidates), count))
    if len(ports) < count:
        raise OSError(
            f"ports: fewer than {count} free between {_SINGLE.start} and {_SINGLE.stop}; hint: end their processes"
        )
    return ports


def free_port() -> int:
    """Return one free port (see `free_ports`)."""
    return free_ports(1)[0]


def free_span(length: int) -> tuple[int, int]:
    """Return [first, last) of `length` consecutive free ports, none of which `free_ports` returns.

    Raises:
        OSError: there is no such range.
    """
    used = {c.laddr.port for c in psutil.net_connections("inet") if c.laddr}
    for first in range(_SPANS.start, _SPANS.stop - length + 1, length):
        if not used.intersection(range(first, first + length)):
            return first, first + length
    raise OSError(f"no {length} consecutive free ports between {_SPANS.start} and {_SPANS.stop}")


def holder(port: int) -> str:
    """The process that listens on the port, as text for an error message."""
    for connection in psutil.net_connections("inet"):
        local = connection.laddr
        if connection.status == psutil.CONN_LISTEN and local and local.port == port and connection.pid:
            with contextlib.suppress(psutil.Error):
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return "another process"


def _free_everywhere(port: int) -> bool:
    with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagram:
        try:
            stream.bind(("", port))
            datagram.bind(("", port))
        except OSError:
            return False
    return True
