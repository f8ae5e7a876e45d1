"""Loopback ports: free ones for the service's parts, and who holds one that is taken.

A port that the kernel picks (`bind` to 0) is of its ephemeral range: any connection that a process opens may take it
before the part listens there, or while a part that died is started again. So ports are taken from below that range.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import socket

import psutil

LOOPBACK = "127.0.0.1"
# Ray replaces 127.0.0.1 by the machine's outer address; another address of the loopback net it leaves alone.
RAY_LOOPBACK = "127.0.0.2"
# Under Linux's ephemeral range (from 32,768) and NodePorts (from 30,000), over the ports of Ray's workers (to 19,999).
_SPANS = range(20_000, 28_000)
_SINGLE = range(28_000, 30_000)
# In an order of this process's own, and each once before any comes again: who asks twice before it listens gets two.
_untried = itertools.cycle(random.sample(_SINGLE, len(_SINGLE)))


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen on the port now."""
    return why_taken(port, host) is None


def why_taken(port: int, host: str = LOOPBACK) -> OSError | None:
    """Why no server could listen on the port now; None when one could."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error
    return None


def free_ports(count: int) -> list[int]:
    """`count` different ports that are free on every address of this machine, for TCP and UDP.

    Raises:
        OSError: there are not so many.
    """
    candidates = itertools.islice(_untried, len(_SINGLE))
    found = list(itertools.islice(filter(_free_everywhere, candidates), count))
    if len(found) < count:
        raise OSError(f"no {count} free ports between {_SINGLE.start} and {_SINGLE.stop}: end what listens there")
    return found


def free_port() -> int:
    """One port that is free, as `free_ports` says."""
    return free_ports(1)[0]


def free_span(length: int) -> tuple[int, int]:
    """[first, last) of `length` neighbouring free ports, none of which `free_ports` gives.

    Raises:
        OSError: there is no such span.
    """
    taken = {c.laddr.port for c in psutil.net_connections("inet") if c.laddr}
    for first in range(_SPANS.start, _SPANS.stop - length + 1, length):
        if not taken.intersection(range(first, first + length)):
            return first, first + length
    raise OSError(f"no {length} neighbouring free ports between {_SPANS.start} and {_SPANS.stop}")


def holder(port: int) -> str:
    """The process that listens on the port, in words."""
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
