"""One pool -> one RayService of KubeRay: a Ray cluster of its own on the nodes of its tier (pure).

Floors, ceilings and the policy's settings are in serveConfigV2 alone, which KubeRay hands on without a new cluster. The
worker group has no bounds of its own: KubeRay 1.6 does not carry changes of minReplicas and maxReplicas from a
RayService to its RayCluster, so a ceiling there could never be raised. The number of workers is Ray's own autoscaler's
business: it makes a pod for each replica that the policy wants.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tierserve.api import GenAIDeployment
from tierserve.plan.placement import Placement
from tierserve.render.kubernetes.metadata import (
    DEPLOYMENT,
    Object,
    agents_name,
    child_name,
    common_labels,
    kube_object,
    own_and_inherited,
    pool_labels,
    ray_service_name,
)
from tierserve.render.kubernetes.scheduling import accelerators, scheduling
from tierserve.render.kubernetes.settings import (
    AGENT_PORT,
    CONTAINER_SECURITY,
    DASHBOARD_PORT,
    DECISIONS_PORT,
    POD_SECURITY,
    RAY_METRICS_PORT,
    SERVE_PORT,
    KubeSettings,
    container_resources,
)
from tierserve.render.serve import RELOADS, ServeTarget, labels, serve_config

REPLICA = "tierserve_replica"
"""Ray's resource of which a worker pod has one and a replica takes one: a pod for each replica."""
WORKERS = "replicas"
CLUSTER_HASH, GENERATION = "tierserve.io/cluster-hash", "tierserve.io/generation"
"""Annotations of a RayService: of the Ray cluster that it asks for, and of the resource that it was rendered from."""
MOST_WORKERS = 100_000


def ray_service(gaid: GenAIDeployment, placement: Placement, settings: KubeSettings) -> Object:
    """The RayService of a pool."""
    marks = pool_labels(gaid.name, placement)
    config = serve_config(gaid.name, [placement], _target(gaid, placement, settings))
    cluster = {
        "rayVersion": settings.ray_version,
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": _autoscaler(settings),
        **_fault_tolerance(settings),
        "headGroupSpec": _head(gaid, placement, settings, marks),
        "workerGroupSpecs": [_workers(gaid, placement, settings, marks)],
    }
    found = kube_object(
        gaid, "ray.io/v1", "RayService", ray_service_name(gaid.name, placement), marks,
        spec={
            # JSON is YAML, and the same configuration must always be the same text.
            "serveConfigV2": json.dumps(config, sort_keys=True, indent=1),
            "upgradeStrategy": {"type": "NewCluster"},
            # The old cluster answers what it has begun; new requests go to the new one as soon as that serves.
            "rayClusterDeletionDelaySeconds": math.ceil(gaid.spec.gateway.response_timeout.value),
            "rayClusterConfig": cluster,
        },
    )  # fmt: skip
    found["metadata"].setdefault("annotations", {})
    found["metadata"]["annotations"] |= {
        CLUSTER_HASH: _cluster_hash(cluster),
        GENERATION: str(gaid.metadata.generation or 0),
    }
    return found


def _cluster_hash(cluster: Mapping[str, Any]) -> str:
    """Of what makes KubeRay replace the Ray cluster, without the metadata of its pods."""
    bare = copy.deepcopy(dict(cluster))
    for group in _groups(bare):
        group.pop("replicas", None)
        group["template"].pop("metadata")
        group["template"]["spec"].pop("tolerations", None)
    return hashlib.sha256(json.dumps(bare, sort_keys=True).encode()).hexdigest()[:16]


def _groups(cluster: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def replaces_cluster(desired: Object, live: Mapping[str, Any]) -> bool:
    """Whether KubeRay would make a new Ray cluster for `desired` in place of that of `live`."""
    annotations = live["metadata"].get("annotations") or {}
    before = annotations.get(CLUSTER_HASH)
    return before is not None and before != desired["metadata"]["annotations"][CLUSTER_HASH]


def with_pod_metadata_of(desired: Object, live: Mapping[str, Any]) -> Object:
    """`desired` with the pods' labels and annotations of `live`, unless the Ray cluster is replaced anyway.

    KubeRay makes a new cluster for a changed label of a pod: a team's new name would take every accelerator twice.
    """
    annotations = live["metadata"].get("annotations") or {}
    if CLUSTER_HASH not in annotations or replaces_cluster(desired, live):
        return desired
    kept = copy.deepcopy(desired)
    groups = (_groups(one["spec"]["rayClusterConfig"]) for one in (kept, live))
    for group, before in zip(*groups, strict=True):
        metadata = before["template"].get("metadata") or {}
        group["template"]["metadata"] = {
            name: dict(metadata[name]) for name in ("labels", "annotations") if metadata.get(name)
        }
    return kept


def head_budget(gaid: GenAIDeployment, placements: Sequence[Placement]) -> tuple[Object, ...]:
    """PodDisruptionBudget: of the heads of a service one at a time is evicted. None for a single head.

    Kubernetes takes only a number in minAvailable for pods whose controller has no scale. For a single head that would
    be 1, which keeps a node from ever being drained.
    """
    if len(placements) < 2:
        return ()
    selector = {DEPLOYMENT: gaid.name, "ray.io/node-type": "head"}
    return (
        kube_object(
            gaid, "policy/v1", "PodDisruptionBudget", child_name(gaid.name, "heads"), common_labels(gaid.name, "tier"),
            spec={"minAvailable": len(placements) - 1, "selector": {"matchLabels": selector}},
        ),
    )  # fmt: skip


def head_host(gaid: GenAIDeployment, placement: Placement) -> str:
    """Name of the Service that KubeRay keeps in front of the head of the active cluster."""
    return f"{ray_service_name(gaid.name, placement)}-head-svc.{gaid.metadata.namespace or 'default'}.svc"


def serve_host(gaid: GenAIDeployment, placement: Placement) -> str:
    """Name of the Service that KubeRay keeps in front of the pods that can serve."""
    return f"{ray_service_name(gaid.name, placement)}-serve-svc.{gaid.metadata.namespace or 'default'}.svc"


def _target(gaid: GenAIDeployment, placement: Placement, settings: KubeSettings) -> ServeTarget:
    agents = f"{agents_name(gaid.name)}.{gaid.metadata.namespace or 'default'}.svc"
    needs = accelerators(gaid, placement)
    return ServeTarget(
        http_host=_serve_address(settings),
        http_port=SERVE_PORT,
        decisions_address=f":{DECISIONS_PORT}",
        demand_urls={placement.pool: f"http://{agents}:{AGENT_PORT}/pools/{placement.pool}"},
        response_timeout_s=gaid.spec.gateway.response_timeout.value,
        proxy_location="EveryNode",
        replica_resources={REPLICA: 1},
        replica_gpus=needs[1] if needs else 0,
        # A pool that may grow has nodes for one more. One that may not is replaced where it is, and requests go on to
        # the next tier: waiting for a node that never comes would leave the old version for good.
        surge=placement.max_replicas > placement.min_replicas,
    )


def _any_address(settings: KubeSettings) -> str:
    """All addresses of the family of pods: Ray's dashboard listens on one family only."""
    return "::" if settings.ip_family == "IPv6" else "0.0.0.0"  # noqa: S104 (in a pod)


def _serve_address(settings: KubeSettings) -> str:
    """The same for Ray Serve: of `::` it makes `*` in the file of its HAProxy, which is IPv4 only; not of `::0`."""
    return "::0" if settings.ip_family == "IPv6" else _any_address(settings)


def _autoscaler(settings: KubeSettings) -> dict[str, Any]:
    return {
        "version": "v2",
        "idleTimeoutSeconds": settings.idle_timeout_s,
        "imagePullPolicy": settings.image_pull_policy,
        "resources": {
            "requests": {"cpu": "100m", "memory": "256Mi"},
            "limits": {"cpu": "500m", "memory": "512Mi"},  # as KubeRay's own default
        },
        "securityContext": dict(CONTAINER_SECURITY),
    }


def _fault_tolerance(settings: KubeSettings) -> dict[str, Any]:
    """Where Ray's control keeps its state, if not in the head alone."""
    if not settings.gcs_redis_address:
        return {}
    options: dict[str, Any] = {"redisAddress": settings.gcs_redis_address}
    if settings.gcs_redis_secret:
        secret = {"name": settings.gcs_redis_secret, "key": "password"}
        options["redisPassword"] = {"valueFrom": {"secretKeyRef": secret}}
    return {"gcsFaultToleranceOptions": options}


def _head(gaid: GenAIDeployment, placement: Placement, settings: KubeSettings, marks: dict[str, str]) -> dict[str, Any]:
    ports = {
        "gcs": 6379, "dashboard": DASHBOARD_PORT, "metrics": RAY_METRICS_PORT, "serve": SERVE_PORT,
        "decisions": DECISIONS_PORT,
    }  # fmt: skip
    requests = {"cpu": settings.head_cpu, "memory": settings.head_memory}
    container = {
        **_container("ray-head", settings),
        "ports": [{"name": name, "containerPort": port} for name, port in ports.items()],
        "resources": container_resources(requests, cpu_limit=settings.head_cpu_limit),
    }
    return {
        # No replica runs beside the control of the cluster.
        "rayStartParams": {"num-cpus": "0", "num-gpus": "0", "dashboard-host": _any_address(settings)},
        "template": _pod(gaid, placement, settings, marks, container),
    }


def _workers(
    gaid: GenAIDeployment, placement: Placement, settings: KubeSettings, marks: dict[str, str]
) -> dict[str, Any]:
    needs = accelerators(gaid, placement)
    devices = {needs[0]: str(needs[1])} if needs else {}
    requests = {"cpu": settings.worker_cpu, "memory": settings.worker_memory, **devices}
    container = {
        **_container("ray-worker", settings),
        "ports": [
            {"name": "serve", "containerPort": SERVE_PORT},
            {"name": "metrics", "containerPort": RAY_METRICS_PORT},
        ],
        "resources": container_resources(requests, cpu_limit=settings.worker_cpu_limit),
    }
    return {
        "groupName": WORKERS,
        "replicas": placement.min_replicas,  # at the start; then the autoscaler's
        "minReplicas": 0,
        "maxReplicas": MOST_WORKERS,
        "labels": labels(placement, gaid.name),
        "resources": {"CPU": "1", REPLICA: "1", **({"GPU": str(needs[1])} if needs else {})},
        "rayStartParams": {},
        "template": _pod(gaid, placement, settings, marks, container),
    }


def _container(name: str, settings: KubeSettings) -> dict[str, Any]:
    return {
        "name": name,
        "image": settings.serving_image,
        "imagePullPolicy": settings.image_pull_policy,
        "securityContext": dict(CONTAINER_SECURITY),
        "env": [
            {"name": "RAY_SERVE_ENABLE_HA_PROXY", "value": "1"},
            {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"},
            # Ray gives up after 30 s, which a busy node takes; the pod would be made anew, and be later still.
            {"name": "RAY_raylet_start_wait_time_s", "value": "120"},
            # What a replica says of itself at its start is 108 KB in Serve 2.60 (its router's class by value). Above
            # Ray's 100 KB it lies in the node's object store for good, and the autoscaler never finds the node idle.
            {"name": "RAY_max_direct_call_object_size", "value": "1048576"},
            *({"name": name, "value": value} for name, value in RELOADS.items()),
        ],
    }


def _pod(
    gaid: GenAIDeployment,
    placement: Placement,
    settings: KubeSettings,
    marks: dict[str, str],
    container: dict[str, Any],
) -> dict[str, Any]:
    spec: dict[str, Any] = {
        **scheduling(gaid, placement),
        "securityContext": dict(POD_SECURITY),
        "containers": [container],
        "restartPolicy": "Never",  # as Ray's autoscaler v2 wants it: it replaces pods, the kubelet does not
    }
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    # The name is KubeRay's: the Service of the active head selects pods by it, and would have none otherwise.
    own = {key: value for key, value in marks.items() if key != "app.kubernetes.io/name"}
    return {"metadata": own_and_inherited(gaid, own), "spec": spec}
