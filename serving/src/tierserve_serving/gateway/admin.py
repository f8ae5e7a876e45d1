"""Client of HAProxy's admin socket (management guide, 9.3): one short connection for several commands."""

from __future__ import annotations

import asyncio
import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass

SHOW_STAT = "show stat -1 6 -1"
"""Backends (2) and servers (4) of all proxies."""


class AdminError(Exception):
    """HAProxy did not respond on its admin socket."""


@dataclass(frozen=True, slots=True)
class PoolState:
    """State of one pool in HAProxy's statistics.

    Args:
        in_flight: requests at the pool. queued: requests in its queue. max_in_flight: current limit (maxconn).
        up: the server is up with a weight above 0. drained: set to drain by the agent, because no replica runs.
        total: requests sent to the pool since HAProxy started or was reloaded.
        check: status of the last health check.
        maintenance: set by the agent, because the pool is scaled to zero. unresolved: its DNS name has no address.
        waiting_room_taken: the agent's request occupies the waiting room of a pool that may scale to zero.
        start_s: weight of the waiting room: start-up time in seconds while the pool is scaled to zero, else 0.
    """

    in_flight: int
    queued: int
    max_in_flight: int
    up: bool
    drained: bool
    total: int
    check: str = ""
    maintenance: bool = False
    unresolved: bool = False
    waiting_room_taken: bool = False
    start_s: int = 0


async def run_commands(socket: str, commands: Sequence[str], timeout_s: float = 2.0) -> str:
    """Sends the commands in one line and returns the complete output.

    Raises:
        AdminError: no connection, or no complete output within `timeout_s`.
    """
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                writer.write((";".join(commands) + "\n").encode())
                return (await reader.read(-1)).decode(errors="replace")
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        raise AdminError(f"{socket}: {error or type(error).__name__}") from error


def parse_process(answer: str) -> int | None:
    """Process id in the output of ``show info``."""
    match = re.search(r"^Pid: (\d+)$", answer, re.MULTILINE)
    return int(match[1]) if match else None


def parse_table(answer: str) -> dict[str, int]:
    """Counters by key from the output of ``show table``."""
    return {m[1]: int(m[2]) for m in re.finditer(r" key=(\S+) .*?gpc0=(\d+)", answer)}


def parse_stat(answer: str) -> dict[str, PoolState]:
    """State of each backend that has a server ``s``, from the output of `SHOW_STAT`, by name of the backend."""
    lines = answer.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith("# pxname,")), None)
    if start is None:
        return {}
    body = [lines[start][2:], *(line for line in lines[start + 1 :] if line.count(",") > 20)]
    rows = {(row["pxname"], row["svname"]): row for row in csv.DictReader(body)}
    return {px: _state(row, rows[px, "BACKEND"], rows.get((px, "w"))) for (px, sv), row in rows.items() if sv == "s"}


def _state(server: dict[str, str], backend: dict[str, str], room: dict[str, str] | None) -> PoolState:
    status = server["status"]
    return PoolState(
        in_flight=_int(server["scur"]),
        queued=_int(server["qcur"]) + _int(backend["qcur"]),
        max_in_flight=_int(server["slim"]),
        up=status.startswith(("UP", "no check")) and _int(server["weight"]) > 0,
        drained=status.startswith("DRAIN") or _int(server["weight"]) == 0,
        total=_int(server["stot"]),
        check=server.get("check_status", ""),
        maintenance=status == "MAINT",
        unresolved=status.startswith("MAINT ("),
        waiting_room_taken=room is not None and _int(room["scur"]) > 0,
        start_s=_int(room["weight"]) if room is not None else 0,
    )


def _int(text: str) -> int:
    return int(text) if text else 0
