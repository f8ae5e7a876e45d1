"""Names, labels and annotations of the objects rendered from a GenAIDeployment (pure)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from tierserve.api import GenAIDeployment
from tierserve.plan.placement import Placement

MANAGER = "tierserve"
"""Field manager of server-side apply, and value of the label app.kubernetes.io/managed-by."""
DEPLOYMENT, TIER, SITE = "tierserve.io/deployment", "tierserve.io/tier", "tierserve.io/site"
REVISION = "tierserve.io/revision"
"""Annotation of a RayService: a hash of its spec, to detect a status that is of an older spec."""
LONGEST_RAY_SERVICE = 47  # KubeRay refuses longer names, since it appends suffixes
LONGEST_NAME = 63

Object = dict[str, Any]

FOREIGN_DOMAINS = (
    "kubectl.kubernetes.io", "kopf.dev", "kopf.zalando.org", "helm.sh", "fluxcd.io", "argoproj.io",
    "app.kubernetes.io", "tierserve.io", "ray.io",
)  # fmt: skip
"""Domains of labels and annotations that are not inherited: tracking of the tool that applied the resource (Argo CD and
Flux would prune a child with theirs, and the chart version changes at each release), and labels set per child."""


def inherited(metadata: Mapping[str, str]) -> dict[str, str]:
    """Labels or annotations of the resource that its objects and pods inherit."""
    return {key: value for key, value in metadata.items() if not _is_foreign(key)}


def _is_foreign(key: str) -> bool:
    domain, slash, _ = key.rpartition("/")
    return bool(slash) and any(domain == foreign or domain.endswith(f".{foreign}") for foreign in FOREIGN_DOMAINS)


def own_and_inherited(gaid: GenAIDeployment, labels: Mapping[str, str]) -> dict[str, Any]:
    """Labels and annotations of an object or pod: inherited ones, overridden by its own."""
    annotations = inherited(gaid.metadata.annotations)
    return {
        "labels": {**inherited(gaid.metadata.labels), **labels},
        **({"annotations": annotations} if annotations else {}),
    }


def child_name(service: str, part: str, longest: int = LONGEST_NAME) -> str:
    """`service-part`, truncated and made unique by a hash if it is longer than `longest`."""
    name = f"{service}-{part}"
    if len(name) <= longest:
        return name
    suffix = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: longest - 9].rstrip('-')}-{suffix}"


def ray_service_name(service: str, placement: Placement) -> str:
    """Name of the RayService of a pool."""
    return child_name(service, placement.pool, LONGEST_RAY_SERVICE)


def gateway_name(service: str) -> str:
    """Name of the gateway's Deployment, Service, ConfigMap and PodDisruptionBudget."""
    return child_name(service, "gateway")


def agents_name(service: str) -> str:
    """Name of the headless Service of the gateway agents."""
    return child_name(service, "gateway-agents")


def common_labels(service: str, component: str) -> dict[str, str]:
    """Labels of every object: the recommended ones of Kubernetes, and the owning GenAIDeployment."""
    return {
        "app.kubernetes.io/name": "tierserve",
        "app.kubernetes.io/instance": service,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/managed-by": MANAGER,
        DEPLOYMENT: service,
    }


def pool_labels(service: str, placement: Placement) -> dict[str, str]:
    """Labels of the objects of one pool."""
    return {**common_labels(service, "tier"), TIER: placement.tier, SITE: placement.site}


def kube_object(
    gaid: GenAIDeployment, api_version: str, kind: str, name: str, labels: Mapping[str, str], **content: Any
) -> Object:
    """An object in the namespace of its owner; the owner reference makes the garbage collector delete it with it."""
    owner = {
        "apiVersion": gaid.api_version,
        "kind": gaid.kind,
        "name": gaid.name,
        "uid": gaid.metadata.uid or "",
        "controller": True,
        "blockOwnerDeletion": False,
    }
    metadata = {
        "name": name,
        "namespace": gaid.metadata.namespace or "default",
        "ownerReferences": [owner],
        **own_and_inherited(gaid, labels),
    }
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **content}


def with_revision(obj: Object) -> Object:
    """The object with a hash of its spec as an annotation."""
    revision = hashlib.sha256(json.dumps(obj["spec"], sort_keys=True).encode()).hexdigest()[:12]
    metadata = {**obj["metadata"], "annotations": {**obj["metadata"].get("annotations", {}), REVISION: revision}}
    return {**obj, "metadata": metadata}
