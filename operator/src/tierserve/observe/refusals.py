"""Pods and objects rejected by admission, a quota or a policy, as the ReplicaSet and KubeRay report it (pure).

A rejected pod does not exist, so no pod shows the reason. KubeRay does not put a failure of a RayCluster into the
status of its RayService, but it posts a Warning event in every case.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tierserve.api import GenAIDeployment
from tierserve.plan.placement import Placement
from tierserve.render.kubernetes.metadata import SITE, TIER, ray_service_name

LONGEST = 400
"""Characters of one message: Pod Security lists every violation of every container."""

_SERVICE_STATUSES = ("activeServiceStatus", "pendingServiceStatus")

POD_EVENTS = frozenset({"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"})
"""Events of a scheduled pod that does not start; its status shows only ContainerCreating."""

Objects = Iterable[Mapping[str, Any]]


def gateway_refusals(children: Objects) -> list[str]:
    """Why the ReplicaSet of the gateway cannot create pods."""
    return [
        f"gateway: {condition.get('reason')}: {condition.get('message', '')}"[:LONGEST]
        for child in children
        if child["kind"] == "Deployment"
        for condition in (child.get("status") or {}).get("conditions") or ()
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True"
    ]


def is_upgrading(children: Objects) -> bool:
    """Whether a pending Ray cluster exists beside the active one, whose replicas do not show its errors."""
    statuses = (child.get("status") or {} for child in children if child["kind"] == "RayService")
    return any(all((s.get(which) or {}).get("rayClusterName") for which in _SERVICE_STATUSES) for s in statuses)


def pool_refusals(
    gaid: GenAIDeployment, placements: Sequence[Placement], children: Objects, events: Objects, pods: Objects
) -> list[str]:
    """What KubeRay could not create: the latest event of each pool, if it is newer than the pool's newest pod.

    Args:
        gaid, placements: the service and its pools.
        children: its RayServices.
        events: Warning events of the namespace.
        pods: pods of the service.
    """
    owners = _owners(gaid, placements, children)
    newest = _newest(placements, pods)
    last: dict[str, tuple[str, str]] = {}
    for event in events:
        regarding, reason = event.get("involvedObject") or {}, str(event.get("reason"))
        pool = owners.get((regarding.get("kind"), regarding.get("name")))
        at = str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"])
        if pool and reason.startswith("FailedToCreate") and at >= max(newest.get(pool, ""), last.get(pool, ("",))[0]):
            last[pool] = at, f"{pool}: {reason}: {event.get('message', '')}"[:LONGEST]
    return [text for _, text in last.values()]


def start_failures(placements: Sequence[Placement], events: Objects, pods: Objects) -> list[str]:
    """Why the kubelet cannot start pods: a missing Secret, a volume, the network."""
    names = {(p.tier, p.site): p.pool for p in placements}
    pending = {
        pod["metadata"]["name"]: names.get(_place(pod), "gateway")
        for pod in pods
        if (pod.get("status") or {}).get("phase") == "Pending" and not pod["metadata"].get("deletionTimestamp")
    }
    last: dict[str, str] = {}
    for event in events:
        regarding, reason = event.get("involvedObject") or {}, str(event.get("reason"))
        if regarding.get("kind") == "Pod" and regarding.get("name") in pending and reason in POD_EVENTS:
            where = pending[regarding["name"]]
            last[where] = f"{where}: {reason}: {event.get('message', '')}"[:LONGEST]
    return list(last.values())


def _place(pod: Mapping[str, Any]) -> tuple[str, str]:
    labels = pod["metadata"].get("labels") or {}
    return labels.get(TIER, ""), labels.get(SITE, "")


def _owners(
    gaid: GenAIDeployment, placements: Sequence[Placement], children: Objects
) -> dict[tuple[str | None, str | None], str]:
    """Pools by kind and name of their RayService and its Ray clusters."""
    services = {ray_service_name(gaid.name, p): p.pool for p in placements}
    owners: dict[tuple[str | None, str | None], str] = {("RayService", name): pool for name, pool in services.items()}
    for child in children:
        pool = services.get(child["metadata"]["name"]) if child["kind"] == "RayService" else None
        for which in _SERVICE_STATUSES:
            cluster = ((child.get("status") or {}).get(which) or {}).get("rayClusterName")
            if pool and cluster:
                owners["RayCluster", cluster] = pool
    return owners


def _newest(placements: Sequence[Placement], pods: Objects) -> dict[str, str]:
    """Creation time of the newest pod of each pool, as the API server writes it: UTC, whole seconds."""
    names = {(p.tier, p.site): p.pool for p in placements}
    newest: dict[str, str] = {}
    for pod in pods:
        if pool := names.get(_place(pod)):
            newest[pool] = max(newest.get(pool, ""), pod["metadata"]["creationTimestamp"])
    return newest
