"""One real Ray Serve for all tests of a session; each test deploys applications under names and prefixes of its own."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tierserve.runtime.local.ports import free_port
from tierserve_serving.gateway.haproxy import write_ray_launcher

_MARKER = "TIERSERVE_TEST_CLUSTER"
_PATIENCE = 3.0  # machines are shared: a wait ends as soon as it can, and fails late


def wait_for(what: Callable[[], Any], timeout_s: float = 30.0, every_s: float = 0.05) -> Any:
    """Return the first true value of `what`; errors of a connection count as "not yet"."""
    deadline = time.monotonic() + _PATIENCE * timeout_s
    while True:
        with contextlib.suppress(httpx.HTTPError, OSError):
            if value := what():
                return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s} s in vain for {getattr(what, '__doc__', None) or what}")
        time.sleep(every_s)


@dataclass
class RayServe:
    """The cluster of the session.

    `run(application)` deploys one and returns its base URL, at which `GET /healthz` or `ready_path` is 200 by then, and
    HAProxy sends requests straight to the replicas (for the first seconds it sends them by way of Ray's Python proxy).
    """

    http_port: int
    stats_port: int
    _names: list[str] = field(default_factory=list)
    _number: itertools.count[int] = field(default_factory=itertools.count)

    def run(self, application: Any, *, name: str | None = None, ready_path: str = "/healthz") -> str:
        from ray import serve

        name = name or f"app{next(self._number)}"
        serve.run(application, name=name, route_prefix=f"/{name}")
        self._names.append(name)
        url = f"http://127.0.0.1:{self.http_port}/{name}"
        wait_for(lambda: httpx.get(url + ready_path, timeout=5.0).status_code == 200)
        wait_for(lambda: self._is_direct(name))
        return url

    def _is_direct(self, name: str) -> bool:
        """HAProxy has found a replica of the application healthy."""
        page = httpx.get(f"http://127.0.0.1:{self.stats_port}/stats;csv", timeout=5.0).text
        rows = [line.split(",") for line in page.splitlines() if line.startswith(name) or f"-{name}," in line]
        # Columns of HAProxy's statistics: 0 backend, 1 server, 17 state, 19 active (and not a backup).
        return any(row[1] != "BACKEND" and row[17].startswith("UP") and row[19] == "1" for row in rows)

    def delete(self, *, keep: int = 0) -> None:
        """Take away the applications deployed after the first `keep`."""
        from ray import serve

        while len(self._names) > keep:
            serve.delete(self._names.pop(), _blocking=False)

    @property
    def count(self) -> int:
        return len(self._names)


@pytest.fixture(scope="session")
def ray_serve() -> Iterator[RayServe]:
    """Ray Serve 2.60 with Ray's HAProxy in front, on free ports of the loopback address, with four (logical) CPUs."""
    import ray
    from ray import serve

    marker, folder = uuid.uuid4().hex, tempfile.mkdtemp(prefix="ts-", dir="/tmp")
    port = free_port()
    stats_port = free_port()
    with _environment(marker, stats_port, Path(folder)):
        _init(folder, marker)
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        yield RayServe(port, stats_port)
    finally:
        ray.shutdown()
        _end_processes(marker)
        shutil.rmtree(folder, ignore_errors=True)


def _init(folder: str, marker: str, tries: int = 3) -> None:
    """Start the cluster; Ray gives its raylet 30 s, which a busy machine takes, so it is tried again."""
    import ray

    for left in reversed(range(tries)):
        try:
            ray.init(
                address="local",
                num_cpus=8,
                object_store_memory=100 * 2**20,
                include_dashboard=False,
                _temp_dir=folder,
                _node_ip_address="127.0.0.1",
                log_to_driver=False,
                logging_level="ERROR",
            )
            return
        except Exception as error:
            ray.shutdown()
            _end_processes(marker)
            if not left or "timed out" not in str(error):
                raise


@pytest.fixture
def deployed(ray_serve: RayServe) -> Iterator[RayServe]:
    """The cluster; what the test deploys is taken away after it."""
    before = ray_serve.count
    yield ray_serve
    ray_serve.delete(keep=before)


@contextlib.contextmanager
def _environment(marker: str, stats_port: int, folder: Path) -> Iterator[None]:
    """Set what the cluster's processes inherit, and only while they are started."""
    # Replicas listen on ports of this range. Two clusters on a host with the same range would meet there.
    first = 20_000 + 100 * (free_port() % 50)
    wanted = {
        _MARKER: marker,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(write_ray_launcher(folder / "haproxy")),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats_port),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + 99),
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _end_processes(marker: str) -> None:
    """End what the cluster left: its HAProxy outlives it and would hold the port."""
    ours = [process for process in psutil.process_iter() if _is_marked(process, marker)]
    for process in ours:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    for process in psutil.wait_procs(ours, timeout=5)[1]:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _is_marked(process: psutil.Process, marker: str) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.pid != os.getpid() and process.environ().get(_MARKER) == marker
    return False


@pytest.fixture
def wait() -> Callable[..., Any]:
    """`wait(condition, timeout_s=30)`: poll until it is true."""
    return wait_for
