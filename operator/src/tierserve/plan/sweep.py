"""The plan over a range of connections: what the picture of `tierserve plan --sweep` shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tierserve.api.v1alpha1.deployment import GenAIDeployment
from tierserve.plan.capacity import Demand, Limits, Plan, PoolPlan, limits_of, make_plans
from tierserve.plan.placement import place


@dataclass(frozen=True, slots=True)
class TierCurve:
    """One tier over the connections of a sweep; each tuple has one value per N, `nan` where it gets no request.

    Attributes:
        tier: its name.
        response_s: response time at the objective's percentile, the worst site, seconds.
        replicas: of all sites.
        utilisation: busy servers over all servers of all sites.
        rate: requests per second.
    """

    tier: str
    response_s: tuple[float, ...]
    replicas: tuple[int, ...]
    utilisation: tuple[float, ...]
    rate: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Sweep:
    """Every tier over N = `connections`, with the target in seconds and the N where tiers are exhausted."""

    connections: tuple[float, ...]
    target_s: float
    percentile: float
    tiers: tuple[TierCurve, ...]
    limits: Limits
    unserved: tuple[float, ...]


def sweep(gaid: GenAIDeployment, first: float, last: float, think_s: float | None = None, points: int = 600) -> Sweep:
    """Return the plan at about `points` numbers of connections from `first` to `last`, evenly spaced in the logarithm.

    The numbers just below and above the exhaustion of each tier are among them, so that edges are sharp.

    Raises:
        ValueError: the range is empty or does not start above 0.
        PlacementError: a tier can run none of its models.
    """
    if not 0 < first < last < math.inf:
        raise ValueError(f"the range must rise from above 0, got {first:g} to {last:g}: give such as 1 to 500000")
    placements = place(gaid)
    limits = limits_of(gaid, placements, think_s)
    counts = _counts(first, last, points, [n for n in limits.exhausted_at.values() if n is not None])
    plans = make_plans(gaid, [Demand(connections=n, think_s=think_s) for n in counts], placements, limits)
    return Sweep(
        connections=tuple(counts),
        target_s=gaid.spec.objective.response_time.target.value,
        percentile=gaid.spec.objective.response_time.percentile,
        tiers=tuple(_curve(tier.name, plans) for tier in gaid.tiers_on),
        limits=limits,
        unserved=tuple(plan.unserved_rate / plan.rate if plan.rate else 0.0 for plan in plans),
    )


def _counts(first: float, last: float, points: int, edges: Sequence[float]) -> list[float]:
    step = math.log(last / first) / (points - 1)
    even = [first * math.exp(step * k) for k in range(points)]
    even[-1] = last
    sharp = [n * f for n in edges for f in (0.999, 1.001) if first < n * f < last]
    return sorted({*even, *sharp})


def _curve(tier: str, plans: Sequence[Plan]) -> TierCurve:
    pools = [[one for one in plan.pools if one.placement.tier == tier] for plan in plans]
    return TierCurve(
        tier=tier,
        response_s=tuple(max((one.response_s for one in some if one.rate > 0), default=math.nan) for some in pools),
        replicas=tuple(sum(one.replicas for one in some) for some in pools),
        utilisation=tuple(_utilisation(some) for some in pools),
        rate=tuple(sum(one.rate for one in some) for some in pools),
    )


def _utilisation(pools: Sequence[PoolPlan]) -> float:
    servers = sum(one.servers for one in pools)
    return sum(one.offered_load for one in pools) / servers if servers else math.nan
