"""Pods with a podTemplate, before a real API server and KubeRay's CRDs: what is rendered is valid, typing errors are
reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tierserve.api import GenAIDeployment
from tierserve.plan.placement import place
from tierserve.render.kubernetes.ray_service import ray_service
from tierserve.render.kubernetes.settings import KubeSettings

pytestmark = [pytest.mark.slow, pytest.mark.apiserver]
ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests/unit/render/kubernetes/golden"
DOCUMENTS = [ROOT / "examples/llama-8b.yaml", GOLDEN / "llama-70b.yaml", ROOT / "examples/smollm2.yaml"]
EDGE = "assistant-edge-default"


IN_AN_IMAGE = {"source": "oci://registry.example.com/models/smollm2:q4"}


def rendered(file: Path, namespace: str) -> list[dict[str, Any]]:
    if file.stem == "image-volume":
        document = yaml.safe_load((ROOT / "examples/smollm2.yaml").read_text())
        document["spec"]["models"][0] |= IN_AN_IMAGE
        document["spec"]["tiers"][0]["modelCache"] = {"imageVolume": True}
    else:
        document = yaml.safe_load(file.read_text())
    document["metadata"] |= {"namespace": namespace, "uid": "0a1b"}
    gaid = GenAIDeployment.model_validate(document)
    return [ray_service(gaid, placement, KubeSettings()) for placement in place(gaid)]


@pytest.mark.parametrize("file", [*DOCUMENTS, Path("image-volume")], ids=lambda file: file.stem)
def test_the_api_server_takes_every_rendered_ray_service_and_pod(kuberay: None, space: Any, file: Path) -> None:
    path = f"/api/v1/namespaces/{space.name}/serviceaccounts"
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "models"}}
    assert space.server.create(path, account)[0] == 201
    for name in ("serving", "batch"):
        kind = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": 1}
        assert space.server.create("/apis/scheduling.k8s.io/v1/priorityclasses", kind)[0] in (201, 409)
    for service in rendered(file, space.name):
        code, reply = space.server.create(space.path("RayService"), service, dry_run=True)
        assert code == 201, reply.get("message")
        cluster = service["spec"]["rayClusterConfig"]
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            template = group["template"]
            pod = {"apiVersion": "v1", "kind": "Pod", **template}
            pod["metadata"] = {**template["metadata"], "generateName": "test-", "namespace": space.name}
            code, reply = space.server.create(space.path("Pod"), pod, dry_run=True)
            assert code == 201, reply.get("message")


def test_a_field_below_the_template_that_no_pod_has_is_in_the_condition_degraded(
    operator: Any, kuberay: None, space: Any, assistant: dict[str, Any], eventually: Any
) -> None:
    assistant["spec"]["tiers"][1]["podTemplate"] = {"spec": {"affinity": {"nodeAfinity": {}}}}
    space.create(assistant)

    def reported() -> Any:
        condition = space.condition("assistant", "Degraded")
        return "nodeAfinity" in condition.get("message", "") and condition

    assert eventually(reported, "the field is named")["status"] == "True"
    assert EDGE not in space.names("RayService")
    spec = assistant["spec"] | {"tiers": [dict(tier) for tier in assistant["spec"]["tiers"]]}
    spec["tiers"][1]["podTemplate"] = {"spec": {"affinity": {"nodeAffinity": {}}}}
    space.edit("GenAIDeployment", "assistant", {"spec": {"tiers": spec["tiers"]}})
    eventually(lambda: EDGE in space.names("RayService"), "it is applied once the field is right")
