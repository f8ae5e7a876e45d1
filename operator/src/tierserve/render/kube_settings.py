"""What the operator adds to a resource when it renders objects: images, ports and sizes (pure)."""

from __future__ import annotations

from dataclasses import dataclass

HTTP_PORT = 8080
AGENT_PORT = 8391
HAPROXY_METRICS_PORT = 8405
LOG_PORT = 5140
SERVE_PORT = 8000
DASHBOARD_PORT = 8265
DECISIONS_PORT = 8390
RAY_METRICS_PORT = 8080


@dataclass(frozen=True, slots=True)
class KubeSettings:
    """Settings of the operator, the same for all resources; from its environment.

    Attributes:
        serving_image: image with Ray, HAProxy and tierserve_serving, for replicas and the gateway.
        image_pull_policy: of the containers.
        image_pull_secrets: names of secrets in the namespace of the resource.
        ray_version: version of Ray in the image.
        gateway_replicas: pods of the gateway; each lets in its share of the slots.
        idle_timeout_s: how long Ray's autoscaler keeps a worker pod without a replica.
        head_cpu, head_memory: requests of the head pod of a pool's Ray cluster.
        worker_cpu, worker_memory: requests of a worker pod, which holds one replica.
        cluster_domain: the cluster's domain of names.
        gcs_redis_address: HOST:PORT of a Redis that keeps the state of Ray's control, so that a head may be replaced
            while its replicas go on; empty keeps it in the head alone.
        gcs_redis_secret: name of a Secret, in the namespace of the resource, with that Redis's `password`.
        drain_s: how long a pod of the gateway may finish its streams, and a replica what it serves.
    """

    serving_image: str = "ghcr.io/tierserve/serving:latest"
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    ray_version: str = "2.60.0"
    gateway_replicas: int = 2
    idle_timeout_s: int = 60
    head_cpu: str = "500m"
    head_memory: str = "2Gi"
    worker_cpu: str = "500m"
    worker_memory: str = "1Gi"
    drain_s: int = 60
    cluster_domain: str = "cluster.local"
    gcs_redis_address: str = ""
    gcs_redis_secret: str = ""
