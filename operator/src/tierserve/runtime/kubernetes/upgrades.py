"""Upgrade lock: after an upgrade of the operator, one GenAIDeployment at a time replaces its Ray clusters.

The new cluster runs beside the old one until it serves: all at once, an upgrade of the operator would take twice the
accelerators of every GenAIDeployment, and a bad image would reach all of them. A change of the spec is applied at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tierserve.render.kubernetes.metadata import Object
from tierserve.render.kubernetes.ray_service import GENERATION, replaces_cluster


@dataclass(slots=True)
class UpgradeLock:
    """Lock on the replacement of Ray clusters, held by one GenAIDeployment until its new clusters serve."""

    holder: str | None = None

    def admits(self, service: str, desired: Iterable[Object], existing: Mapping[str, Mapping[str, Any]]) -> bool:
        """Whether the RayServices of a GenAIDeployment may be applied now.

        Args:
            service: namespace and name.
            desired: its RayServices as rendered.
            existing: the RayServices in the cluster, by name.
        """
        pairs = [(obj, existing[name]) for obj in desired if (name := obj["metadata"]["name"]) in existing]
        replaced = any(replaces_cluster(*pair) and not _is_changed_by_user(*pair) for pair in pairs)
        if self.holder == service and not replaced and all(_serves(obj) for _, obj in pairs):
            self.holder = None
        if replaced and self.holder is None:
            self.holder = service
        return not replaced or self.holder == service

    def forget(self, service: str) -> None:
        """Release the lock of a deleted GenAIDeployment."""
        if self.holder == service:
            self.holder = None


def _is_changed_by_user(desired: Object, existing: Mapping[str, Any]) -> bool:
    return bool(desired["metadata"]["annotations"][GENERATION] != existing["metadata"]["annotations"].get(GENERATION))


def _serves(existing: Mapping[str, Any]) -> bool:
    """Whether KubeRay has observed the generation of the RayService, and no new cluster is pending."""
    status = existing.get("status") or {}
    is_observed = (status.get("observedGeneration") or 0) >= (existing["metadata"].get("generation") or 0)
    return is_observed and not (status.get("pendingServiceStatus") or {}).get("rayClusterName")
