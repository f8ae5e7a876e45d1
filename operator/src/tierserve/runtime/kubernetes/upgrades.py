"""One service at a time replaces its Ray clusters when a new operator renders them otherwise.

A replaced cluster runs beside the old one until it serves: all at once, an upgrade of the operator would take twice the
accelerators of every service, and a bad image would reach all of them. What a user changes is applied at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tierserve.render.kubernetes.metadata import Object
from tierserve.render.kubernetes.ray_service import GENERATION, replaces_cluster


@dataclass(slots=True)
class UpgradeTurn:
    """The turn to replace clusters, held by one service until its new clusters serve."""

    holder: str | None = None

    def admits(self, service: str, desired: Iterable[Object], live: Mapping[str, Mapping[str, Any]]) -> bool:
        """Whether the RayServices of a service may be applied now.

        Args:
            service: namespace and name.
            desired: its RayServices as rendered.
            live: those that are there, by name.
        """
        pairs = [(one, live[one["metadata"]["name"]]) for one in desired if one["metadata"]["name"] in live]
        replaced = any(replaces_cluster(*pair) and not _is_changed_by_user(*pair) for pair in pairs)
        if self.holder == service and not replaced and all(_serves(one) for _, one in pairs):
            self.holder = None
        if replaced and self.holder is None:
            self.holder = service
        return not replaced or self.holder == service

    def forget(self, service: str) -> None:
        """A service is gone."""
        if self.holder == service:
            self.holder = None


def _is_changed_by_user(desired: Object, live: Mapping[str, Any]) -> bool:
    return bool(desired["metadata"]["annotations"][GENERATION] != live["metadata"]["annotations"].get(GENERATION))


def _serves(live: Mapping[str, Any]) -> bool:
    """Whether KubeRay has seen the RayService as it is, and no cluster is on its way."""
    status = live.get("status") or {}
    is_seen = (status.get("observedGeneration") or 0) >= (live["metadata"].get("generation") or 0)
    return is_seen and not (status.get("pendingServiceStatus") or {}).get("rayClusterName")
