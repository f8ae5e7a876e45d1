"""RayService of a pool: its own Ray cluster on the nodes of its tier (pure).

Minimum and maximum of replicas and the policy's settings are in serveConfigV2 only, which KubeRay applies without a new
cluster. The worker group has no such bounds: KubeRay 1.6 does not copy changes of minReplicas and maxReplicas from a
RayService to its RayCluster, so a maximum there could never be raised. Ray's own autoscaler sets the number of workers:
it creates a pod for each replica that the policy requests.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tierserve.api import GenAIDeployment, Quantity
from tierserve.plan.hardware import Tokens, host_bytes
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
from tierserve.render.kubernetes.model_source import source_fields
from tierserve.render.kubernetes.pod_template import pod_template, with_template
from tierserve.render.kubernetes.scheduling import accelerators, ray_accelerators, scheduling
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
    cores,
)
from tierserve.render.serve import RAY_HAPROXY_ENV, ServeTarget, node_labels, serve_config

REPLICA = "tierserve_replica"
"""Custom resource of Ray: a worker pod provides 1 and a replica requires 1, so there is one pod per replica."""
WORKERS = "replicas"
CLUSTER_HASH, GENERATION = "tierserve.io/cluster-hash", "tierserve.io/generation"
"""Annotations of a RayService: hash of its rayClusterConfig, and generation of the GenAIDeployment that it is of."""
MEMORY_STEP = 256 * 2**20
MAX_WORKERS = 100_000
"""maxReplicas of the worker group, which the API requires: higher than any maximum in serveConfigV2."""


def ray_service(gaid: GenAIDeployment, placement: Placement, settings: KubeSettings) -> Object:
    """The RayService of a pool."""
    labels = pool_labels(gaid.name, placement)
    config = serve_config(gaid.name, [placement], _target(gaid, placement, settings))
    cluster = {
        "rayVersion": settings.ray_version,
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": _autoscaler(settings),
        **_fault_tolerance(settings),
        "headGroupSpec": _head(gaid, placement, settings, labels),
        "workerGroupSpecs": [_workers(gaid, placement, settings, labels)],
    }
    service = kube_object(
        gaid, "ray.io/v1", "RayService", ray_service_name(gaid.name, placement), labels,
        spec={
            # JSON is YAML; keys sorted, so that an unchanged configuration is unchanged text.
            "serveConfigV2": json.dumps(config, sort_keys=True, indent=1),
            "upgradeStrategy": {"type": "NewCluster"},
            # The old cluster finishes the requests it has; new ones go to the new cluster once that is ready.
            "rayClusterDeletionDelaySeconds": math.ceil(gaid.spec.gateway.response_timeout.value),
            "rayClusterConfig": cluster,
        },
    )  # fmt: skip
    service["metadata"].setdefault("annotations", {})
    service["metadata"]["annotations"] |= {
        CLUSTER_HASH: _cluster_hash(cluster, pod_template(gaid, placement).get("metadata", {})),
        GENERATION: str(gaid.metadata.generation or 0),
    }
    return service


def _cluster_hash(cluster: Mapping[str, Any], template_metadata: Mapping[str, Any]) -> str:
    """Hash of the fields whose change makes KubeRay replace the Ray cluster, without the inherited metadata of pods.

    Metadata of podTemplate count, as in the template of a Deployment: an annotation there restarts the pods.
    """
    bare = copy.deepcopy(dict(cluster)) | ({"podTemplate": dict(template_metadata)} if template_metadata else {})
    for group in _groups(bare):
        group.pop("replicas", None)
        group["template"].pop("metadata")
        group["template"]["spec"].pop("tolerations", None)
    return hashlib.sha256(json.dumps(bare, sort_keys=True).encode()).hexdigest()[:16]


def _groups(cluster: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def replaces_cluster(desired: Object, observed: Mapping[str, Any]) -> bool:
    """Whether KubeRay would replace the Ray cluster of `observed` if `desired` is applied."""
    annotations = observed["metadata"].get("annotations") or {}
    before = annotations.get(CLUSTER_HASH)
    return before is not None and before != desired["metadata"]["annotations"][CLUSTER_HASH]


def with_pod_metadata_of(desired: Object, observed: Mapping[str, Any]) -> Object:
    """`desired` with the pods' labels and annotations of `observed`, unless the Ray cluster is replaced anyway.

    KubeRay replaces the cluster if a label of its pods changes: a renamed team label would need all accelerators twice.
    """
    annotations = observed["metadata"].get("annotations") or {}
    if CLUSTER_HASH not in annotations or replaces_cluster(desired, observed):
        return desired
    kept = copy.deepcopy(desired)
    groups = (_groups(service["spec"]["rayClusterConfig"]) for service in (kept, observed))
    for group, before in zip(*groups, strict=True):
        metadata = before["template"].get("metadata") or {}
        group["template"]["metadata"] = {
            name: dict(metadata[name]) for name in ("labels", "annotations") if metadata.get(name)
        }
    return kept


def head_budget(gaid: GenAIDeployment, placements: Sequence[Placement]) -> tuple[Object, ...]:
    """PodDisruptionBudget of the head pods of a service: one eviction at a time. Empty for a single head.

    For pods whose controller has no scale subresource, Kubernetes accepts only a number in minAvailable. For a single
    head that would be 1, which blocks every drain of its node.
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
    """DNS name of the Service that KubeRay creates for the head of the active cluster."""
    return f"{ray_service_name(gaid.name, placement)}-head-svc.{gaid.metadata.namespace or 'default'}.svc"


def serve_host(gaid: GenAIDeployment, placement: Placement) -> str:
    """DNS name of the Service that KubeRay creates for the pods that are ready to serve."""
    return f"{ray_service_name(gaid.name, placement)}-serve-svc.{gaid.metadata.namespace or 'default'}.svc"


def _target(gaid: GenAIDeployment, placement: Placement, settings: KubeSettings) -> ServeTarget:
    agents = f"{agents_name(gaid.name)}.{gaid.metadata.namespace or 'default'}.svc"
    of_ray = ray_accelerators(gaid, placement)
    return ServeTarget(
        http_host=_serve_address(settings),
        http_port=SERVE_PORT,
        decisions_address=f":{DECISIONS_PORT}",
        demand_urls={placement.pool: f"http://{agents}:{AGENT_PORT}/pools/{placement.pool}"},
        response_timeout_s=gaid.spec.gateway.response_timeout.value,
        proxy_location="EveryNode",
        replica_resources={REPLICA: 1, **{name: n for name, n in of_ray.items() if name != "GPU"}},
        replica_gpus=of_ray.get("GPU", 0),
        # A pool that may scale up has room for one more replica. In one of fixed size, replicas are replaced in place,
        # and requests overflow to the next tier: a surge replica without a node would block the rollout for good.
        surge=placement.max_replicas > placement.min_replicas,
    )


def _any_address(settings: KubeSettings) -> str:
    """Wildcard address of the pods' address family: Ray's dashboard listens on one family only."""
    return "::" if settings.ip_family == "IPv6" else "0.0.0.0"  # noqa: S104 (in a pod)


def _serve_address(settings: KubeSettings) -> str:
    """The same for Ray Serve: in its HAProxy file it replaces `::` by `*`, which is IPv4 only, but not `::0`."""
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
    """External Redis for the state of Ray's control plane (GCS); empty if the state is in the head pod only."""
    if not settings.gcs_redis_address:
        return {}
    options: dict[str, Any] = {"redisAddress": settings.gcs_redis_address}
    if settings.gcs_redis_secret:
        secret = {"name": settings.gcs_redis_secret, "key": "password"}
        options["redisPassword"] = {"valueFrom": {"secretKeyRef": secret}}
    return {"gcsFaultToleranceOptions": options}


def _head(
    gaid: GenAIDeployment, placement: Placement, settings: KubeSettings, labels: dict[str, str]
) -> dict[str, Any]:
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
        # No replica runs in the head pod.
        "rayStartParams": {"num-cpus": "0", "num-gpus": "0", "dashboard-host": _any_address(settings)},
        "template": _pod(gaid, placement, settings, labels, container),
    }


def _workers(
    gaid: GenAIDeployment, placement: Placement, settings: KubeSettings, labels: dict[str, str]
) -> dict[str, Any]:
    needs = accelerators(gaid, placement)
    devices = {needs[0]: str(needs[1])} if needs else {}
    cpu, cpu_limit = _worker_cpu(needs, settings)
    requests = {"cpu": cpu, "memory": _worker_memory(gaid, placement, settings), **devices}
    source = source_fields(gaid, placement)
    container = {
        **_container("ray-worker", settings),
        "ports": [
            {"name": "serve", "containerPort": SERVE_PORT},
            {"name": "metrics", "containerPort": RAY_METRICS_PORT},
        ],
        "resources": container_resources(requests, cpu_limit=cpu_limit),
        **source.container,
    }
    container["env"] = [*container["env"], *source.env]
    return {
        "groupName": WORKERS,
        "replicas": placement.min_replicas,  # initial; then set by Ray's autoscaler
        "minReplicas": 0,
        "maxReplicas": MAX_WORKERS,
        "labels": node_labels(placement, gaid.name),
        "resources": {
            "CPU": "1",
            REPLICA: "1",
            **{name: str(number) for name, number in ray_accelerators(gaid, placement).items()},
        },
        "rayStartParams": {},
        "template": _pod(gaid, placement, settings, labels, container, volumes=source.volumes),
    }


def _worker_cpu(needs: tuple[str, int] | None, settings: KubeSettings) -> tuple[str, str]:
    """CPU request and limit of a worker: those of the settings, or more where vLLM drives accelerators.

    vLLM's documentation asks for 2 + N cores: HTTP layer, scheduler, and a process per accelerator that polls it.
    """
    if needs is None:
        return settings.worker_cpu, settings.worker_cpu_limit
    at_least = 2 + needs[1]
    request = max(settings.worker_cpu, str(at_least), key=cores)
    limit = settings.worker_cpu_limit
    return request, limit and max(limit, str(2 * at_least), request, key=cores)


def _worker_memory(gaid: GenAIDeployment, placement: Placement, settings: KubeSettings) -> str:
    """Memory of a worker: that of Ray and the HTTP layer, and what the model needs, in steps of 256 MiB.

    It is also the size of /dev/shm (KubeRay mounts a volume in memory), which processes of tensor parallelism share.
    """
    tokens = Tokens(placement.input_tokens, placement.output_tokens)
    tier, model = gaid.tier(placement.tier), gaid.model(placement.model)
    needed = host_bytes(model, tier.hardware, tokens, placement.slots)
    if not needed:
        return settings.worker_memory
    steps = math.ceil((Quantity(settings.worker_memory).value + needed) / MEMORY_STEP)
    return f"{steps * MEMORY_STEP // 2**20}Mi"


def _container(name: str, settings: KubeSettings) -> dict[str, Any]:
    return {
        "name": name,
        "image": settings.serving_image,
        "imagePullPolicy": settings.image_pull_policy,
        "securityContext": dict(CONTAINER_SECURITY),
        "env": [
            {"name": "RAY_SERVE_ENABLE_HA_PROXY", "value": "1"},
            {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"},
            # Ray's default is 30 s, which a busy node can exceed; the pod would be recreated and take longer still.
            {"name": "RAY_raylet_start_wait_time_s", "value": "120"},
            # The metadata that a replica returns at its start is 108 KB in Serve 2.60 (its router's class, pickled by
            # value). Above Ray's limit of 100 KB it stays in the object store, and the node never counts as idle.
            {"name": "RAY_max_direct_call_object_size", "value": "1048576"},
            *({"name": name, "value": value} for name, value in RAY_HAPROXY_ENV.items()),
        ],
    }


def _pod(
    gaid: GenAIDeployment,
    placement: Placement,
    settings: KubeSettings,
    labels: dict[str, str],
    container: dict[str, Any],
    *,
    volumes: Sequence[Object] = (),
) -> dict[str, Any]:
    spec: dict[str, Any] = {
        **scheduling(gaid, placement),
        "securityContext": dict(POD_SECURITY),
        "containers": [container],
        "restartPolicy": "Never",  # required by Ray's autoscaler v2, which replaces failed pods itself
    }
    if volumes:
        spec["volumes"] = list(volumes)
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    # KubeRay sets app.kubernetes.io/name itself, and its head Service selects pods by it.
    own = {key: value for key, value in labels.items() if key != "app.kubernetes.io/name"}
    pod = {"metadata": own_and_inherited(gaid, own), "spec": spec}
    template = pod_template(gaid, placement)
    return with_template(pod, template) if template else pod
