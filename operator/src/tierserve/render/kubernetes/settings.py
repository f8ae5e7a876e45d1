"""Settings of rendered objects that are the same for all resources: images, ports and sizes (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

HTTP_PORT = 8080
HTTPS_PORT = 8443
AGENT_PORT = 8391
HAPROXY_METRICS_PORT = 8405
LOG_PORT = 5140
SERVE_PORT = 8000
DASHBOARD_PORT = 8265
DECISIONS_PORT = 8390
RAY_METRICS_PORT = 8080

PROMETHEUS: Sequence[Mapping[str, Any]] = (
    {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}},
)
"""Pods of Prometheus as its operator and its charts label them, in all namespaces."""
RUNBOOKS = "https://github.com/tierserve/tierserve/blob/main/docs/runbooks"
POD_SECURITY: Mapping[str, Any] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
CONTAINER_SECURITY: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""Requirements of the Pod Security Standard `restricted`. Containers repeat those of the pod: into the init containers
that it adds, KubeRay copies the security context of a container, not that of the pod."""


@dataclass(frozen=True, slots=True)
class KubeSettings:
    """Settings of the operator, the same for all resources; from its environment.

    Attributes:
        serving_image: image with Ray, HAProxy and tierserve_serving, for replicas and the gateway.
        image_pull_policy: of the containers.
        image_pull_secrets: names of secrets in the namespace of the resource.
        ray_version: version of Ray in the image.
        gateway_replicas: pods of the gateway; each admits its share of the slots.
        idle_timeout_s: seconds until Ray's autoscaler removes a worker pod without a replica.
        head_cpu, head_memory: requests of the head pod of a pool's Ray cluster.
        worker_cpu, worker_memory: requests of a worker pod, which holds one replica.
        head_cpu_limit, worker_cpu_limit: CPU limits of these pods; empty for none, which a ResourceQuota with
            `limits.cpu` refuses. The memory limit equals the request.
        cluster_domain: domain of the cluster's DNS.
        gcs_redis_address: HOST:PORT of a Redis for the state of Ray's control plane (GCS), so that a head pod can be
            replaced while its replicas serve; empty keeps the state in the head pod.
        gcs_redis_secret: name of a Secret, in the namespace of the resource, with that Redis's `password`.
        ip_family: IPv4 or IPv6, that of pods' first addresses; the default is that of the API server's address.
        monitoring_labels: labels of ServiceMonitors and PrometheusRules, by which a Prometheus selects them.
        alert_labels: labels of every alert, by which Alertmanager routes it.
        runbook_url: folder of the runbooks, without a slash at the end.
        scrape_from: NetworkPolicy peers that may read metrics; empty for none.
    """

    serving_image: str = "ghcr.io/tierserve/serving:latest"
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    ray_version: str = "2.60.0"
    gateway_replicas: int = 2
    # A worker pod is idle after its proxy has ended, not while a replica starts. KubeRay's default of 60 s would keep
    # an accelerator for a minute after each rollout; much less would remove pods between two versions of a replica.
    idle_timeout_s: int = 30
    head_cpu: str = "500m"
    head_memory: str = "2Gi"
    worker_cpu: str = "500m"
    worker_memory: str = "1Gi"
    # Several times the requests: CPU throttling while Ray's processes start delays the pod.
    head_cpu_limit: str = "2"
    worker_cpu_limit: str = "4"
    cluster_domain: str = "cluster.local"
    gcs_redis_address: str = ""
    gcs_redis_secret: str = ""
    ip_family: str = "IPv4"
    monitoring_labels: Mapping[str, str] = field(default_factory=dict)
    alert_labels: Mapping[str, str] = field(default_factory=dict)
    runbook_url: str = RUNBOOKS
    scrape_from: Sequence[Mapping[str, Any]] = PROMETHEUS

    def __post_init__(self) -> None:
        """Checks that no limit is below its request, which the API server would reject in every pod.

        Raises:
            ValueError: a limit is below its request; the message names the variables.
        """
        for pod in ("head", "worker"):
            request, limit = getattr(self, f"{pod}_cpu"), getattr(self, f"{pod}_cpu_limit")
            if limit and cores(limit) < cores(request):
                name = f"TIERSERVE_{pod.upper()}_CPU"
                raise ValueError(
                    f"{name}_LIMIT: must be at least {name}={request!r}, or empty for no limit ({limit!r})"
                )


def cores(quantity: str) -> Decimal:
    """CPU quantity of Kubernetes (`500m`, `2`, `0.5`) in cores; ValueError if the text is not one."""
    number, milli = quantity.removesuffix("m"), quantity.endswith("m")
    if not number.replace(".", "", 1).isdecimal():
        raise ValueError(f"must be a CPU quantity such as 500m or 2 ({quantity!r})")
    return Decimal(number) / (1000 if milli else 1)


def container_resources(requests: Mapping[str, str], *, cpu_limit: str) -> dict[str, dict[str, str]]:
    """Requests and limits: the CPU limit is `cpu_limit`, all other limits equal the requests."""
    limits = {name: value for name, value in requests.items() if name != "cpu"}
    return {"requests": dict(requests), "limits": {**({"cpu": cpu_limit} if cpu_limit else {}), **limits}}
