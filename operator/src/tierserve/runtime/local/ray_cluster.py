"""One small Ray cluster on loopback: a head and a labelled node per pool, each a `ray start --block`.

`ray start` picks the first free name for its sockets and creates them seconds later, so of two nodes that start at once
one fails; each node waits for the sockets of the previous one. The default start timeout of a raylet, 30 s, is too
short for several on 2 cores, hence RAY_raylet_start_wait_time_s.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from tierserve.observe.serve_rest import ServeRest
from tierserve.render.serve import RAY_HAPROXY_ENV
from tierserve.runtime.local.paths import ServicePaths
from tierserve.runtime.local.ports import RAY_LOOPBACK
from tierserve.runtime.local.processes import ProcessRef, start
from tierserve_serving.gateway.haproxy import write_ray_launcher

OBJECT_STORE_BYTES = 80_000_000
PREFORK_HOOK = Path(__file__).parent / "prefork_hook"


@dataclass(frozen=True, slots=True)
class RayPorts:
    """Ports of one cluster; `replicas` is the range [first, last) in which replicas listen."""

    gcs: int
    dashboard: int
    client: int
    http: int
    haproxy_metrics: int
    haproxy_stats: int
    fallback_http: int
    fallback_grpc: int
    replicas: tuple[int, int]

    @property
    def dashboard_url(self) -> str:
        """Base URL of Ray's dashboard, which carries the Serve REST API."""
        return f"http://{RAY_LOOPBACK}:{self.dashboard}"


def environment(paths: ServicePaths, ports: RayPorts) -> dict[str, str]:
    """Environment of every Ray process of the service; by default, files and ports of Ray's HAProxy are fixed."""
    folder = paths.short / "h"
    first, last = ports.replicas
    return {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "90",
        # Every user of the machine can reach loopback, and a client of Ray can run code as this user.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(paths.ray_token),
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        # The ingress is fully asynchronous: a second event loop per replica only adds a hop per request.
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(folder / "haproxy"),
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports.haproxy_metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports.haproxy_stats),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(ports.fallback_http),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(ports.fallback_grpc),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(last),
        **RAY_HAPROXY_ENV,
        # One thread per numeric library: the timings of a replica must not depend on the number of replicas.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join([str(PREFORK_HOOK), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "TIERSERVE_PREFORK": str(paths.prefork_socket),
    }


def start_prefork(paths: ServicePaths, ports: RayPorts) -> ProcessRef:
    """Start the prefork server; until it listens, workers start as Ray starts them."""
    command = [sys.executable, "-m", "tierserve.runtime.local.prefork", str(paths.prefork_socket)]
    return start(command, log=paths.logs / "prefork.log", marker=paths.marker, env=environment(paths, ports))


def _ray(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats",
            "--include-log-monitor=false", f"--node-ip-address={RAY_LOOPBACK}", "--min-worker-port=0",
            "--max-worker-port=0", f"--object-store-memory={OBJECT_STORE_BYTES}", *arguments]  # fmt: skip


def start_head(paths: ServicePaths, ports: RayPorts) -> ProcessRef:
    """Start the head: control store, dashboard, Serve controller and proxy; it holds no replicas."""
    write_ray_launcher(paths.short / "h" / "haproxy")
    command = _ray("--head", f"--port={ports.gcs}", f"--dashboard-host={RAY_LOOPBACK}",
                   f"--dashboard-port={ports.dashboard}", f"--ray-client-server-port={ports.client}",
                   "--no-monitor", "--num-cpus=0", f"--temp-dir={paths.ray}")  # fmt: skip
    return start(command, log=paths.logs / "ray-head.log", marker=paths.marker, env=environment(paths, ports))


def start_node(
    paths: ServicePaths, ports: RayPorts, pool: str, labels: Mapping[str, str], timeout_s: float = 60.0
) -> ProcessRef:
    """Start a labelled node for the replicas of one pool; returns when the next node can be started.

    Raises:
        RuntimeError: the node ended, or has no sockets after `timeout_s`.
    """
    before = _sockets(paths)
    text = ",".join(f"{key}={value}" for key, value in labels.items())
    command = _ray(f"--address={RAY_LOOPBACK}:{ports.gcs}", "--num-cpus=1", "--labels", text)
    log = paths.logs / f"ray-{pool}.log"
    node = start(command, log=log, marker=paths.marker, env=environment(paths, ports))
    deadline = time.monotonic() + timeout_s
    while not _sockets(paths) - before:
        if not node.alive() or time.monotonic() > deadline:
            raise RuntimeError(f"the Ray node of pool {pool} did not start:\n{tail(log)}")
        time.sleep(0.05)
    return node


def _sockets(paths: ServicePaths) -> set[tuple[str, int]]:
    """Raylet sockets of the cluster with their inodes: a restarted node may reuse the name of one that ended."""
    folder = paths.ray / "session_latest" / "sockets"
    return {(s.name, s.stat().st_ino) for s in folder.glob("raylet*")} if folder.is_dir() else set()


def head_is_up(rest: ServeRest) -> bool:
    """Whether the dashboard answers."""
    try:
        return rest.is_up()
    except httpx.HTTPError:
        return False


def wait_for_head(rest: ServeRest, head: ProcessRef, paths: ServicePaths, timeout_s: float = 90.0) -> None:
    """Wait until the head answers and has its sockets, so that they are not mistaken for those of a node.

    Raises:
        RuntimeError: the head ended, or did not answer in time; the message contains the end of its log.
    """
    deadline = time.monotonic() + timeout_s
    while not (head_is_up(rest) and _sockets(paths)):
        if not head.alive() or time.monotonic() > deadline:
            raise RuntimeError(f"the Ray head did not start:\n{tail(paths.logs / 'ray-head.log')}")
        time.sleep(0.25)


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log file."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else "(no log)"
