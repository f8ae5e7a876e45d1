"""Names and labels of the objects that one GenAIDeployment is made into (pure)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from tierserve.api import GenAIDeployment
from tierserve.plan.placement import Placement

MANAGER = "tierserve"
"""Field manager of server-side apply, and value of the label app.kubernetes.io/managed-by."""
DEPLOYMENT, TIER, SITE = "tierserve.io/deployment", "tierserve.io/tier", "tierserve.io/site"
LONGEST_RAY_SERVICE = 47  # KubeRay refuses longer ones: it adds to them
LONGEST_NAME = 63

Object = dict[str, Any]


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
        "labels": dict(labels),
        "ownerReferences": [owner],
    }
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **content}
