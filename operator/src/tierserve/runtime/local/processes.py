"""Processes of one service: started in their own session, marked in their environment, ended by process id.

Some of Ray's children outlive their parents (its HAProxy does), so the processes of a service are found by the marker
that every child inherits, never by name.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tierserve.runtime.local.ports import LOOPBACK, RAY_LOOPBACK

MARKER = "TIERSERVE_INSTANCE"
# The last two are queried by Ray's head for cloud metadata: link-local, so never behind a proxy.
_OWN_HOSTS = ("localhost", LOOPBACK, RAY_LOOPBACK, "169.254.169.254", "metadata.google.internal")


@dataclass(frozen=True, slots=True)
class ProcessRef:
    """A process, distinguished by its start time from a later one with the same pid."""

    pid: int
    created: float

    def alive(self) -> bool:
        """Whether this process still runs (a zombie does not)."""
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.created) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


def start(command: Sequence[str], *, log: Path, marker: str, env: Mapping[str, str] | None = None) -> ProcessRef:
    """Start a process that outlives this one, with its output appended to `log`."""
    environment = {**os.environ, **without_proxy_on_loopback(os.environ), **(env or {}), MARKER: marker}
    with log.open("ab") as sink:
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=environment, start_new_session=True
        )
    return ProcessRef(process.pid, psutil.Process(process.pid).create_time())


def without_proxy_on_loopback(environ: Mapping[str, str]) -> dict[str, str]:
    """NO_PROXY with the addresses of the service's components added; empty if no proxy is set.

    The proxy stays in effect for other hosts: a replica may download its model through it. Whole host names and
    addresses are the only form of NO_PROXY that every library supports (urllib, requests, gRPC, curl).
    """
    if not any(name.lower().endswith("_proxy") for name in environ):
        return {}
    before = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    hosts = dict.fromkeys([*(host.strip() for host in before.split(",") if host.strip()), *_OWN_HOSTS])
    return dict.fromkeys(("no_proxy", "NO_PROXY"), ",".join(hosts))


def reap() -> None:
    """Reap children that have ended, so that they do not stay zombies."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def marked(marker: str) -> list[psutil.Process]:
    """All running processes of this user with the marker in their environment, except this one."""
    entry = f"{MARKER}={marker}".encode()
    processes = []
    for pid in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error):
            if pid != os.getpid() and entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    processes.append(process)
    return processes


def with_children(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """The processes and their descendants, except this one.

    A process that sets its own title (Ray's agents do) may overwrite the environment that Linux shows, and so the
    marker; it is found as a child of a marked process.
    """
    by_pid: dict[int, psutil.Process] = {}
    for process in processes:
        with contextlib.suppress(psutil.Error):
            by_pid |= {p.pid: p for p in (process, *process.children(recursive=True))}
    by_pid.pop(os.getpid(), None)
    return list(by_pid.values())


def end(processes: Iterable[psutil.Process], *, grace_s: float = 5.0) -> None:
    """Terminate each process, wait, and kill those that remain."""
    remaining = list(processes)
    for process in remaining:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(remaining, timeout=grace_s)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=5.0)


def end_tree(reference: ProcessRef, *, grace_s: float = 3.0) -> None:
    """End a process and its descendants."""
    if not reference.alive():
        return
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(reference.pid)
        end([root, *root.children(recursive=True)], grace_s=grace_s)


def end_marked(marker: str, *, grace_s: float = 5.0, keep: Iterable[int] = (), timeout_s: float = 30.0) -> None:
    """End every marked process, repeatedly until none is left (some start others as they end).

    Raises:
        TimeoutError: a process still runs after `timeout_s`.
    """
    kept = set(keep)
    deadline = time.monotonic() + timeout_s
    while remaining := [p for p in with_children(marked(marker)) if p.pid not in kept]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes did not end: {sorted(p.pid for p in remaining)}")
        end(remaining, grace_s=grace_s)
        grace_s = 0.5
