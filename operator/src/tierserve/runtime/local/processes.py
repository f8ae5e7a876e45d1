"""Processes of one service: started in their own session, marked in their environment, ended by process id.

Ray's children outlive their parents at times (its HAProxy does), so what belongs to a service is found by the marker
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
# The last two are where Ray's head looks for the metadata of a cloud: link-local, so never behind a proxy.
_OWN_HOSTS = ("localhost", LOOPBACK, RAY_LOOPBACK, "169.254.169.254", "metadata.google.internal")


@dataclass(frozen=True, slots=True)
class ProcessRef:
    """A process that can be told from a later one with the same id."""

    pid: int
    created: float

    def alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.created) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


def start(command: Sequence[str], *, log: Path, marker: str, env: Mapping[str, str] | None = None) -> ProcessRef:
    """Start a process that outlives this one, its output appended to `log`."""
    environment = {**os.environ, **without_proxy_on_loopback(os.environ), **(env or {}), MARKER: marker}
    with log.open("ab") as sink:
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=environment, start_new_session=True
        )
    return ProcessRef(process.pid, psutil.Process(process.pid).create_time())


def without_proxy_on_loopback(environ: Mapping[str, str]) -> dict[str, str]:
    """NO_PROXY with the addresses of the service's components added; nothing where no proxy is set.

    The proxy itself stays in force for the rest: a replica may fetch its model through it. Of the forms of NO_PROXY
    only whole host names and addresses are understood by every library (urllib, requests, gRPC, curl).
    """
    if not any(name.lower().endswith("_proxy") for name in environ):
        return {}
    before = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    hosts = dict.fromkeys([*(host.strip() for host in before.split(",") if host.strip()), *_OWN_HOSTS])
    return dict.fromkeys(("no_proxy", "NO_PROXY"), ",".join(hosts))


def reap() -> None:
    """Collect children that ended, so that they do not stay as zombies."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def marked(marker: str) -> list[psutil.Process]:
    """All living processes of this user whose environment carries the marker, this one left out."""
    wanted = f"{MARKER}={marker}".encode()
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error):
            if pid != os.getpid() and wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
    return found


def with_children(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """The processes and all that they started, this one left out.

    A process that writes a title of its own (Ray's agents do) may write over the environment that Linux shows of it,
    and so over the marker; as a child of a marked one it is found all the same.
    """
    found: dict[int, psutil.Process] = {}
    for process in processes:
        with contextlib.suppress(psutil.Error):
            found |= {one.pid: one for one in (process, *process.children(recursive=True))}
    found.pop(os.getpid(), None)
    return list(found.values())


def end(processes: Iterable[psutil.Process], *, grace_s: float = 5.0) -> None:
    """Ask each process to end, wait, and kill what is left."""
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
    """End a process and all that it started."""
    if not reference.alive():
        return
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(reference.pid)
        end([root, *root.children(recursive=True)], grace_s=grace_s)


def end_marked(marker: str, *, grace_s: float = 5.0, keep: Iterable[int] = (), timeout_s: float = 30.0) -> None:
    """End every process that carries the marker, again and again until none is left (some start others as they end).

    Raises:
        TimeoutError: some process is still there after `timeout_s`.
    """
    kept = set(keep)
    deadline = time.monotonic() + timeout_s
    while remaining := [p for p in with_children(marked(marker)) if p.pid not in kept]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes that do not end: {sorted(p.pid for p in remaining)}")
        end(remaining, grace_s=grace_s)
        grace_s = 0.5
