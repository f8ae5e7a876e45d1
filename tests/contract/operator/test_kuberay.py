"""What KubeRay's own operator makes of the RayServices that ours renders; no kubelet, so no pod ever runs."""

from __future__ import annotations

import copy
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tierserve.runtime.local.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.apiserver]
EDGE = "assistant-edge-default"


@pytest.fixture(scope="module")
def kuberay_operator(
    request: pytest.FixtureRequest, operator: Any, kuberay: None, script: Any, tmp_path_factory: Any
) -> Iterator[Callable[[], float]]:
    """KubeRay's operator (built first if need be, in the sight of the user), beside ours; gives its reconciles."""
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        binary = script("kube_binaries").kuberay_operator()
    log, port = tmp_path_factory.mktemp("kuberay") / "log", free_port()
    command = [str(binary), f"--metrics-addr=127.0.0.1:{port}", "--health-probe-bind-address=127.0.0.1:0",
               "--enable-leader-election=false", "--use-kubernetes-proxy"]  # fmt: skip
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, env={**os.environ, "KUBECONFIG": str(operator.kubeconfig)}, stdout=sink, stderr=sink
        )

    def reconciles() -> float:
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30, trust_env=False).text
        counted = r'^controller_runtime_reconcile_total\{controller="rayservice[^"]*",result="[^"]*"\} (\S+)'
        return sum(map(float, re.findall(counted, text, re.M)))

    yield reconciles
    process.terminate()
    process.wait(20)
    print(log.read_text(errors="replace")[-5000:])


@pytest.fixture
def clusters(kuberay_operator: None, space: Any, assistant: Any, eventually: Any) -> Any:
    """The example, with the Ray clusters that KubeRay makes for it."""
    space.create(assistant)
    eventually(lambda: len(pods(space, EDGE)) >= 2, "head and worker of the edge", 60.0)
    return space


def pods(space: Any, service: str) -> list[dict[str, Any]]:
    """Pods that KubeRay has made for a RayService."""
    code, found = space.server.get(f"/api/v1/namespaces/{space.name}/pods")
    assert code == 200
    return [p for p in found["items"] if p["metadata"]["labels"]["ray.io/cluster"].startswith(service)]


def pod(space: Any, service: str, kind: str) -> dict[str, Any]:
    return next(p for p in pods(space, service) if p["metadata"]["labels"]["ray.io/node-type"] == kind)


def cluster_of(space: Any, service: str) -> dict[str, Any] | None:
    """The Ray cluster that KubeRay is bringing up for a RayService."""
    status = (space.get("RayService", service) or {}).get("status") or {}
    name = (status.get("pendingServiceStatus") or {}).get("rayClusterName")
    return space.get("RayCluster", name) if name else None


def test_head_and_workers_are_pods_for_the_nodes_of_the_tier(clusters):
    for kind in ("head", "worker"):
        spec = pod(clusters, EDGE, kind)["spec"]
        assert spec["nodeSelector"] == {"tierserve.io/tier": "edge"}
        assert {"key": "tierserve.io/tier", "operator": "Equal", "value": "edge"} in spec["tolerations"]
        assert spec["restartPolicy"] == "Never"


def test_a_worker_offers_ray_one_replica_and_the_labels_that_replicas_ask_for(clusters):
    found = pod(clusters, EDGE, "worker")
    start = " ".join(found["spec"]["containers"][0]["args"])
    assert "ray start" in start
    assert '"tierserve_replica":1' in start
    assert "tierserve.io/tier=edge" in start, "a label of the Ray node"
    assert found["metadata"]["labels"]["tierserve.io/deployment"] == "assistant", "the network policy knows it"


def test_the_head_holds_no_replica_and_has_ray_s_autoscaler_beside_it(clusters):
    containers = pod(clusters, EDGE, "head")["spec"]["containers"]
    assert [c["name"] for c in containers] == ["ray-head", "autoscaler"]
    assert "--num-cpus=0" in " ".join(containers[0]["args"])
    assert {p["name"] for p in containers[0]["ports"]} >= {"serve", "dashboard", "decisions"}


def test_pods_have_the_fields_of_a_pod_template_and_shared_memory_as_large_as_their_memory(
    kuberay_operator, space, assistant, eventually
):
    environment = [{"name": "HF_HUB_OFFLINE", "value": "1"}]
    assistant["spec"]["tiers"][1]["podTemplate"] = {
        "metadata": {"labels": {"team": "chat"}},
        "spec": {
            "schedulerName": "volcano",
            "containers": [
                {"name": "ray-worker", "env": environment, "resources": {"requests": {"memory": "3Gi"}}},
                {"name": "logs", "image": "fluent-bit"},
            ],
        },
    }
    space.create(assistant)
    eventually(lambda: has_pods(space), "head and worker", 60.0)
    worker = pod(space, EDGE, "worker")
    assert worker["metadata"]["labels"]["team"] == "chat"
    assert worker["spec"]["schedulerName"] == pod(space, EDGE, "head")["spec"]["schedulerName"] == "volcano"
    ray, logs = worker["spec"]["containers"]
    assert (ray["name"], logs["name"]) == ("ray-worker", "logs"), "KubeRay starts Ray in the first"
    assert environment[0] in ray["env"]
    shared = next(m["name"] for m in ray["volumeMounts"] if m["mountPath"] == "/dev/shm")
    volume = next(v for v in worker["spec"]["volumes"] if v["name"] == shared)
    assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": "3Gi"}


def test_the_worker_group_has_no_bounds_that_kuberay_would_not_change(clusters, eventually):
    group = eventually(lambda: cluster_of(clusters, EDGE), "a Ray cluster")["spec"]["workerGroupSpecs"][0]
    assert (group["minReplicas"], group["maxReplicas"]) == (0, 100_000), "Ray Serve's own bounds are what counts"


def test_a_change_of_minimum_and_maximum_makes_no_new_ray_cluster(kuberay_operator, clusters, eventually):
    before = eventually(lambda: cluster_of(clusters, EDGE), "a Ray cluster")["metadata"]
    tiers = copy.deepcopy(clusters.get("GenAIDeployment", "assistant")["spec"]["tiers"])
    tiers[1]["replicas"] = {"min": 1, "max": 7}
    clusters.edit("GenAIDeployment", "assistant", {"spec": {"tiers": tiers}})
    eventually(lambda: '"max_replicas": 7' in clusters.get("RayService", EDGE)["spec"]["serveConfigV2"], "the ceiling")
    goal = kuberay_operator() + 3 * len(clusters.names("RayService"))  # it looks at each every two seconds
    eventually(lambda: kuberay_operator() >= goal, "three reconciles of each RayService", 120.0)
    after = cluster_of(clusters, EDGE)["metadata"]
    assert (after["name"], after["uid"]) == (before["name"], before["uid"]), "no new Ray cluster"
    assert clusters.names("RayCluster") == {
        cluster_of(clusters, f"assistant-{pool}")["metadata"]["name"]
        for pool in ("device-default", "edge-default", "cloud-default")
    }


def test_kuberay_s_own_words_reach_the_status(clusters, eventually):
    def told() -> Any:
        found = clusters.get("GenAIDeployment", "assistant")["status"]["pools"]
        return next(p for p in found if p["pool"] == "edge-default").get("message")

    assert eventually(told, "a message")
    assert "is its operator running?" not in eventually(told, "a message")


def set_quota(space: Any, hard: dict[str, str]) -> None:
    """A ResourceQuota with the status that the controller manager, which does not run here, would write."""
    path = f"/api/v1/namespaces/{space.name}/resourcequotas"
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "team"}, "spec": {"hard": hard}}
    code, created = space.server.create(path, quota)
    assert code == 201, created
    created["status"] = {"hard": hard, "used": dict.fromkeys(hard, "0")}
    code, reply = space.server.replace_status(f"{path}/team", created)
    assert code == 200, reply


def gateway_pod(space: Any) -> dict[str, Any]:
    """The pod that the ReplicaSet controller, which does not run here, would create."""
    template = space.get("Deployment", "assistant-gateway")["spec"]["template"]
    return {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {**template["metadata"], "name": "gateway"}}


def has_pods(space: Any) -> bool:
    return {p["metadata"]["labels"]["ray.io/node-type"] for p in pods(space, EDGE)} == {"head", "worker"}


def test_a_namespace_with_the_restricted_standard_admits_every_pod(kuberay_operator, space, assistant, eventually):
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    code, reply = space.server.patch(f"/api/v1/namespaces/{space.name}", {"metadata": {"labels": labels}})
    assert code == 200, reply
    space.create(assistant)
    eventually(lambda: has_pods(space), "head and worker are admitted", 60.0)
    code, reply = space.server.create(f"/api/v1/namespaces/{space.name}/pods", gateway_pod(space), dry_run=True)
    assert code == 201, reply


def test_a_namespace_with_a_quota_of_cpu_and_memory_admits_every_pod(kuberay_operator, space, assistant, eventually):
    hard = {"requests.cpu": "20", "requests.memory": "40Gi", "limits.cpu": "40", "limits.memory": "40Gi"}
    set_quota(space, hard)
    space.create(assistant)
    eventually(lambda: has_pods(space), "head and worker are admitted", 60.0)
    code, reply = space.server.create(f"/api/v1/namespaces/{space.name}/pods", gateway_pod(space), dry_run=True)
    assert code == 201, reply


def test_what_a_quota_refuses_is_in_the_condition_degraded(kuberay_operator, space, assistant, eventually):
    set_quota(space, {"pods": "0"})
    space.create(assistant)

    def message() -> str:
        text: str = space.condition("assistant", "Degraded").get("message", "")
        return text

    eventually(lambda: "exceeded quota: team" in message(), "Degraded names the quota", 30.0)
    assert space.condition("assistant", "Degraded")["status"] == "True"
