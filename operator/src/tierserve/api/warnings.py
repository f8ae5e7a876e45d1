"""Warnings on a valid GenAIDeployment: fields without effect, and values that conflict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tierserve.api.errors import Problem
from tierserve.api.loading import to_document
from tierserve.api.schema.crd import at, nodes, schema
from tierserve.api.schema.openapi import with_defaults
from tierserve.api.schema.unused import UNUSED, Unused
from tierserve.api.v1alpha1.deployment import GenAIDeployment


def hints(gaid: GenAIDeployment, *, cluster: bool = False) -> list[Problem]:
    """Warnings of `tierserve validate` and of the condition Accepted; empty if all fields are in effect.

    Args:
        gaid: the resource.
        cluster: it runs on Kubernetes, where more fields are in effect.
    """
    return [*unused_fields(gaid, cluster=cluster), *_tiers_off(gaid), *_queue_timeout_below_startup(gaid)]


def _tiers_off(gaid: GenAIDeployment) -> list[Problem]:
    """Disabled tiers, which do not appear elsewhere in the status."""
    return [
        Problem(
            f"spec.tiers[{index}].replicas.max",
            f"is 0: tier {tier.name} is disabled; it has no replicas and gets no requests",
            "set it above 0, or remove it, to enable the tier",
        )
        for index, tier in enumerate(gaid.spec.tiers)
        if tier.is_off
    ]


def _queue_timeout_below_startup(gaid: GenAIDeployment) -> list[Problem]:
    """`queueTimeout` below the start-up time, if every tier may be scaled to zero and a request waits for a
    start-up."""
    if any(tier.min_replicas > 0 for tier in gaid.tiers_on):
        return []  # requests overflow to that tier during a start-up
    models = {model.name: model for model in gaid.spec.models}
    starts = [tier.startup_s(models[name].engine) for tier in gaid.tiers_on for name in tier.models or models]
    soonest, timeout = min(starts, default=0.0), gaid.spec.gateway.queue_timeout
    if timeout.value >= soonest:
        return []
    return [
        Problem(
            "spec.gateway.queueTimeout",
            f"should be at least the start-up time, {soonest:.0f} s, because every tier may be scaled to zero",
            f"set it to {math.ceil(1.5 * soonest)}s, or replicas.min of a tier to 1; else the first request gets a 503",
            str(timeout),
        )
    ]


def unused_fields(gaid: GenAIDeployment, *, cluster: bool = False) -> list[Problem]:
    """One warning for each field without effect that the user set, at its first occurrence.

    Args:
        gaid: the resource.
        cluster: it runs on Kubernetes, where more fields are in effect.
    """
    whole, optimized = to_document(gaid), gaid.spec.objective.optimize.mode != "off"
    hits = [
        (unused, *hit)
        for unused in UNUSED
        if not (cluster and unused.local)
        and not (optimized and unused.optimized)
        and (hit := _first_set(unused, whole))
    ]
    named = {path for _, path, _ in hits}
    return [
        Problem(path, f"is set, but {unused.why}", unused.hint, value if isinstance(value, str) else None)
        for unused, path, value in hits
        if not any(path.startswith(f"{other}.") for other in named)  # its parent is reported already
    ]


def _first_set(unused: Unused, whole: Mapping[str, Any]) -> tuple[str, Any] | None:
    field = at(schema(), unused.path)
    default = with_defaults({}, field) if field.get("type") == "object" else field.get("default")
    return next((hit for hit in nodes(whole, unused.path) if hit[1] != default), None)
