"""All objects of a service on Kubernetes, in the order in which they are applied (pure)."""

from __future__ import annotations

from collections.abc import Sequence

from tierserve.api import GenAIDeployment
from tierserve.plan.placement import Placement
from tierserve.render.kubernetes import monitoring as kube_monitoring
from tierserve.render.kubernetes.gateway import gateway_objects
from tierserve.render.kubernetes.metadata import Object
from tierserve.render.kubernetes.network_policy import network_policies
from tierserve.render.kubernetes.ray_service import head_budget, ray_service
from tierserve.render.kubernetes.settings import KubeSettings

KINDS = (
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("v1", "ConfigMap"),
    ("apps/v1", "Deployment"),
    ("v1", "Service"),
    ("policy/v1", "PodDisruptionBudget"),
    ("ray.io/v1", "RayService"),
    *kube_monitoring.KINDS,
)
"""All kinds of a service's objects; objects of these kinds with its label that are no longer rendered are deleted."""
OPTIONAL_KINDS = frozenset(kind for _, kind in kube_monitoring.KINDS)
"""Kinds whose CRD the cluster may lack."""


def kube_objects(gaid: GenAIDeployment, placements: Sequence[Placement], settings: KubeSettings) -> tuple[Object, ...]:
    """Network policies, gateway, a RayService per pool (device replicas are pods too), budgets and monitoring."""
    pools = tuple(ray_service(gaid, placement, settings) for placement in placements)
    gateway = gateway_objects(gaid, placements, settings)
    monitoring = kube_monitoring.monitoring_objects(gaid, settings)
    return (*network_policies(gaid, settings), *gateway, *pools, *head_budget(gaid, placements), *monitoring)
