"""The console on a real API server, with the chart's rights: follows changes, and may change nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tierserve.runtime.local.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.apiserver, pytest.mark.helm]
ROOT = Path(__file__).resolve().parents[3]
RBAC = "/apis/rbac.authorization.k8s.io/v1"
COLLECTIONS = {
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "ClusterRole": f"{RBAC}/clusterroles",
    "ClusterRoleBinding": f"{RBAC}/clusterrolebindings",
}
NAMESPACE = "console-of-the-chart"
MAY = [("get", True), ("list", True), ("watch", True), ("create", False), ("patch", False), ("delete", False)]


@pytest.fixture(scope="module")
def account(request: pytest.FixtureRequest, apiserver: Any, script: Any) -> str:
    """The console's ServiceAccount with the chart's rights."""
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        helm = script("kube_binaries").helm()
    command = [str(helm), "template", "seen", str(ROOT / "charts" / "tierserve"), "--namespace", NAMESPACE,
               "--kube-version", "1.34.4", "--set", "console.enabled=true",
               "--show-only", "templates/console.yaml"]  # fmt: skip
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    assert apiserver.create("/api/v1/namespaces", body)[0] == 201
    objects = [one for one in yaml.safe_load_all(text) if one and one["kind"] in COLLECTIONS]
    for one in objects:
        code, reply = apiserver.create(COLLECTIONS[one["kind"]].format(NAMESPACE), one)
        assert code == 201, reply
    return next(str(one["metadata"]["name"]) for one in objects if one["kind"] == "ServiceAccount")


@pytest.fixture(scope="module")
def console(account: str, apiserver: Any, make_operator: Any, tmp_path_factory: Any) -> Iterator[httpx.Client]:
    """A client of `tierserve console --kubernetes` as that account."""
    code, reply = apiserver.create(
        f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token",
        {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}},
    )
    assert code == 201, reply
    folder, port = tmp_path_factory.mktemp("console"), free_port()
    token = reply["status"]["token"]
    kubeconfig = make_operator(folder, apiserver.url, apiserver.certificate, token).kubeconfig
    command = [sys.executable, "-m", "tierserve.cli.main", "console", "--kubernetes", "--port", str(port)]
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert f":{port}/" in process.stdout.readline()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
        yield client
    process.terminate()
    process.wait(20)


def row(console: httpx.Client, namespace: str) -> dict[str, Any]:
    rows = console.get("/api/services", params={"text": f"{namespace}/"}).json()["services"]
    return next((dict(one) for one in rows if one["namespace"] == namespace), {})


@pytest.mark.parametrize(("verb", "allowed"), MAY)
def test_its_account_may_read_services_and_nothing_else(apiserver, account, verb, allowed):
    user = f"system:serviceaccount:{NAMESPACE}:{account}"

    def may(group: str, resource: str) -> bool:
        asked = {"group": group, "resource": resource, "verb": verb, "namespace": "default"}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
                "spec": {"user": user, "resourceAttributes": asked}}  # fmt: skip
        return bool(
            apiserver.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", body)[1]["status"]["allowed"]
        )

    assert may("serving.tierserve.io", "genaideployments") is allowed
    for group, resource in (("", "secrets"), ("", "pods"), ("", "configmaps"), ("apps", "deployments")):
        assert not may(group, resource)


def test_it_follows_a_service_from_its_creation_to_its_deletion(console, apiserver, space, assistant, eventually):
    space.create(assistant)
    found = eventually(lambda: row(console, space.name), "the service is listed")
    assert (found["targetSeconds"], found["running"]) == (1.5, None)
    path = space.path("GenAIDeployment", "assistant")
    resource = apiserver.get(path)[1]
    pool = {"pool": "edge-default", "tier": "edge", "site": "default", "running": 2, "desired": 3}
    resource["status"] = {"ready": "True", "pools": [pool]}
    code, reply = apiserver.replace_status(path, resource)
    assert code == 200, reply
    eventually(lambda: (r := row(console, space.name))["running"] == 2 and r["desired"] == 3, "its replicas")
    question = {"namespace": space.name, "name": "assistant", "connections": 300, "thinkSeconds": 20}
    plan = console.post("/api/what-if", json=question)
    assert plan.status_code == 200, plan.text
    assert plan.json()["replicas"] >= 3
    assert apiserver.delete(path) == 200
    eventually(lambda: not row(console, space.name), "it is gone")
