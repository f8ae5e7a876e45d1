"""A process with the libraries of Ray's workers loaded; each worker is a fork of it.

    python -m tierserve.runtime.local.prefork SOCKET

A replica on this machine costs some seconds of a core to start, nearly all of it to import libraries, and when
connections double half of all replicas start at once on the cores that serve. Forked, it costs a third of that
(docs/decisions/0005-prefork.md). `prefork_hook/sitecustomize.py` hands the start of a worker over to the socket; where
nobody answers there, the worker starts as Ray starts it.

Ray itself is never loaded before the fork: its C++ part reads its settings and seeds its random ids at import, and two
workers with the same ids must not be.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What `ray`, `ray.serve` and a replica import, without Ray; one that is missing is left to the worker.
LIBRARIES = (
    "numpy", "scipy.special", "pydantic", "orjson", "yaml", "aiohttp", "requests", "click", "psutil", "filelock",
    "jsonschema", "msgpack", "grpc", "google.protobuf.descriptor_pb2", "opentelemetry.sdk.metrics",
    "opentelemetry.exporter.prometheus", "prometheus_client", "uvloop", "uvicorn.main", "starlette.applications",
    "fastapi", "fastapi.openapi.models", "watchfiles", "tierserve.autoscale.decide", "tierserve_serving.openai.app",
    "tierserve_serving.engines.emulated",
)  # fmt: skip
WORKER_NICENESS = 15  # Ray's own default
_LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True)
class Start:
    """A worker to be started: its script and arguments, environment, folder, and standard streams."""

    argv: list[str]
    env: dict[str, str]
    cwd: str
    streams: tuple[int, ...]
    connection: socket.socket


def preload(libraries: tuple[str, ...] = LIBRARIES) -> None:
    """Import the libraries, and keep the collector from writing into pages that forks share."""
    for name in libraries:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()


def wait_for_start(server: socket.socket) -> Start:
    """Fork for every start that is asked for; returns in each fork, never in the parent."""
    while True:
        connection, _ = server.accept()
        with connection:
            try:
                start = read_start(connection)
            except (OSError, ValueError, KeyError) as error:
                print(f"not a start: {error!r}", file=sys.stderr, flush=True)
                continue
            if os.fork() == 0:
                server.close()
                return Start(start.argv, start.env, start.cwd, start.streams, connection.dup())
            for stream in start.streams:
                os.close(stream)


def read_start(connection: socket.socket) -> Start:
    """One request: three file descriptors with the length, then JSON.

    Raises:
        OSError, ValueError, KeyError: the other side ended early or sent something else.
    """
    head, streams, _, _ = socket.recv_fds(connection, _LENGTH_BYTES, 3)
    with connection.makefile("rb") as stream:
        raw: dict[str, Any] = json.loads(stream.read(int.from_bytes(head, "big")))
    return Start(raw["argv"], raw["env"], raw["cwd"], tuple(streams), connection)


def become(start: Start) -> None:
    """Be the worker: its streams, environment and arguments, a process group of its own; then run its script.

    The connection stays open as long as this process lives: at the other end waits the process that Ray started.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setpgid(0, 0)  # Ray ends a worker's whole group
    # The priority that Ray gives workers once they work: before that, those that start would starve those that serve.
    os.setpriority(os.PRIO_PROCESS, 0, int(start.env.get("RAY_worker_niceness", WORKER_NICENESS)))
    for number, stream in enumerate(start.streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(start.env)
    os.chdir(start.cwd)
    _reseed()
    sys.argv = start.argv
    start.connection.sendall(os.getpid().to_bytes(_LENGTH_BYTES, "big"))
    runpy.run_path(start.argv[0], run_name="__main__")


def _reseed() -> None:
    """Python's own generator is seeded anew by a fork, numpy's is not."""
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()


def main() -> None:
    """Entry point; ends with SIGTERM."""
    path = Path(sys.argv[1])
    preload()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks: the kernel buries them
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0o600)
        server.listen(128)
        start = wait_for_start(server)
    become(start)


if __name__ == "__main__":
    main()
