"""The chart's rights on a real API server with RBAC: enough for the operator, and no more."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.apiserver, pytest.mark.helm]
ROOT = Path(__file__).resolve().parents[3]
RBAC = "/apis/rbac.authorization.k8s.io/v1"
COLLECTIONS = {
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "ClusterRole": f"{RBAC}/clusterroles",
    "ClusterRoleBinding": f"{RBAC}/clusterrolebindings",
    "Role": RBAC + "/namespaces/{}/roles",
    "RoleBinding": RBAC + "/namespaces/{}/rolebindings",
}
MAY_NOT = [
    ("", "secrets", "get"), ("", "secrets", "list"), ("", "pods", "create"), ("", "namespaces", "delete"),
    ("", "nodes", "patch"), ("apps", "daemonsets", "create"), ("serving.tierserve.io", "genaideployments", "delete"),
    ("serving.tierserve.io", "genaideployments", "patch"), ("rbac.authorization.k8s.io", "clusterroles", "create"),
    ("apiextensions.k8s.io", "customresourcedefinitions", "create"), ("batch", "jobs", "create"),
]  # fmt: skip


@pytest.fixture(scope="module", params=["cluster", "namespaces"])
def installed(
    request: pytest.FixtureRequest,
    apiserver: Any,
    kuberay: None,
    script: Any,
    make_operator: Any,
    tmp_path_factory: Any,
) -> Iterator[tuple[Any, str, str]]:
    """The operator as the chart's service account in a namespace of its own; (API server, namespace, account)."""
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        helm = script("kube_binaries").helm()
    namespace = f"rbac-{request.param}"
    second = f"{namespace}-2"
    watched = (namespace, second) if request.param == "namespaces" else ()
    command = [str(helm), "template", request.param, str(ROOT / "charts" / "tierserve"), "--namespace", namespace,
               "--kube-version", "1.34.4", "--set-json", f"watchNamespaces={json.dumps(watched)}"]  # fmt: skip
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name in (namespace, second):
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        assert apiserver.create("/api/v1/namespaces", body)[0] == 201
    account = ""
    for one in yaml.safe_load_all(text):
        if one and one["kind"] in COLLECTIONS:
            path = COLLECTIONS[one["kind"]].format(one["metadata"].get("namespace"))
            code, reply = apiserver.create(path, one)
            assert code == 201, reply
            account = one["metadata"]["name"] if one["kind"] == "ServiceAccount" else account
    code, reply = apiserver.create(
        f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token",
        {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}},
    )
    assert code == 201, reply
    process = make_operator(
        tmp_path_factory.mktemp("rbac"), apiserver.url, apiserver.certificate, reply["status"]["token"],
        namespaces=watched,
    )  # fmt: skip
    process.start()
    yield apiserver, namespace, account
    process.stop()
    print(process.log.read_text(errors="replace")[-8000:])


def may(server: Any, user: str, asked: dict[str, str]) -> bool:
    """Whether a user may do something, in the API server's own judgement."""
    spec = {"user": user, "resourceAttributes": asked}
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    code, reply = server.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", body)
    assert code == 201, reply
    allowed: bool = reply["status"]["allowed"]
    return allowed


def test_it_is_enough_to_make_a_service_and_to_tell_its_status(installed, space_of, eventually):
    _, namespace, _ = installed
    space = space_of(namespace)
    document = yaml.safe_load((ROOT / "examples" / "assistant.yaml").read_text())
    document["metadata"]["namespace"] = namespace
    space.create(document)
    eventually(lambda: space.condition("assistant", "Ready"), "a status", 60.0)
    eventually(lambda: len(space.names("RayService")) == 3, "a RayService for each pool")
    for kind in ("Deployment", "ConfigMap", "PodDisruptionBudget"):
        assert space.get(kind, "assistant-gateway"), kind
    assert "forbidden" not in space.condition("assistant", "Degraded")["message"]
    assert space.names("Event"), "and to post events"
    spec = space.get("GenAIDeployment", "assistant")["spec"]
    tiers = [tier for tier in spec["tiers"] if tier["name"] != "edge"]
    routing = {**spec["routing"], "overflow": ["cloud"]}
    space.edit("GenAIDeployment", "assistant", {"spec": {"tiers": tiers, "routing": routing}})
    eventually(lambda: len(space.names("RayService")) == 2, "and to delete what is no longer desired")


def test_each_of_the_watched_namespaces_is_reconciled(installed, space_of, eventually):
    _, namespace, _ = installed
    space = space_of(f"{namespace}-2")
    document = yaml.safe_load((ROOT / "examples" / "assistant.yaml").read_text())
    document["metadata"]["namespace"] = space.name
    space.create(document)
    eventually(lambda: space.condition("assistant", "Ready"), "a status", 60.0)
    eventually(lambda: len(space.names("RayService")) == 3, "a RayService for each pool")


@pytest.mark.parametrize(("group", "resource", "verb"), MAY_NOT)
def test_it_is_no_more_than_that(installed, group, resource, verb):
    server, namespace, account = installed
    user = f"system:serviceaccount:{namespace}:{account}"
    assert not may(server, user, {"group": group, "resource": resource, "verb": verb, "namespace": namespace})


def test_for_a_list_of_namespaces_it_may_do_nothing_in_another(installed):
    server, namespace, account = installed
    user = f"system:serviceaccount:{namespace}:{account}"
    asked = {"group": "ray.io", "resource": "rayservices", "verb": "create"}
    allowed = {
        where: may(server, user, {**asked, "namespace": where}) for where in (namespace, f"{namespace}-2", "default")
    }
    assert allowed == {namespace: True, f"{namespace}-2": True, "default": namespace == "rbac-cluster"}
