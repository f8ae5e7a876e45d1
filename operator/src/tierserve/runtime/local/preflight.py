"""Preflight checks: what must hold before a service starts on this machine; each error has a hint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from urllib.parse import urlsplit

from tierserve.api import GenAIDeployment
from tierserve.observe.model_files import context_problems
from tierserve.plan.placement import Placement
from tierserve.runtime.local.paths import LocalError, ServicePaths
from tierserve.runtime.local.ports import LOOPBACK, holder, is_free, why_taken
from tierserve.runtime.local.resources import available_memory
from tierserve_serving.gateway import haproxy as binary
from tierserve_serving.sources import SourceError, check_source, model_folder, model_path

# Resident memory measured after a start: head with dashboard and Serve, one more node, one replica.
HEAD_BYTES = 1_300_000_000
NODE_BYTES = 450_000_000
REPLICA_BYTES = {"emulated": 170_000_000, "llamacpp": 500_000_000, "vllm": 5_000_000_000}
DEFAULT_PORT = 8080
GIB = 2**30


class PreflightError(LocalError):
    """A preflight check failed."""


def check(paths: ServicePaths, placements: Sequence[Placement], port: int | None) -> None:
    """Run all checks and create the folders; raises LocalError at the first failure."""
    check_packages()
    check_engines(placements)
    check_sources(placements)
    check_haproxy()
    check_memory(placements)
    if port is not None:
        check_port(port)
    paths.make()


def check_packages(installed: Callable[[str], object] = find_spec) -> None:
    """Check that the packages are installed which the processes import only after they have started."""
    for module in ("ray", "aiohttp", "prometheus_client"):
        if installed(module) is None:
            raise PreflightError(f"{module} is not installed", 'pip install "tierserve[serving]"')


def check_engines(placements: Iterable[Placement], installed: Callable[[str], object] = find_spec) -> None:
    """Check that every engine is installed."""
    for p in placements:
        if p.engine == "vllm" and installed("vllm") is None:
            raise PreflightError(
                f"spec.models[{p.model}].engine: vllm is not installed",
                'pip install "tierserve[serving,vllm]" (vLLM on CPUs), or set engine: emulated or llamacpp',
            )


def check_sources(placements: Iterable[Placement]) -> None:
    """Check that sources are well-formed, and those on this machine present; remote ones are read by the replicas."""
    for p in placements:
        if p.engine == "emulated" or p.source is None:
            continue
        try:
            check_source(p.source)
            if urlsplit(p.source).scheme in ("file", "pypi", "pvc"):
                (model_path if p.engine == "llamacpp" else model_folder)(p.source)
        except SourceError as error:
            raise PreflightError(f"spec.models[{p.model}].source: {error.message}", error.hint) from error


def check_contexts(gaid: GenAIDeployment) -> None:
    """Check that no context is longer than what its model was made for, as far as the model is on this machine."""
    if problems := context_problems(gaid):
        raise PreflightError(f"{problems[0].path}: {problems[0].message_with_value}", problems[0].hint)


def check_haproxy(find: Callable[[], object] = binary.find_haproxy) -> None:
    """Check that HAProxy is installed."""
    try:
        find()
    except binary.GatewayError as error:
        raise PreflightError(f"gateway: {error.message}", error.hint) from error


def memory_needed(placements: Sequence[Placement]) -> int:
    """Bytes that head, nodes and the minimum of replicas need."""
    replicas = sum(max(1, p.min_replicas) * REPLICA_BYTES.get(p.engine, 0) for p in placements)
    return HEAD_BYTES + len(placements) * NODE_BYTES + replicas


def check_memory(placements: Sequence[Placement], available: int | None = None) -> None:
    """Check that the minimum of replicas fits the free memory of the machine and of the cgroup."""
    free = available_memory() if available is None else available
    needed = memory_needed(placements)
    if needed > free:
        minima = ", ".join(f"{p.pool} {max(1, p.min_replicas)}" for p in placements)
        raise PreflightError(
            f"memory: Ray and the minimum of replicas ({minima}) need {needed / GIB:.1f} GiB; "
            f"{free / GIB:.1f} GiB are free",
            "lower replicas.min, remove a tier, end other programs (list services: `tierserve status`), or raise "
            "the memory limit of the container",
        )


def check_port(port: int) -> None:
    """Check that the endpoint's port is free, and that this user may listen on it."""
    failure = why_taken(port)
    if failure is None:
        return
    if isinstance(failure, PermissionError):
        raise PreflightError(f"--port: permission denied for port {port}", "choose a port of at least 1024")
    raise PreflightError(
        f"--port: {port} on {LOOPBACK} is in use by {holder(port)}", f"choose another, e.g. --port {port % 65535 + 1}"
    )


def choose_port() -> int:
    """Return the first free port from 8080 up, so that two services do not collide."""
    candidates = range(DEFAULT_PORT, DEFAULT_PORT + 1000)
    port = next(filter(is_free, candidates), None)
    if port is None:
        raise PreflightError(
            f"--port: no port from {candidates.start} to {candidates.stop - 1} is free", "choose another"
        )
    return port
