"""Cost of the operator: CPU of a reconcile without change, its memory, and the time until all services are created.

    python -m bench.kubernetes.operator_load                 100 services, two minutes on 2 cores (without the build)
    python -m bench.kubernetes.operator_load --services 1000

A real kube-apiserver and etcd with KubeRay's CRDs, no kubelet; the operator is a process of its own. First the time
from the first `create` until every service has its objects and a status, then the CPU and memory over resync periods in
which nothing changes. Prints a table; docs/kubernetes.md quotes it.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import yaml

ROOT = Path(__file__).resolve().parents[2]
PLURAL = "/apis/serving.tierserve.io/v1alpha1/namespaces/default/genaideployments"
RESYNC_S = 2.0


def module(path: Path) -> ModuleType:
    """A module that is not in a package: fixtures of the tests, which start an API server."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = found
    spec.loader.exec_module(found)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--services", type=int, default=100)
    count = parser.parse_args().services
    kube = module(ROOT / "tests" / "contract" / "conftest.py")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(kube.running(folder, kube._script("kube_binaries").ensure()))
        definitions = [kube.CRD, *kube._script("kube_binaries").kuberay_crds()]
        for file in definitions:
            server.create(kube.DEFINITIONS, yaml.safe_load(file.read_text()))
        process = stack.enter_context(operator(server, folder))
        time.sleep(5.0)
        made_s = make(server, count)
        cpu_s, reconciles = unchanged(process, count)
        rss = process.memory_info().rss / 2**20
    print(f"{os.cpu_count()} cores, {count} services of 3 pools, resync every {RESYNC_S:g} s")
    print(f"  all created, with a status, after  {made_s:6.1f} s")
    print(f"  CPU of a reconcile without change  {cpu_s / reconciles * 1e3:6.1f} ms")
    print(f"  memory (RSS)                       {rss:6.0f} MiB")


@contextmanager
def operator(server: Any, folder: Path) -> Iterator[psutil.Process]:
    """The operator with the rights of the administrator."""
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": server.url,
                                                  "certificate-authority": str(server.certificate)}}],
        "users": [{"name": "admin", "user": {"token": server.token}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "admin"}}],
    }  # fmt: skip
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
    own = {"KUBECONFIG": str(folder / "kubeconfig"), "TIERSERVE_RESYNC_PERIOD": str(RESYNC_S)}
    command = [sys.executable, "-m", "kopf", "run", "--standalone", "-A", "-m", "tierserve.controller.handlers"]
    with (folder / "operator.log").open("wb") as log:
        started = subprocess.Popen(
            command, env={**os.environ, **own, "TIERSERVE_METRICS_PORT": "0"}, stdout=log, stderr=log
        )
    try:
        yield psutil.Process(started.pid)
    finally:
        started.terminate()
        started.wait(20)


def make(server: Any, count: int) -> float:
    """Create services; seconds until all have a status."""
    document = yaml.safe_load((ROOT / "examples" / "assistant.yaml").read_text())
    began = time.monotonic()
    for i in range(count):
        document["metadata"] = {"name": f"s{i}", "namespace": "default"}
        code, reply = server.create(PLURAL, document)
        assert code == 201, reply
    while True:
        _, found = server.get(PLURAL)
        ready = sum(bool(item.get("status", {}).get("conditions")) for item in found["items"])
        print(f"\r{time.monotonic() - began:6.1f} s  {ready} of {count} have a status", end="", flush=True)
        if ready == count:
            print()
            return time.monotonic() - began
        time.sleep(0.5)


def unchanged(process: psutil.Process, count: int, periods: int = 10) -> tuple[float, float]:
    """CPU seconds and reconciles over some resync periods without changes."""
    time.sleep(10.0)
    before = sum(process.cpu_times()[:2])
    time.sleep(RESYNC_S * periods)
    return sum(process.cpu_times()[:2]) - before, float(count * periods)


if __name__ == "__main__":
    main()
