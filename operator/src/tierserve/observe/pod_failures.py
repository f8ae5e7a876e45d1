"""What keeps pods from running, in the words of the scheduler and the kubelet (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from tierserve.api import GenAIDeployment
from tierserve.plan.placement import Placement
from tierserve.render.kubernetes.metadata import SITE, TIER
from tierserve.render.kubernetes.scheduling import node_placement

SCHEDULING_S = 15.0
"""A pod that is younger may still be on its way to a node."""
NODE_STARTUP_S = 15 * 60.0
"""The same where nodes come on demand: after this time Cluster Autoscaler (max-node-provision-time) and Karpenter
(registration) give up a node that did not come."""
BAD_REASONS = frozenset({
    "CrashLoopBackOff", "CreateContainerConfigError", "CreateContainerError", "ErrImageNeverPull", "ErrImagePull",
    "ImagePullBackOff", "InvalidImageName", "RunContainerError", "OOMKilled",
})  # fmt: skip


def pod_problems(
    gaid: GenAIDeployment, pods: Iterable[Mapping[str, Any]], placements: Sequence[Placement], now: float
) -> list[str]:
    """A line for each pool, or the gateway, and each thing that is wrong with its pods.

    Args:
        gaid: the service.
        pods: its pods.
        placements: its pools.
        now: Unix seconds.
    """
    names = {(p.tier, p.site): p.pool for p in placements}
    on_demand = {p.pool for p in placements if node_placement(gaid, p).nodes_on_demand}
    found: dict[tuple[str, str], list[str]] = {}
    for pod in pods:
        metadata = pod["metadata"]
        labels = metadata.get("labels") or {}
        where = names.get((labels.get(TIER, ""), labels.get(SITE, "")), "gateway")
        patience_s = NODE_STARTUP_S if where in on_demand else SCHEDULING_S
        if metadata.get("deletionTimestamp") or not (trouble := _trouble(pod, now, patience_s)):
            continue
        found.setdefault((where, trouble), []).append(metadata["name"])
    return [f"{where}: {_who(who)} {trouble}" for (where, trouble), who in sorted(found.items())]


def _who(names: Sequence[str]) -> str:
    return f"pod {names[0]}" if len(names) == 1 else f"pod {min(names)} and {len(names) - 1} more"


def _trouble(pod: Mapping[str, Any], now: float, patience_s: float) -> str | None:
    status = pod.get("status") or {}
    conditions: Iterable[Mapping[str, Any]] = status.get("conditions") or ()
    scheduled: Mapping[str, Any] = next((c for c in conditions if c["type"] == "PodScheduled"), {})
    if scheduled.get("status") == "False" and _age_s(pod, now) > patience_s:
        return f"cannot be scheduled: {scheduled.get('message') or scheduled.get('reason')}{_node_hint(pod)}"
    for one in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        for state in ((one.get("state") or {}).get("waiting"), (one.get("state") or {}).get("terminated")):
            if state and state.get("reason") in BAD_REASONS:
                return f"does not run: {one['name']}: {state['reason']} {state.get('message') or ''}".rstrip()
    return None


def _node_hint(pod: Mapping[str, Any]) -> str:
    """Labels that its node must have; the scheduler's message says only that none matched."""
    labels = (pod.get("spec") or {}).get("nodeSelector") or {}
    text = ", ".join(f"{name}={value}" for name, value in labels.items())
    return f" (hint: it needs a node with {text}: label one, or set placement.nodeSelector)" if text else ""


def _age_s(pod: Mapping[str, Any], now: float) -> float:
    return now - datetime.fromisoformat(pod["metadata"]["creationTimestamp"]).timestamp()
