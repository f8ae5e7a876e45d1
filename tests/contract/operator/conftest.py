"""The operator as its own process against a real API server; no kubelet, so pods never come."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tierserve.runtime.local.ports import free_port

ROOT = Path(__file__).resolve().parents[3]
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
PATHS = {
    "GenAIDeployment": "/apis/serving.tierserve.io/v1alpha1/namespaces/{}/genaideployments",
    "RayService": "/apis/ray.io/v1/namespaces/{}/rayservices",
    "RayCluster": "/apis/ray.io/v1/namespaces/{}/rayclusters",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Service": "/api/v1/namespaces/{}/services",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "Event": "/api/v1/namespaces/{}/events",
    "Pod": "/api/v1/namespaces/{}/pods",
}


@dataclass
class OperatorProcess:
    """`kopf run` with what a kubeconfig gives."""

    kubeconfig: Path
    log: Path
    namespaces: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    health: str = ""
    metrics_port: int = 0
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        where = [f"--namespace={one}" for one in self.namespaces] or ["--all-namespaces"]
        self.health = f"http://127.0.0.1:{free_port()}/healthz"
        self.metrics_port = free_port()
        command = [sys.executable, "-m", "kopf", "run", "--standalone", *where, "-m", "tierserve.controller.handlers",
                   f"--liveness={self.health}"]  # fmt: skip
        own = {"KUBECONFIG": str(self.kubeconfig), "TIERSERVE_RESYNC_PERIOD": "1"}
        own["TIERSERVE_METRICS_PORT"] = str(self.metrics_port)
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                command, env={**os.environ, **own, **self.environment}, stdout=sink, stderr=subprocess.STDOUT
            )

    def reconciles(self) -> float:
        """Reconciles of all resources that were completed without an error."""
        text = httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=30).text
        found = re.search(r'^tierserve_reconcile_total\{result="success"\} (\S+)', text, re.M)
        return float(found[1]) if found else 0.0

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)


@dataclass
class Namespace:
    """One namespace of the API server, by kind and name."""

    server: Any
    name: str

    def path(self, kind: str, name: str = "") -> str:
        return PATHS[kind].format(self.name) + (f"/{name}" if name else "")

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        code, found = self.server.get(self.path(kind, name))
        return found if code == 200 else None

    def names(self, kind: str) -> set[str]:
        code, found = self.server.get(self.path(kind))
        return {item["metadata"]["name"] for item in found["items"]} if code == 200 else set()

    def create(self, document: Mapping[str, Any]) -> None:
        code, reply = self.server.create(self.path(document["kind"]), document)
        assert code == 201, reply.get("message")

    def edit(self, kind: str, name: str, patch: Mapping[str, Any]) -> None:
        code, reply = self.server.patch(self.path(kind, name), patch)
        assert code == 200, reply.get("message")

    def condition(self, name: str, kind: str) -> dict[str, Any]:
        found = self.get("GenAIDeployment", name) or {}
        conditions = (found.get("status") or {}).get("conditions", ())
        return next((c for c in conditions if c["type"] == kind), {})


def until(true: Callable[[], Any], what: str, limit_s: float = 30.0) -> Any:
    """Wait for something to become true, and return it."""
    end = time.monotonic() + limit_s
    while not (found := true()):
        assert time.monotonic() < end, f"not within {limit_s:g} s: {what}"
        time.sleep(0.1)
    return found


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Any]:
    return until


MakeOperator = Callable[..., OperatorProcess]


@pytest.fixture(scope="session")
def make_operator() -> MakeOperator:
    """An operator for an API server and a token: of some namespaces, or of all."""

    def make(
        folder: Path, url: str, certificate: Path | None, token: str = "", namespaces: tuple[str, ...] = ()
    ) -> OperatorProcess:
        cluster = {"server": url} | ({"certificate-authority": str(certificate)} if certificate else {})
        kubeconfig = {
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": cluster}],
            "users": [{"name": "me", "user": {"token": token}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        }  # fmt: skip
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump(kubeconfig))
        return OperatorProcess(path, folder / "operator.log", namespaces)

    return make


@pytest.fixture(scope="module")  # it must be gone when other modules run operators of their own
def operator(
    apiserver: Any, make_operator: MakeOperator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    """One operator for all namespaces, with the rights of the administrator."""
    folder = tmp_path_factory.mktemp("operator")
    process = make_operator(folder, apiserver.url, apiserver.certificate, apiserver.token)
    process.start()
    yield process
    process.stop()
    sys.stdout.write(process.log.read_text(errors="replace")[-20_000:])


@pytest.fixture(scope="session")
def space_of(apiserver: Any) -> Callable[[str], Namespace]:
    """A namespace by name."""
    return lambda name: Namespace(apiserver, name)


@pytest.fixture
def space(apiserver: Any, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """A namespace of the test's own."""
    name = f"t{abs(hash(request.node.name)) % 10**8}"
    code, reply = apiserver.create(
        "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    )
    assert code == 201, reply
    yield Namespace(apiserver, name)
    for one in Namespace(apiserver, name).names("GenAIDeployment"):
        apiserver.delete(PATHS["GenAIDeployment"].format(name) + f"/{one}")


@pytest.fixture(scope="module")
def kuberay(apiserver: Any, script: Callable[[str], Any]) -> None:
    """KubeRay's CRDs."""
    for file in script("kube_binaries").kuberay_crds():
        code, reply = apiserver.create(DEFINITIONS, yaml.safe_load(file.read_text()))
        assert code in (201, 409), reply.get("message")
    until(lambda: apiserver.get("/apis/ray.io/v1/rayservices")[0] == 200, "RayServices are served")


@pytest.fixture(scope="session")
def definitions() -> str:
    """Path of the CustomResourceDefinitions."""
    return DEFINITIONS


@pytest.fixture
def assistant(space: Namespace) -> dict[str, Any]:
    """The example of the demo, in the test's namespace."""
    document: dict[str, Any] = yaml.safe_load((ROOT / "examples" / "assistant.yaml").read_text())
    document["metadata"]["namespace"] = space.name
    return document
