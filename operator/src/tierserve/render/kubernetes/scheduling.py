"""Node selector, tolerations and accelerators of a pool's pods (pure)."""

from __future__ import annotations

from typing import Any

from tierserve.api import GenAIDeployment
from tierserve.api.v1alpha1 import tiers as api
from tierserve.plan.placement import Placement
from tierserve.render.kubernetes.metadata import SITE, TIER

RAY_RESOURCES = {
    "google.com/tpu": "TPU",
    "habana.ai/gaudi": "HPU",
    "aws.amazon.com/neuroncore": "neuron_cores",
    "huawei.com/Ascend910": "NPU",
}
"""Names that Ray has for accelerators that it does not count as GPUs (ray/_private/accelerators)."""


def node_placement(gaid: GenAIDeployment, placement: Placement) -> api.Placement:
    """Placement of the site, else of the tier; the default is TierServe's own labels and taints.

    These are: label and taint `tierserve.io/tier` with the kind of the tier, and for named sites the label
    `tierserve.io/site` with the name of the site.
    """
    tier = gaid.tier(placement.tier)
    configured = next((s.placement for s in tier.sites if s.name == placement.site and s.placement), tier.placement)
    selector = configured.node_selector or _own_labels(tier, placement.site)
    tolerations = configured.tolerations or (api.Toleration(key=TIER, operator="Equal", value=tier.kind),)
    return configured.model_copy(update={"node_selector": selector, "tolerations": tolerations})


def _own_labels(tier: api.Tier, site: str) -> dict[str, str]:
    return {TIER: tier.kind, **({SITE: site} if tier.sites else {})}


def scheduling(gaid: GenAIDeployment, placement: Placement) -> dict[str, Any]:
    """Scheduling fields of the pod spec."""
    nodes = node_placement(gaid, placement)
    fields: dict[str, Any] = {
        "nodeSelector": dict(nodes.node_selector),
        "tolerations": [t.model_dump(by_alias=True, exclude_none=True, mode="json") for t in nodes.tolerations],
    }
    if nodes.runtime_class_name:
        fields["runtimeClassName"] = nodes.runtime_class_name
    return fields


def ray_accelerators(gaid: GenAIDeployment, placement: Placement) -> dict[str, int]:
    """The same as a resource of Ray: `GPU` for those of NVIDIA (MIG profiles too), AMD and Intel."""
    needs = accelerators(gaid, placement)
    return {RAY_RESOURCES.get(needs[0], "GPU"): needs[1]} if needs else {}


def accelerators(gaid: GenAIDeployment, placement: Placement) -> tuple[str, int] | None:
    """Extended resource of the accelerators and their number per replica; None for an engine that needs none."""
    hardware = gaid.tier(placement.tier).hardware
    if placement.engine != "vllm" or hardware.resource is None:
        return None
    return hardware.resource, hardware.per_replica
