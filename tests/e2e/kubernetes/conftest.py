"""A real cluster for all tests of this folder: kubelets, KubeRay, and TierServe installed with its chart.

It is made from kind-config.yaml, as by `make cluster`, and taken down at the end. TIERSERVE_E2E_KUBECONFIG names one
that is running already, with KubeRay and TierServe on it or not.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = "examples/two-tiers.yaml"
# Quicker than a user would have it, so that the tests see replicas go; and the nodes share the cores of one machine, so
# Ray asks for little, and the operator for what it would be sure of on a node of its own.
OPTIONS = (
    "--set resyncPeriod=3s,logFormat=text,resources.requests.cpu=1200m,serving.workerIdleTimeoutSeconds=30,"
    "serving.head.cpu=200m,serving.worker.cpu=200m,"
    "podSecurityContext.runAsUser=1000680000"  # a user that the image does not know, as on OpenShift
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first of these tests waits for the cluster, the first time ever also for its programs and images."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(2400))
            item.add_marker(pytest.mark.kubernetes)
            item.add_marker(pytest.mark.slow)


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"scripts_{name}", ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@dataclass
class Cluster:
    """kubectl in words that tests use, in the namespace default."""

    shell: Any

    def kubectl(self, words: str, *, check: bool = True) -> str:
        return str(self.shell.run(f"kubectl {words}", check=check, quiet=True))

    def get(self, words: str) -> Any:
        return json.loads(self.kubectl(f"get {words} -o json"))

    def items(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        return list(self.get(f"{kind} {f'-l {selector}' if selector else ''}")["items"])

    def until(self, true: Callable[[], Any], what: str, limit_s: float) -> Any:
        end = time.monotonic() + limit_s
        while not (found := true()):
            assert time.monotonic() < end, f"not within {limit_s:g} s: {what}\n{self.picture()}"
            time.sleep(1)
        return found

    def condition(self, kind: str, name: str = "assistant") -> dict[str, Any]:
        found = self.get(f"gaid {name}").get("status", {}).get("conditions", ())
        return next((c for c in found if c["type"] == kind), {"status": "", "reason": "", "message": ""})

    def is_ready(self, name: str = "assistant") -> bool:
        found = self.get(f"gaid {name}")
        ready = self.condition("Ready", name)
        generation = found["metadata"]["generation"]
        return bool(ready["status"] == "True" and ready.get("observedGeneration") == generation)

    def workers(self, pool: str) -> list[dict[str, Any]]:
        """Worker pods of a pool that are up and not about to go."""
        found = self.items("pods", f"ray.io/node-type=worker,tierserve.io/tier={pool}")
        return [p for p in found if p["status"].get("phase") == "Running" and "deletionTimestamp" not in p["metadata"]]

    def picture(self) -> str:
        """What an operator would look at first."""
        words = ("get gaid -o wide", "get pods -A -o wide", "get rayservices", "get events --sort-by .lastTimestamp",
                 "--namespace tierserve-system logs deployment/tierserve-operator --tail 15",
                 "get gaid assistant -o jsonpath={.status.conditions}",
                 "get gaid assistant -o jsonpath={.status.pools[*].decision}")  # fmt: skip
        return "\n".join(f"$ kubectl {one}\n{self.kubectl(one, check=False)[-3500:]}" for one in words)


@pytest.fixture(scope="session")
def bare_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Nodes that are Ready, with nothing on them."""
    on_cluster = _script("on_cluster")
    given = os.environ.get("TIERSERVE_E2E_KUBECONFIG")
    if given:
        yield Cluster(on_cluster.Shell(Path(given)))
        return
    script = _script("cluster")
    capture = request.config.pluginmanager.getplugin("capturemanager")
    if not script.uses_kind() and (reason := script.binaries.missing()):
        pytest.skip(reason)
    with capture.global_and_fixture_disabled():
        try:
            kubeconfig, why_not = script.kind_up() if script.uses_kind() else script.up(), None
        except SystemExit as stop:  # as itself pytest would tell it of the first test only
            why_not = f"{stop}\n    or give these tests one: TIERSERVE_E2E_KUBECONFIG=..."
    if why_not:
        pytest.fail(why_not, pytrace=False)
    yield Cluster(on_cluster.Shell(kubeconfig))
    with capture.global_and_fixture_disabled():
        script.kind_down() if script.uses_kind() else script.down()


@pytest.fixture(scope="session")
def cluster(bare_cluster: Cluster) -> Cluster:
    """With KubeRay and TierServe on it."""
    on_cluster = _script("on_cluster")
    if "kuberay-operator" not in bare_cluster.kubectl("get deployments -A"):
        on_cluster.install_kuberay(bare_cluster.shell)
    if "tierserve-operator" not in bare_cluster.kubectl("get deployments -A"):
        on_cluster.install_tierserve(bare_cluster.shell, OPTIONS)
    return bare_cluster


@pytest.fixture(scope="module")
def service(cluster: Cluster) -> Cluster:
    """The example, applied and Ready."""
    cluster.kubectl(f"apply -f {EXAMPLE}")
    cluster.until(cluster.is_ready, "Ready", 420)
    return cluster


@dataclass
class Gateway:
    """The gateway's Service as a port of this host."""

    url: str

    def ask(self, timeout: float = 30) -> httpx.Response:
        body = {"model": "chat", "messages": [{"role": "user", "content": "How do?"}]}
        return httpx.post(f"{self.url}/v1/chat/completions", json=body, timeout=timeout, trust_env=False)


@pytest.fixture(scope="module")
def gateway(service: Cluster) -> Iterator[Gateway]:
    """That of the example."""
    with forwarded(service, "assistant") as gateway:
        yield gateway


@contextmanager
def forwarded(cluster: Cluster, name: str) -> Iterator[Gateway]:
    """The gateway of a service through kubectl port-forward, as a developer would."""
    process = cluster.shell.start(f"kubectl port-forward service/{name}-gateway :80")
    try:
        line = process.stdout.readline()
        port = re.search(r"127\.0\.0\.1:(\d+)", line)
        assert port, line
        drain = threading.Thread(target=process.stdout.read, daemon=True)
        drain.start()
        yield Gateway(f"http://127.0.0.1:{port[1]}")
    finally:
        process.terminate()
        process.wait(10)


class Users:
    """So many that ask again as soon as they are answered, until the end of a `with`; never longer than ten minutes."""

    def __init__(self, gateway: Gateway, count: int) -> None:
        self.gateway, self.count = gateway, count
        self.answers: list[tuple[float, int, float, str]] = []  # when asked, status, seconds, pool
        self._done = threading.Event()

    def __enter__(self) -> Users:
        self._pool = ThreadPoolExecutor(self.count)
        self._until = time.monotonic() + 600
        for _ in range(self.count):
            self._pool.submit(self._run)
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._pool.shutdown()

    def _run(self) -> None:
        while not self._done.is_set() and time.monotonic() < self._until:
            start = time.monotonic()
            try:
                reply = self.gateway.ask()
                status, pool = reply.status_code, reply.headers.get("x-tierserve-pool", "")
            except httpx.HTTPError as error:
                status, pool = 0, type(error).__name__
            self.answers.append((start, status, time.monotonic() - start, pool))

    def more(self, count: int) -> None:
        """Wait for so many more answers."""
        end, goal = time.monotonic() + 120, len(self.answers) + count
        while len(self.answers) < goal:
            assert time.monotonic() < end, f"fewer than {count} answers in two minutes"
            time.sleep(0.1)

    def failed(self) -> list[tuple[float, int, float, str]]:
        return [answer for answer in self.answers if answer[1] != 200]

    def pools(self, since: float = 0.0) -> Counter[str]:
        return Counter(pool for start, status, _, pool in self.answers if start >= since and status == 200)


MakeUsers = Callable[[int], Users]


@pytest.fixture(scope="session")
def forward(cluster: Cluster) -> Callable[[str], AbstractContextManager[Gateway]]:
    """The gateway of any service, by its name."""
    return lambda name: forwarded(cluster, name)


@pytest.fixture
def users(gateway: Gateway) -> MakeUsers:
    return lambda count: Users(gateway, count)


@pytest.fixture(scope="session")
def kill_operator() -> Callable[[Cluster], None]:
    """End the operator's process with signal 9, from outside of its container."""

    def kill(cluster: Cluster) -> None:
        pods = cluster.get("pods --namespace tierserve-system -l app.kubernetes.io/name=tierserve-operator")["items"]
        container = pods[0]["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and _is_kopf_in(entry, container):
                os.kill(int(entry.name), 9)
                return
        raise AssertionError(f"no process of container {container} here")

    return kill


def _is_kopf_in(entry: Path, container: str) -> bool:
    try:
        return "kopf" in (entry / "cmdline").read_text() and container in (entry / "cgroup").read_text()
    except OSError:
        return False


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print figures that tests measured: those that depend on the machine are reported, not asserted."""
    for report in terminalreporter.stats.get("passed", []):
        for what, value in report.user_properties if report.when == "call" else ():
            terminalreporter.write_line(f"measured: {what}: {value:.1f}")
