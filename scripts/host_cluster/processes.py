"""Processes that outlive the command that starts them; ended by their recorded pid, never by name."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from host_cluster import paths


def say(line: str) -> None:
    """Print a line of progress."""
    print(f"cluster: {line}", file=sys.stderr, flush=True)


def start(name: str, command: list[str | Path], environment: dict[str, str] | None = None) -> int:
    """Start a process in its own session, with its output in logs/NAME.log; its pid is recorded at once."""
    logs = paths.cluster_dir() / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / f"{name}.log").open("ab") as sink:
        process = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT,
            start_new_session=True, env={**os.environ, **(environment or {})},
        )  # fmt: skip
    pids = paths.cluster_dir() / "pids"
    pids.mkdir(exist_ok=True)
    (pids / f"{name}.json").write_text(json.dumps({"pid": process.pid, "began": _began(process.pid)}))
    return process.pid


def alive(name: str) -> int | None:
    """The pid of a process that was started here and still runs."""
    try:
        noted = json.loads((paths.cluster_dir() / "pids" / f"{name}.json").read_text())
    except (OSError, ValueError):
        return None
    pid = int(noted["pid"])
    return pid if noted["began"] is not None and _began(pid) == noted["began"] else None


def names() -> list[str]:
    """Names of the processes that were started here, in no order."""
    return [path.stem for path in (paths.cluster_dir() / "pids").glob("*.json")]


def stop(some: Iterable[str], limit_s: float = 15) -> None:
    """End processes by their pids and wait; those that do not end in time are killed."""
    pids = {name: pid for name in some if (pid := alive(name))}
    for pid in pids.values():
        os.kill(pid, signal.SIGTERM)
    wait_gone(pids.values(), limit_s)
    for name in pids:
        (paths.cluster_dir() / "pids" / f"{name}.json").unlink(missing_ok=True)


def wait_gone(pids: Iterable[int], limit_s: float) -> None:
    """Wait for processes to end, then kill those that remain."""
    left, end = set(pids), time.monotonic() + limit_s
    while left and time.monotonic() < end:
        left = {pid for pid in left if not _is_gone(pid)}
        time.sleep(0.05)
    for pid in left:
        kill(pid)


def kill(pid: int) -> None:
    """Kill one process, if it still runs, and wait for its end."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    end = time.monotonic() + 10
    while not _is_gone(pid) and time.monotonic() < end:
        time.sleep(0.02)


def until(true: Callable[[], bool], what: str, of: str, limit_s: float = 90) -> None:
    """Wait for a condition; SystemExit with the end of the log if the process ends or the time is up."""
    end = time.monotonic() + limit_s
    while not true():
        if alive(of) is None or time.monotonic() > end:
            log = paths.cluster_dir() / "logs" / f"{of}.log"
            lines = log.read_text(errors="replace").splitlines()[-15:] if log.exists() else []
            text = "\n".join(f"    {line[:300]}" for line in lines)
            state = "has ended" if alive(of) is None else f"is not ready after {limit_s:g} s"
            sys.exit(f"cluster: {what}: {of} {state}; the end of {log}:\n{text}")
        time.sleep(0.1)


def _is_gone(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # reap own children; a zombie of another parent holds no resources
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _began(pid: int) -> int | None:
    """When a process began, in ticks since the machine did: with it a pid means one process. None when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])
