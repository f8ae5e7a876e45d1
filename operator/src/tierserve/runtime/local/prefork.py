"""Prefork server: a process with the libraries of Ray's workers imported; each worker is a fork of it.

    python -m tierserve.runtime.local.prefork SOCKET

A replica on this machine takes some seconds of CPU to start, nearly all of it for imports, and when connections double
half of all replicas start at once on the cores that serve. A fork takes a third of that
(docs/decisions/0005-prefork.md). `prefork_hook/sitecustomize.py` sends the start of a worker to the socket; without an
answer the worker starts as Ray starts it.

Ray itself is never imported before the fork: its C++ part reads its settings and seeds its random ids at import, and
two workers must not have the same ids.
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

# What `ray`, `ray.serve` and a replica import, except Ray; one that is missing is skipped.
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
    """Start request of a worker: script and arguments, environment, working folder, standard streams."""

    argv: list[str]
    env: dict[str, str]
    cwd: str
    streams: tuple[int, ...]
    connection: socket.socket


def preload(libraries: tuple[str, ...] = LIBRARIES) -> None:
    """Import the libraries; freeze the garbage collector so that it does not write into pages that forks share."""
    for name in libraries:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()


def wait_for_start(server: socket.socket) -> Start:
    """Fork for every start request; returns in each fork, never in the parent."""
    while True:
        connection, _ = server.accept()
        with connection:
            try:
                start = read_start(connection)
            except (OSError, ValueError, KeyError) as error:
                print(f"invalid start request: {error!r}", file=sys.stderr, flush=True)
                continue
            if os.fork() == 0:
                server.close()
                return Start(start.argv, start.env, start.cwd, start.streams, connection.dup())
            for stream in start.streams:
                os.close(stream)


def read_start(connection: socket.socket) -> Start:
    """Read one start request: three file descriptors with the length, then JSON.

    Raises:
        OSError, ValueError, KeyError: the request is incomplete or invalid.
    """
    head, streams, _, _ = socket.recv_fds(connection, _LENGTH_BYTES, 3)
    with connection.makefile("rb") as stream:
        raw: dict[str, Any] = json.loads(stream.read(int.from_bytes(head, "big")))
    return Start(raw["argv"], raw["env"], raw["cwd"], tuple(streams), connection)


def become(start: Start) -> None:
    """Become the worker: set its streams, environment, arguments and process group, then run its script.

    The connection stays open while this process lives: the process that Ray started waits for its end.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setpgid(0, 0)  # Ray ends a worker's whole group
    # Ray sets this priority only after a worker's start: until then starting workers would starve serving ones.
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
    """Reseed numpy's generator; Python reseeds its own after a fork."""
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()


def main() -> None:
    """Entry point; ends with SIGTERM."""
    path = Path(sys.argv[1])
    preload()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks are not waited for: the kernel reaps them
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0o600)
        server.listen(128)
        start = wait_for_start(server)
    become(start)


if __name__ == "__main__":
    main()
