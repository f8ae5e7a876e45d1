"""Kubernetes Events for condition transitions."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

_POSTED = ("Ready", "Degraded", "SLOMet", "CapsMet", "Optimized")


def transitions(
    resource: Mapping[str, Any], before: Mapping[str, Any] | None, after: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Events for conditions that changed their status or reason; for a first status, Warnings only.

    Returns:
        core/v1 Events, one per changed condition among those posted.
    """
    old = {c["type"]: c for c in (before or {}).get("conditions", ())}
    events = []
    for condition in after.get("conditions", ()):
        earlier = old.get(condition["type"])
        if condition["type"] not in _POSTED or (earlier is not None and _same(earlier, condition)):
            continue
        good = "False" if condition["type"] == "Degraded" else "True"
        if earlier is None and condition["status"] != _bad(good):
            continue
        events.append(_event(resource, condition, warning=condition["status"] == _bad(good)))
    return events


def _same(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    return (earlier["status"], earlier.get("reason")) == (now["status"], now.get("reason"))


def _bad(good: str) -> str:
    return "True" if good == "False" else "False"


def _event(resource: Mapping[str, Any], condition: Mapping[str, Any], *, warning: bool) -> dict[str, Any]:
    metadata = resource["metadata"]
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    about = {"apiVersion": resource["apiVersion"], "kind": resource["kind"]}
    about |= {key: metadata[key] for key in ("name", "namespace", "uid") if key in metadata}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata['name']}.{time.time_ns():x}", "namespace": metadata["namespace"]},
        "involvedObject": about,
        "type": "Warning" if warning else "Normal",
        "reason": condition["reason"],
        "message": f"{condition['type']} is {condition['status']}: {condition['message']}"[:1000],
        "source": {"component": "tierserve-operator"},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
