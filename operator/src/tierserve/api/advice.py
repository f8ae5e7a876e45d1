"""Hints on a valid deployment: fields that nothing acts on, and values that do not go together."""

from __future__ import annotations

import math

from tierserve.api.errors import Problem
from tierserve.api.v1alpha1.deployment import GenAIDeployment
from tierserve.api.warnings import unused_fields


def hints(gaid: GenAIDeployment, *, cluster: bool = False) -> list[Problem]:
    """Warnings of `tierserve validate` and of the condition Accepted; none where every field is acted on.

    Args:
        gaid: the service.
        cluster: it runs on Kubernetes, where more fields are acted on.
    """
    return [*unused_fields(gaid, cluster=cluster), *_tiers_off(gaid), *_queue_timeout_below_startup(gaid)]


def _tiers_off(gaid: GenAIDeployment) -> list[Problem]:
    """Tiers that are switched off: nothing of theirs shows anywhere else in the status."""
    return [
        Problem(
            f"spec.tiers[{index}].replicas.max",
            f"is 0: tier {tier.name} is off, no replica runs there and no request goes there",
            "set it above 0, or leave it out, to switch the tier on",
        )
        for index, tier in enumerate(gaid.spec.tiers)
        if tier.is_off
    ]


def _queue_timeout_below_startup(gaid: GenAIDeployment) -> list[Problem]:
    """Where every tier may be scaled to zero, a request may wait for a start-up, longer than `queueTimeout` allows."""
    if any(tier.min_replicas > 0 for tier in gaid.tiers_on):
        return []  # requests go to that tier meanwhile
    models = {model.name: model for model in gaid.spec.models}
    starts = [tier.startup_s(models[name].engine) for tier in gaid.tiers_on for name in tier.models or models]
    soonest, timeout = min(starts, default=0.0), gaid.spec.gateway.queue_timeout
    if timeout.value >= soonest:
        return []
    return [
        Problem(
            "spec.gateway.queueTimeout",
            f"is shorter than a start-up ({soonest:.0f} s), and every tier may be scaled to zero",
            f"set it to {math.ceil(1.5 * soonest)}s, or replicas.min of a tier to 1; else the first request gets a 503",
            str(timeout),
        )
    ]
