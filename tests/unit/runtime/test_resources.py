"""Memory and CPUs are those that this process may use: a cgroup, v1 or v2, bounds it as a container does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from tierserve.runtime.local import resources

GIB = 2**30


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Files as the kernel shows them: the process's line, and files under the mount."""

    def made(line: str, files: Mapping[str, str]) -> None:
        (tmp_path / "self").write_text(f"{line}\n")
        for name, content in files.items():
            file = tmp_path / "fs" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{content}\n")
        monkeypatch.setattr(resources, "CGROUP_FILE", tmp_path / "self")
        monkeypatch.setattr(resources, "CGROUPS", tmp_path / "fs")

    monkeypatch.setattr(psutil, "virtual_memory", type("Memory", (), {"available": 64 * GIB}))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    return made


V2 = {
    "pods/one/memory.max": f"{8 * GIB}",
    "pods/one/memory.current": f"{6 * GIB}",
    "pods/one/memory.stat": f"anon 1\ninactive_file {GIB}\nslab 3",
    "pods/one/cpu.max": "150000 100000",
    "pods/memory.max": "max",
    "pods/memory.current": "1",
    "pods/cpu.max": "max 100000",
}
V1 = {
    "memory/pods/one/memory.limit_in_bytes": f"{8 * GIB}",
    "memory/pods/one/memory.usage_in_bytes": f"{6 * GIB}",
    "memory/pods/one/memory.stat": f"total_inactive_file {GIB}",
    "memory/memory.limit_in_bytes": "9223372036854771712",
    "memory/memory.usage_in_bytes": "1",
    "cpu/pods/one/cpu.cfs_quota_us": "150000",
    "cpu/pods/one/cpu.cfs_period_us": "100000",
    "cpu/cpu.cfs_quota_us": "-1",
    "cpu/cpu.cfs_period_us": "100000",
}
V1_LINES = "5:cpu,cpuacct:/pods/one\n4:memory:/pods/one\n1:name=systemd:/pods/one"


@pytest.mark.parametrize(("line", "files"), [("0::/pods/one", V2), (V1_LINES, V1)], ids=["v2", "v1"])
def test_a_cgroup_bounds_memory_and_cpus_with_the_page_cache_counted_as_free(
    line: str, files: Mapping[str, str], cgroup
):
    cgroup(line, files)
    assert resources.available_memory() == 3 * GIB
    assert resources.cpus() == 1.5


def test_a_cgroup_further_out_bounds_what_is_in_it(cgroup):
    cgroup("0::/pods/one", V2 | {"pods/memory.max": f"{2 * GIB}", "pods/cpu.max": "50000 100000"})
    assert resources.available_memory() == 2 * GIB - 1
    assert resources.cpus() == 0.5


def test_a_container_whose_path_is_the_hosts_is_bounded_by_what_is_mounted(cgroup):
    cgroup(
        "0::/kubepods/pod1/abc", {"memory.max": f"{2 * GIB}", "memory.current": f"{GIB}", "cpu.max": "200000 100000"}
    )
    assert resources.available_memory() == GIB
    assert resources.cpus() == 2.0


@pytest.mark.parametrize("line", ["0::/", "", "0::/gone"])
def test_without_a_bound_the_machine_counts(line: str, cgroup):
    cgroup(line, {"cgroup.procs": "1"})
    assert resources.available_memory() == 64 * GIB
    assert resources.cpus() == 16.0


def test_a_cgroup_that_is_full_leaves_nothing_and_not_less(cgroup):
    cgroup("0::/pods/one", V2 | {"pods/one/memory.current": f"{9 * GIB}", "pods/one/memory.stat": "anon 1"})
    assert resources.available_memory() == 0
