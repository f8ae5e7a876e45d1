"""What must hold before anything starts on this machine; each miss names the part and the hint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec

from tierserve.plan.placement import Placement
from tierserve.runtime.local.paths import LocalError, ServicePaths
from tierserve.runtime.local.ports import LOOPBACK, holder, is_free, why_taken
from tierserve.runtime.local.resources import available_memory
from tierserve_serving.gateway import haproxy as binary

# Estimates from resident sets seen after a start: head with dashboard and Serve, one more node, one replica.
HEAD_BYTES = 1_300_000_000
NODE_BYTES = 450_000_000
REPLICA_BYTES = {"emulated": 170_000_000, "llamacpp": 500_000_000}
DEFAULT_PORT = 8080
GIB = 2**30


class PreflightError(LocalError):
    """Something is missing on this machine."""


def check(paths: ServicePaths, placements: Sequence[Placement], port: int | None) -> None:
    """Raise LocalError for the first thing that would keep the service from starting; make its folders."""
    check_packages()
    check_engines(placements)
    check_haproxy()
    check_memory(placements)
    if port is not None:
        check_port(port)
    paths.make()


def check_packages(installed: Callable[[str], object] = find_spec) -> None:
    """The packages that the processes of a service import, long after this one has started them."""
    for module in ("ray", "aiohttp", "prometheus_client"):
        if installed(module) is None:
            raise PreflightError(f"{module} is not installed", 'pip install "tierserve[serving]"')


def check_engines(placements: Iterable[Placement]) -> None:
    """Only engines that run without an accelerator have a place here."""
    for p in placements:
        if p.engine not in REPLICA_BYTES:
            raise PreflightError(
                f"spec.models[{p.model}].engine: {p.engine} needs an accelerator; this machine's runtime has none",
                "set engine: emulated (the same timings without a GPU) or engine: llamacpp (a real model on the CPU)",
            )


def check_haproxy(find: Callable[[], object] = binary.find_haproxy) -> None:
    """The gateway needs HAProxy."""
    try:
        find()
    except binary.GatewayError as error:
        raise PreflightError(f"gateway: {error.message}", error.hint) from error


def memory_needed(placements: Sequence[Placement]) -> int:
    """Bytes that head, nodes and the floor of replicas take."""
    replicas = sum(max(1, p.min_replicas) * REPLICA_BYTES.get(p.engine, 0) for p in placements)
    return HEAD_BYTES + len(placements) * NODE_BYTES + replicas


def check_memory(placements: Sequence[Placement], available: int | None = None) -> None:
    """The floor of every pool must fit into the memory that is free, on the machine and in the cgroup."""
    free = available_memory() if available is None else available
    needed = memory_needed(placements)
    if needed > free:
        floors = ", ".join(f"{p.pool} {max(1, p.min_replicas)}" for p in placements)
        raise PreflightError(
            f"memory: Ray and the floor of replicas ({floors}) need {needed / GIB:.1f} GiB, "
            f"{free / GIB:.1f} GiB are free",
            "lower replicas.min, leave out a tier, end other programs (another service? `tierserve status`), or raise "
            "the memory limit of the container",
        )


def check_port(port: int) -> None:
    """The endpoint's port must be free, and this user allowed to listen there."""
    failure = why_taken(port)
    if failure is None:
        return
    if isinstance(failure, PermissionError):
        raise PreflightError(f"--port: {port} needs rights that this user has not", "give one from 1024 up")
    raise PreflightError(
        f"--port: {port} on {LOOPBACK} is in use by {holder(port)}", f"give another, e.g. --port {port % 65535 + 1}"
    )


def choose_port() -> int:
    """The first free port from 8080 up, so that two services side by side do not collide."""
    candidates = range(DEFAULT_PORT, DEFAULT_PORT + 1000)
    port = next(filter(is_free, candidates), None)
    if port is None:
        raise PreflightError(f"--port: none from {candidates.start} to {candidates.stop - 1} is free", "give another")
    return port
