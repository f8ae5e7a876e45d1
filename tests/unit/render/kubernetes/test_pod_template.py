"""podTemplate of tier and site over rendered pods; golden pods of an 8B, a 70B and SmolLM2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tierserve.api import GenAIDeployment
from tierserve.plan.placement import place
from tierserve.render.kubernetes.pod_template import merge
from tierserve.render.kubernetes.ray_service import ray_service, replaces_cluster
from tierserve.render.kubernetes.settings import KubeSettings
from tierserve_serving.sources import local

GOLDEN = Path(__file__).parent / "golden"
EXAMPLES = Path(__file__).parents[4] / "examples"
SMOLLM2 = EXAMPLES / "smollm2.yaml"
INPUTS = {"llama-8b": EXAMPLES / "llama-8b.yaml", "llama-70b": GOLDEN / "llama-70b.yaml", "smollm2": SMOLLM2}
Node = dict[str, Any]


def rendered(document: Node, pool: int = 0) -> Node:
    """The RayService of a pool."""
    gaid = GenAIDeployment.model_validate(document)
    return ray_service(gaid, place(gaid)[pool], KubeSettings())


def pods(service: Node) -> tuple[Node, Node]:
    """Templates of the head and of the workers."""
    cluster = service["spec"]["rayClusterConfig"]
    return cluster["headGroupSpec"]["template"], cluster["workerGroupSpecs"][0]["template"]


def with_template(template: Node, **tier: Any) -> Node:
    document: Node = yaml.safe_load(SMOLLM2.read_text())
    document["spec"]["tiers"][0] |= {"podTemplate": template, **tier}
    return document


def worker(template: Node, **tier: Any) -> Node:
    return pods(rendered(with_template(template, **tier)))[1]


def container(resources: Node) -> Node:
    spec = worker({"spec": {"containers": [{"name": "ray-worker", "resources": resources}]}})["spec"]
    found: Node = spec["containers"][0]["resources"]
    return found


@pytest.mark.parametrize("name", INPUTS)
def test_pods_and_serve_configuration_are_those_of_the_golden_file(name: str, request: pytest.FixtureRequest) -> None:
    document = yaml.safe_load(INPUTS[name].read_text())
    sites = document["spec"]["tiers"][0].get("sites", [{"name": "default"}])
    found = {site["name"]: rendered(document, number)["spec"] for number, site in enumerate(sites)}
    for spec in found.values():
        application = json.loads(spec.pop("serveConfigV2"))["applications"][0]
        spec["replica"] = application["deployments"][0]["ray_actor_options"]
    golden = GOLDEN / f"{name}.rendered.yaml"
    text = yaml.safe_dump(json.loads(json.dumps(found)), sort_keys=True, width=120)
    assert golden.read_text() == text, f"write {golden.name} anew if the change is intended"


def test_maps_merge_and_lists_merge_by_their_key() -> None:
    base = {"a": {"x": 1, "y": 2}, "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}], "args": ["a"]}
    patch = {"a": {"y": 3}, "env": [{"name": "B", "value": "4"}, {"name": "C"}], "args": ["b"]}
    assert merge(base, patch) == {
        "a": {"x": 1, "y": 3},
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "4"}, {"name": "C"}],
        "args": ["b"],
    }
    assert base["env"][1] == {"name": "B", "value": "2"}, "unchanged"


def test_the_site_takes_precedence_over_the_tier() -> None:
    sites = [{"name": "a", "podTemplate": {"spec": {"priorityClassName": "low", "nodeSelector": {"rack": "7"}}}}]
    spec = worker({"spec": {"priorityClassName": "high", "schedulerName": "volcano"}}, sites=sites)["spec"]
    assert (spec["priorityClassName"], spec["schedulerName"]) == ("low", "volcano")
    assert spec["nodeSelector"] == {"tierserve.io/tier": "edge", "tierserve.io/site": "a", "rack": "7"}


def test_containers_of_ray_stay_first_and_others_are_added_to_workers_only() -> None:
    containers = [{"name": "logs", "image": "fluent-bit"}, {"name": "ray-head", "env": [{"name": "A", "value": "1"}]}]
    template = {"spec": {"initContainers": [{"name": "init", "image": "busybox"}], "containers": containers}}
    head, work = pods(rendered(with_template(template)))
    assert [c["name"] for c in head["spec"]["containers"]] == ["ray-head"]
    assert {"name": "A", "value": "1"} in head["spec"]["containers"][0]["env"]
    assert [c["name"] for c in work["spec"]["containers"]] == ["ray-worker", "logs"]
    assert {"name": "A", "value": "1"} not in work["spec"]["containers"][0]["env"]
    assert ("initContainers" in head["spec"], "initContainers" in work["spec"]) == (False, True)


def test_the_head_has_the_volumes_that_it_mounts_and_keeps_its_service_account() -> None:
    mount = [{"name": "ca", "mountPath": "/ca"}]
    volumes = [{"name": "models", "persistentVolumeClaim": {"claimName": "m"}}, {"name": "ca", "emptyDir": {}}]
    template = {
        "spec": {
            "serviceAccountName": "models",
            "volumes": volumes,
            "containers": [{"name": "ray-head", "volumeMounts": mount}],
        }
    }
    head, work = (pod["spec"] for pod in pods(rendered(with_template(template))))
    assert [v["name"] for v in head["volumes"]] == ["ca"]
    assert [v["name"] for v in work["volumes"]] == ["models", "ca"]
    assert "serviceAccountName" not in head, "KubeRay binds the role of the autoscaler to it"
    assert work["serviceAccountName"] == "models"


def test_a_limit_alone_is_the_request_and_a_request_of_memory_alone_is_the_limit() -> None:
    default = container({})
    assert container({"requests": {"memory": "4Gi"}})["limits"]["memory"] == "4Gi"
    assert container({"limits": {"memory": "3Gi"}})["requests"]["memory"] == "3Gi"
    assert container({"limits": {"cpu": "250m"}})["requests"]["cpu"] == "250m"
    assert container({"requests": {"cpu": 16}})["limits"]["cpu"] == 16
    assert container({"requests": {"cpu": "1"}})["limits"] == default["limits"], "below the default limit"


def test_a_changed_template_replaces_the_pods_also_where_only_an_annotation_changes() -> None:
    before = rendered(with_template({"metadata": {"annotations": {"example.com/restarted-at": "1"}}}))
    after = rendered(with_template({"metadata": {"annotations": {"example.com/restarted-at": "2"}}}))
    assert replaces_cluster(after, before)
    assert not replaces_cluster(before, before)
    assert pods(after)[1]["metadata"]["annotations"]["example.com/restarted-at"] == "2"


@pytest.mark.parametrize(
    ("resource", "of_ray"),
    [
        ("nvidia.com/gpu", "GPU"),
        ("nvidia.com/mig-1g.10gb", "GPU"),
        ("amd.com/gpu", "GPU"),
        ("gpu.intel.com/i915", "GPU"),
        ("gpu.intel.com/xe", "GPU"),
        ("habana.ai/gaudi", "HPU"),
        ("google.com/tpu", "TPU"),
    ],
)
def test_accelerators_of_other_makers_are_requested_from_kubernetes_and_from_ray(resource: str, of_ray: str) -> None:
    document = yaml.safe_load(INPUTS["llama-70b"].read_text())
    document["spec"]["tiers"][0]["accelerator"]["resource"] = resource
    service = rendered(document)
    resources = pods(service)[1]["spec"]["containers"][0]["resources"]
    assert resources["requests"][resource] == resources["limits"][resource] == "4"
    group = service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    assert group["resources"] == {"CPU": "1", "tierserve_replica": "1", of_ray: "4"}
    replica = json.loads(service["spec"]["serveConfigV2"])["applications"][0]["deployments"][0]["ray_actor_options"]
    assert (replica.get("num_gpus"), replica["resources"].get(of_ray)) == ((4, None) if of_ray == "GPU" else (None, 4))


def test_a_claim_is_mounted_read_only_where_the_replica_looks_for_it() -> None:
    document = with_template({})
    document["spec"]["models"][0]["source"] = "pvc://models/llama/q4.gguf"
    spec = pods(rendered(document))[1]["spec"]
    claim = {"claimName": "models", "readOnly": True}
    assert spec["volumes"] == [{"name": "model-source", "persistentVolumeClaim": claim}]
    mount = {"name": "model-source", "mountPath": str(local.CLAIMS / "models"), "readOnly": True}
    assert spec["containers"][0]["volumeMounts"] == [mount]


@pytest.mark.parametrize(
    ("source", "reference"),
    [
        ("oci://registry.example.com:5000/models/tiny:q4", "registry.example.com:5000/models/tiny:q4"),
        ("oci://registry.example.com/tiny:q4/tiny.gguf", "registry.example.com/tiny:q4"),
        (f"oci://registry.example.com/tiny@sha256:{'0' * 64}", f"registry.example.com/tiny@sha256:{'0' * 64}"),
        ("oci://registry.example.com/tiny", None),  # whatever is latest: downloaded
        ("hf://org/tiny/tiny.gguf", None),
    ],
)
def test_an_image_with_a_model_is_mounted_as_a_volume_where_the_tier_says_so(
    source: str, reference: str | None
) -> None:
    document = with_template({}, modelCache={"imageVolume": True})
    document["spec"]["models"][0] |= {"source": source}
    spec = pods(rendered(document))[1]["spec"]
    container = spec["containers"][0]
    if reference is None:
        assert [volume["name"] for volume in spec["volumes"]] == ["model-cache"]
        return
    assert spec["volumes"] == [{"name": "model-image", "image": {"reference": reference, "pullPolicy": "IfNotPresent"}}]
    assert container["volumeMounts"] == [{"name": "model-image", "mountPath": str(local.IMAGE), "readOnly": True}]
    assert {"name": "TIERSERVE_MODEL_IMAGE", "value": source} in container["env"]


@pytest.mark.parametrize(
    ("cache", "volume"),
    [
        ({}, {"emptyDir": {}}),
        ({"maxSize": "20Gi"}, {"emptyDir": {"sizeLimit": "20Gi"}}),
        ({"hostPath": "/models"}, {"hostPath": {"path": "/models", "type": "DirectoryOrCreate"}}),
        ({"claimName": "models"}, {"persistentVolumeClaim": {"claimName": "models"}}),
    ],
)
def test_a_downloaded_model_is_kept_in_the_volume_of_the_tier(cache: Node, volume: Node) -> None:
    document = with_template({}, modelCache=cache)
    document["spec"]["models"][0] |= {"source": "hf://org/model/q4.gguf", "sourceSecretName": "hub"}
    spec = pods(rendered(document))[1]["spec"]
    assert spec["volumes"] == [{"name": "model-cache", **volume}]
    container = spec["containers"][0]
    assert container["envFrom"] == [{"secretRef": {"name": "hub"}}]
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    assert variables["TIERSERVE_MODEL_CACHE"] == container["volumeMounts"][0]["mountPath"]
    of_pod = not {"hostPath", "claimName"} & set(cache)
    assert variables.get("TIERSERVE_MODEL_CACHE_OF_POD") == ("1" if of_pod else None)
    assert variables.get("TIERSERVE_MODEL_CACHE_BYTES") == ("21474836480" if "maxSize" in cache else None)
