"""What keeps pods from running, in the words of the scheduler and the kubelet (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from tierserve.plan.placement import Placement
from tierserve.render.kube_names import SITE, TIER

SETTLED_S = 15.0
"""A pod that is younger may still be on its way to a node."""
BAD_REASONS = frozenset({
    "CrashLoopBackOff", "CreateContainerConfigError", "CreateContainerError", "ErrImageNeverPull", "ErrImagePull",
    "ImagePullBackOff", "InvalidImageName", "RunContainerError", "OOMKilled",
})  # fmt: skip


def pod_problems(pods: Iterable[Mapping[str, Any]], placements: Sequence[Placement], now: float) -> list[str]:
    """A line for each pool, or the gateway, and each thing that is wrong with its pods.

    Args:
        pods: pods of one service.
        placements: its pools.
        now: Unix seconds.
    """
    names = {(p.tier, p.site): p.pool for p in placements}
    found: dict[tuple[str, str], list[str]] = {}
    for pod in pods:
        metadata = pod["metadata"]
        if metadata.get("deletionTimestamp") or not (trouble := _trouble(pod, now)):
            continue
        labels = metadata.get("labels") or {}
        where = names.get((labels.get(TIER, ""), labels.get(SITE, "")), "gateway")
        found.setdefault((where, trouble), []).append(metadata["name"])
    return [f"{where}: {_who(who)} {trouble}" for (where, trouble), who in sorted(found.items())]


def _who(names: Sequence[str]) -> str:
    return f"pod {names[0]}" if len(names) == 1 else f"pod {min(names)} and {len(names) - 1} more"


def _trouble(pod: Mapping[str, Any], now: float) -> str | None:
    status = pod.get("status") or {}
    conditions: Iterable[Mapping[str, Any]] = status.get("conditions") or ()
    scheduled: Mapping[str, Any] = next((c for c in conditions if c["type"] == "PodScheduled"), {})
    if scheduled.get("status") == "False" and _age_s(pod, now) > SETTLED_S:
        return f"cannot be scheduled: {scheduled.get('message') or scheduled.get('reason')}"
    for one in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        for state in ((one.get("state") or {}).get("waiting"), (one.get("state") or {}).get("terminated")):
            if state and state.get("reason") in BAD_REASONS:
                return f"does not run: {one['name']}: {state['reason']} {state.get('message') or ''}".rstrip()
    return None


def _age_s(pod: Mapping[str, Any], now: float) -> float:
    return now - datetime.fromisoformat(pod["metadata"]["creationTimestamp"]).timestamp()
