"""Names and labels of the objects that one GenAIDeployment is made into (pure)."""

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
"""Annotation of a RayService: a hash of its spec, by which a status is told from that of the version before."""
LONGEST_RAY_SERVICE = 47  # KubeRay refuses longer ones: it adds to them
LONGEST_NAME = 63

Object = dict[str, Any]

FOREIGN_DOMAINS = (
    "kubectl.kubernetes.io", "kopf.dev", "kopf.zalando.org", "helm.sh", "fluxcd.io", "argoproj.io",
    "app.kubernetes.io", "tierserve.io", "ray.io",
)  # fmt: skip
"""Domains of labels and annotations that stay on the resource: bookkeeping of the tool that made it (Argo CD and Flux
would remove a child with theirs, and the version of a chart changes at each release), or names that mean a child."""


def inherited(given: Mapping[str, str]) -> dict[str, str]:
    """Those labels or annotations of the resource that its objects and pods get too."""
    return {key: value for key, value in given.items() if not _is_foreign(key)}


def _is_foreign(key: str) -> bool:
    domain, slash, _ = key.rpartition("/")
    return bool(slash) and any(domain == one or domain.endswith(f".{one}") for one in FOREIGN_DOMAINS)


def own_and_inherited(gaid: GenAIDeployment, labels: Mapping[str, str]) -> dict[str, Any]:
    """Labels and annotations of an object or pod: its own before those of the resource."""
    annotations = inherited(gaid.metadata.annotations)
    return {
        "labels": {**inherited(gaid.metadata.labels), **labels},
        **({"annotations": annotations} if annotations else {}),
    }


def child_name(service: str, part: str, longest: int = LONGEST_NAME) -> str:
    """`service-part`, cut and made unique by a hash where it would be longer than `longest`."""
    name = f"{service}-{part}"
    if len(name) <= longest:
        return name
    mark = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: longest - 9].rstrip('-')}-{mark}"


def ray_service_name(service: str, placement: Placement) -> str:
    """Name of the RayService of a pool."""
    return child_name(service, placement.pool, LONGEST_RAY_SERVICE)


def gateway_name(service: str) -> str:
    """Name of the gateway's Deployment, Service, ConfigMap and PodDisruptionBudget."""
    return child_name(service, "gateway")


def agents_name(service: str) -> str:
    """Name of the headless Service that has an address for each gateway agent."""
    return child_name(service, "gateway-agents")


def common_labels(service: str, component: str) -> dict[str, str]:
    """Labels of every object: Kubernetes' recommended ones, and whose it is."""
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
    """An object in the namespace of its owner, which the garbage collector takes along when the owner is deleted."""
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


def with_revision(one: Object) -> Object:
    """The object with a hash of its spec as an annotation."""
    revision = hashlib.sha256(json.dumps(one["spec"], sort_keys=True).encode()).hexdigest()[:12]
    metadata = {**one["metadata"], "annotations": {**one["metadata"].get("annotations", {}), REVISION: revision}}
    return {**one, "metadata": metadata}
