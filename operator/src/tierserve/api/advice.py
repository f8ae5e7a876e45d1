"""What a file says that will work and surprise: not an error, and no field that is ignored."""

from __future__ import annotations

import math

from tierserve.api.deployment import GenAIDeployment
from tierserve.api.problems import Problem


def advice(gaid: GenAIDeployment) -> list[Problem]:
    """Warnings about values that do not go together; none where all is well."""
    return _who_wakes_a_tier_is_refused(gaid)


def _who_wakes_a_tier_is_refused(gaid: GenAIDeployment) -> list[Problem]:
    """Where every tier may sleep, the first to come waits for a start: longer than the gateway lets it?"""
    if any(tier.min_replicas > 0 for tier in gaid.spec.tiers):
        return []  # it goes there at once
    models = {model.name: model for model in gaid.spec.models}
    starts = [tier.startup_s(models[name].engine) for tier in gaid.spec.tiers for name in tier.models or models]
    soonest, timeout = min(starts, default=0.0), gaid.spec.gateway.queue_timeout
    if timeout.value >= soonest:
        return []
    return [
        Problem(
            "spec.gateway.queueTimeout",
            f"is shorter than the {soonest:.0f} s that a replica takes to start, and every tier may have none",
            f"give {math.ceil(1.5 * soonest)}s, or a tier replicas.min of 1: else whoever wakes a tier gets a 503",
            str(timeout),
        )
    ]
