"""All objects of a service on Kubernetes, in the order in which they are applied (pure)."""

from __future__ import annotations

from collections.abc import Sequence

from tierserve.api import GenAIDeployment
from tierserve.plan.placement import Placement
from tierserve.render.kube_gateway import gateway_objects
from tierserve.render.kube_names import Object
from tierserve.render.kube_network import network_policies
from tierserve.render.kube_settings import KubeSettings
from tierserve.render.ray_service import ray_service

KINDS = (
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("v1", "ConfigMap"),
    ("apps/v1", "Deployment"),
    ("v1", "Service"),
    ("policy/v1", "PodDisruptionBudget"),
    ("ray.io/v1", "RayService"),
)
"""Every kind that a service is made of: what carries its label and is not wanted any more is removed."""


def kube_objects(gaid: GenAIDeployment, placements: Sequence[Placement], settings: KubeSettings) -> tuple[Object, ...]:
    """Network policies, the gateway, and a RayService for each pool; a device's replicas too are pods of a node."""
    pools = tuple(ray_service(gaid, placement, settings) for placement in placements)
    return (*network_policies(gaid), *gateway_objects(gaid, placements, settings), *pools)
