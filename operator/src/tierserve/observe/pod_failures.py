"""Why pods do not run, from the messages of the scheduler and the kubelet (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from tierserve.api import GenAIDeployment
from tierserve.plan.placement import Placement
from tierserve.render.kubernetes.metadata import SITE, TIER
from tierserve.render.kubernetes.scheduling import node_placement

SCHEDULING_S = 15.0
"""Age up to which a pod may be pending: the scheduler has not placed it yet."""
NODE_STARTUP_S = 15 * 60.0
"""The same with nodes on demand: after this time Cluster Autoscaler (max-node-provision-time) and Karpenter
(registration) give up a node that did not register."""
_FULL = ("Insufficient ", "Too many pods")
"""Words of the scheduler for a node that has the labels and no room: it checks labels first."""
_ACCELERATOR = re.compile(r"Insufficient ([a-z0-9.-]+/[A-Za-z0-9._-]+)")
"""An extended resource has a domain in its name; cpu, memory and ephemeral-storage have none."""
BAD_REASONS = frozenset({
    "CrashLoopBackOff", "CreateContainerConfigError", "CreateContainerError", "ErrImageNeverPull", "ErrImagePull",
    "ImagePullBackOff", "InvalidImageName", "RunContainerError", "OOMKilled",
})  # fmt: skip


def pod_problems(
    gaid: GenAIDeployment, pods: Iterable[Mapping[str, Any]], placements: Sequence[Placement], now: float
) -> list[str]:
    """One message per pool (or the gateway) and error of its pods.

    Args:
        gaid: the service.
        pods: its pods.
        placements: its pools.
        now: Unix seconds by the clock of the API server, which the creation times of pods are of.
    """
    pools = {(p.tier, p.site): p.pool for p in placements}
    on_demand = {p.pool for p in placements if node_placement(gaid, p).nodes_on_demand}
    errors: dict[tuple[str, str], list[str]] = {}
    for pod in pods:
        metadata = pod["metadata"]
        labels = metadata.get("labels") or {}
        where = pools.get((labels.get(TIER, ""), labels.get(SITE, "")), "gateway")
        pending_limit_s = NODE_STARTUP_S if where in on_demand else SCHEDULING_S
        if metadata.get("deletionTimestamp") or not (error := _error(pod, now, pending_limit_s)):
            continue
        errors.setdefault((where, error), []).append(metadata["name"])
    return [f"{where}: {_pods(names)} {error}" for (where, error), names in sorted(errors.items())]


def _pods(names: Sequence[str]) -> str:
    return f"pod {names[0]}" if len(names) == 1 else f"pod {min(names)} and {len(names) - 1} more"


def _error(pod: Mapping[str, Any], now: float, pending_limit_s: float) -> str | None:
    status = pod.get("status") or {}
    conditions: Iterable[Mapping[str, Any]] = status.get("conditions") or ()
    scheduled: Mapping[str, Any] = next((c for c in conditions if c["type"] == "PodScheduled"), {})
    if scheduled.get("status") == "False" and _age_s(pod, now) > pending_limit_s:
        reason = scheduled.get("message") or scheduled.get("reason") or ""
        return f"cannot be scheduled: {reason}{_node_hint(pod, reason)}"
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        current = container.get("state") or {}
        for state in (current.get("waiting"), current.get("terminated")):
            if state and state.get("reason") in BAD_REASONS:
                return f"does not run: {container['name']}: {state['reason']} {state.get('message') or ''}".rstrip()
    return None


def _node_hint(pod: Mapping[str, Any], reason: str) -> str:
    """The accelerator, or the labels of the pod's nodeSelector; the scheduler says only that no node matched."""
    labels = (pod.get("spec") or {}).get("nodeSelector") or {}
    text = ", ".join(f"{name}={value}" for name, value in labels.items())
    if accelerator := _ACCELERATOR.search(reason):
        where = f" with the labels {text}" if text else ""
        return (
            f" (hint: no node{where} has a free {accelerator[1]}: add one that has, install the device plugin of its "
            "vendor there, or set accelerator.resource to what nodes have)"
        )
    if any(words in reason for words in _FULL):
        return ""
    return f" (hint: no node has the labels {text}: label a node, or set placement.nodeSelector)" if text else ""


def _age_s(pod: Mapping[str, Any], now: float) -> float:
    return now - datetime.fromisoformat(pod["metadata"]["creationTimestamp"]).timestamp()
