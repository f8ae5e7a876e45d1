"""Memory and CPUs that this process may use: the machine's, or the limit of its cgroup (container, slice)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

CGROUP_FILE = Path("/proc/self/cgroup")
CGROUPS = Path("/sys/fs/cgroup")
# cgroup v1 writes "no limit" as the largest multiple of a page in 63 bits.
_UNLIMITED_V1 = 2**62


def available_memory() -> int:
    """Bytes of memory that can still be allocated; page cache counts as free."""
    free = [_free_memory(folder) for folder in _folders("memory")]
    return int(min([psutil.virtual_memory().available, *free]))


def cpus() -> float:
    """CPUs that this process may use; a quota may be a fraction."""
    quotas = [_cpu_quota(folder) for folder in _folders("cpu")]
    return min([float(len(os.sched_getaffinity(0))), *quotas])


def _folders(controller: str) -> Iterator[Path]:
    """The folders of this process's cgroup and of its parents, in v2 and in v1.

    Inside a container the path in /proc/self/cgroup may be the host's, which is not mounted: then the folders that
    exist, up to the mount itself, still limit the process.
    """
    try:
        lines = CGROUP_FILE.read_text().splitlines()
    except OSError:
        return
    for line in filter(None, lines):
        _, names, path = line.split(":", 2)
        if not names or controller in names.split(","):
            mount = CGROUPS / (controller if names else "")
            inside = mount / path.lstrip("/")
            for folder in (inside, *inside.parents):
                if folder.is_dir() and folder.is_relative_to(mount):
                    yield folder


def _free_memory(folder: Path) -> float:
    v2 = (folder / "memory.max").exists() or (folder / "memory.current").exists()
    limit = _number(folder / ("memory.max" if v2 else "memory.limit_in_bytes"))
    used = _number(folder / ("memory.current" if v2 else "memory.usage_in_bytes"))
    if limit is None or used is None or limit >= _UNLIMITED_V1:
        return math.inf
    return max(0.0, limit - used + _page_cache(folder, "inactive_file" if v2 else "total_inactive_file"))


def _page_cache(folder: Path, name: str) -> float:
    """Bytes of page cache that can be reclaimed."""
    try:
        pairs = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return float(next((value for key, value in pairs if key == name), 0.0))
    except (OSError, ValueError):
        return 0.0


def _cpu_quota(folder: Path) -> float:
    v2 = folder / "cpu.max"
    if v2.exists():
        quota, _, period = v2.read_text().partition(" ")
        return math.inf if quota == "max" else float(quota) / float(period)
    granted, per = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return granted / per if granted and per and granted > 0 else math.inf


def _number(file: Path) -> float | None:
    """The number in a cgroup file; None for `max`, and if there is no such file."""
    try:
        return float(file.read_text())
    except (OSError, ValueError):
        return None
