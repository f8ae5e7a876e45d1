"""Replicas of every pool for so many connections, and the number of connections at which each tier is exhausted.

A pool of R replicas with n slots each is one queue before batches that slow as they fill, and in which long prompts
hold up answers (`plan.pool_sizing`). It meets the objective if the share of requests with t_UL + wait + service + t_DL
> target is at most 1 - percentile.

How demand fills the tiers: `plan.tier_fill`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np

from tierserve.api.v1alpha1.deployment import GenAIDeployment
from tierserve.plan.energy import Energy, energy_of
from tierserve.plan.placement import Placement, place
from tierserve.plan.pool_sizing import even_replicas_for, held_up, may_miss, most_rate
from tierserve.plan.pool_sizing_batch import replicas_of_pools, responses_of_pools, size_pools
from tierserve.plan.tier_fill import TierFill


@dataclass(frozen=True, slots=True)
class Demand:
    """Who asks: `rate` requests per second, or `connections` that think `think_s` seconds between answer and request.

    With `connections` and no `think_s` every connection asks once a second, the paper's lambda = N (Z + W = 1 s).
    """

    connections: float | None = None
    rate: float | None = None
    think_s: float | None = None

    def __post_init__(self) -> None:
        if (self.connections is None) == (self.rate is None):
            raise ValueError("Demand needs either connections or rate: give exactly one of them")
        if min(self.connections or 0.0, self.rate or 0.0, self.think_s or 0.0) < 0.0:
            raise ValueError(f"Demand must not be negative, got {self}: give numbers >= 0")


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """One pool in the plan; times in seconds at the objective's percentile, rates per second.

    Attributes:
        placement: the pool.
        rate: requests per second that it gets.
        capacity: the most it can take within the objective, with all its replicas.
        replicas, servers: R and c = R n.
        offered_load, utilisation: a = lambda T(n), and a / c; T(n) is the service time in a full replica.
        p_wait: share of the requests that find all slots taken.
        wait_s: quantile of the wait.
        inference_s: quantile of wait and service together, in batches as full as they are.
        response_s: t_UL + inference_s + t_DL.
        mean_response_s: the mean of the same.
        meets: whether response_s keeps the target with this rate.
        binds: what sets the number of replicas: `objective`, or `min`, `max` or `headroom` of `replicas`.
        for_long_prompts: how many of the replicas there are because prompts are long and hold up answers.
        energy: watts, money and carbon.
    """

    placement: Placement
    rate: float
    capacity: float
    replicas: int
    servers: int
    offered_load: float
    utilisation: float
    p_wait: float
    wait_s: float
    inference_s: float
    response_s: float
    mean_response_s: float
    meets: bool
    binds: str
    for_long_prompts: int
    energy: Energy

    @property
    def exhausted(self) -> bool:
        """Whether the pool takes all it can."""
        return self.rate > 0.0 and self.rate >= self.capacity * (1.0 - 1e-9)


@dataclass(frozen=True, slots=True)
class Plan:
    """Every pool for one demand.

    Attributes:
        connections: N; with a rate given, the connections that would make it.
        rate: all requests per second.
        think_s: Z, or None for the paper's lambda = N.
        pools: in the order of the file.
        unserved_rate: requests per second that no tier can take within the objective.
        exhausted_at: connections at which each tier is full, by name; None where no class is routed to it.
        served_up_to: connections at which the first request finds no tier.
    """

    connections: float
    rate: float
    think_s: float | None
    pools: tuple[PoolPlan, ...]
    unserved_rate: float
    exhausted_at: Mapping[str, float | None]
    served_up_to: float

    @property
    def response_s(self) -> float:
        """Response time at the percentile, the worst of the pools that serve; 0 without traffic."""
        return max((one.response_s for one in self.pools if one.rate > 0), default=0.0)


@dataclass(frozen=True, slots=True)
class Limits:
    """Connections at which each tier is full (None: no class is routed to it), and at which all tiers are."""

    exhausted_at: Mapping[str, float | None]
    served_up_to: float


def make_plan(
    gaid: GenAIDeployment,
    demand: Demand,
    placements: Sequence[Placement] | None = None,
    limits: Limits | None = None,
) -> Plan:
    """Return the plan of `gaid` for `demand`.

    Args:
        gaid: the service.
        demand: connections or a rate.
        placements: as `place(gaid)` gives them; left out, they are made here.
        limits: as `limits_of` gives them; left out, they are worked out here (the dearest part).

    Raises:
        PlacementError: a tier can run none of its models.
    """
    return make_plans(gaid, [demand], placements, limits)[0]


def make_plans(
    gaid: GenAIDeployment,
    demands: Sequence[Demand],
    placements: Sequence[Placement] | None = None,
    limits: Limits | None = None,
) -> tuple[Plan, ...]:
    """Return `make_plan` of each demand, all with the same think time; the pools of all are planned at once."""
    pools = tuple(place(gaid) if placements is None else placements)
    tier_fill = TierFill(gaid, pools)
    rates = [_rate_of(tier_fill, one) for one in demands]
    filled = [tier_fill.shares(rate) for rate in rates]
    known = limits or (_limits_of(gaid, tier_fill, demands[0].think_s) if demands else Limits({}, 0.0))
    planned = iter(pool_plans(gaid, [(one, shares[one.pool]) for shares, _ in filled for one in pools]))
    return tuple(
        Plan(
            connections=tier_fill.connections(rate, one.think_s) if one.connections is None else one.connections,
            rate=rate,
            think_s=one.think_s,
            pools=tuple(islice(planned, len(pools))),
            unserved_rate=unserved,
            exhausted_at=known.exhausted_at,
            served_up_to=known.served_up_to,
        )
        for one, rate, (_, unserved) in zip(demands, rates, filled, strict=True)
    )


def pool_plan(gaid: GenAIDeployment, placement: Placement, rate: float) -> PoolPlan:
    """Return one pool at `rate` requests per second, with the replicas that the objective and the bounds give it."""
    return pool_plans(gaid, [(placement, rate)])[0]


def pool_plans(gaid: GenAIDeployment, pools: Sequence[tuple[Placement, float]]) -> list[PoolPlan]:
    """Return `pool_plan` of each pool and rate, all at once."""
    placements, rates = [one for one, _ in pools], [rate for _, rate in pools]
    found = size_pools(placements, rates)
    needed = found.replicas.tolist()
    wanted = _with_headroom(placements, rates, needed)
    bounded = [min(max(r, one.min_replicas), one.max_replicas) for one, r in zip(placements, wanted, strict=True)]
    if other := [k for k, r in enumerate(bounded) if r != needed[k]]:
        some = responses_of_pools(
            [placements[k] for k in other], [bounded[k] for k in other], [rates[k] for k in other]
        )
        found.put(np.array(other), some.columns)
    rows = zip(needed, wanted, *(column.tolist() for column in found.columns), strict=True)
    return [_pool_plan(gaid, one, rate, _Row(*row)) for (one, rate), row in zip(pools, rows, strict=True)]


def _with_headroom(placements: Sequence[Placement], rates: Sequence[float], needed: Sequence[int]) -> list[int]:
    wanted, ahead = list(needed), [k for k, one in enumerate(placements) if one.headroom > 0.0]
    more = [rates[k] * (1.0 + placements[k].headroom) for k in ahead]
    for k, replicas in zip(ahead, replicas_of_pools([placements[k] for k in ahead], more).tolist(), strict=True):
        wanted[k] = replicas
    return wanted


class _Row(NamedTuple):
    """Replicas that the rate needs, and with headroom; then one row of `PoolPlans`."""

    needed: int
    wanted: int
    replicas: int
    p_wait: float
    wait_s: float
    inference_s: float
    mean_s: float
    late: float


def _pool_plan(gaid: GenAIDeployment, placement: Placement, rate: float, found: _Row) -> PoolPlan:
    replicas, wanted = found.replicas, found.wanted
    servers, load = replicas * placement.slots, rate * placement.service_s
    there = replicas > 0 or rate == 0.0
    inference_s = found.inference_s if there else math.inf
    utilisation = load / servers if servers else 0.0
    capacity = most_rate(placement, placement.max_replicas)
    full = wanted > replicas or (rate > 0.0 and rate >= capacity * (1.0 - 1e-9))
    return PoolPlan(
        placement=placement,
        rate=rate,
        capacity=capacity,
        replicas=replicas,
        servers=servers,
        offered_load=load,
        utilisation=utilisation,
        p_wait=found.p_wait if there else 1.0,
        wait_s=found.wait_s if there else math.inf,
        inference_s=inference_s,
        response_s=placement.network_s + inference_s,
        mean_response_s=placement.network_s + (found.mean_s if there else math.inf),
        meets=there and (rate == 0.0 or found.late <= may_miss(placement)),
        binds=_binds(full, found.needed, wanted, replicas),
        for_long_prompts=_for_long_prompts(placement, rate, replicas),
        energy=energy_of(
            gaid.tier(placement.tier),
            replicas,
            utilisation=min(1.0, utilisation),
            rate=rate,
            slots=placement.slots,
            output_tokens=placement.output_tokens,
        ),
    )


def _for_long_prompts(placement: Placement, rate: float, replicas: int) -> int:
    if not held_up(placement):
        return 0
    even = even_replicas_for(placement, rate * (1.0 + placement.headroom))
    return max(0, replicas - min(max(even, placement.min_replicas), placement.max_replicas))


def _binds(full: bool, needed: int, wanted: int, replicas: int) -> str:
    if full:
        return "replicas.max"
    if wanted < replicas:
        return "replicas.min"
    return "replicas.headroom" if needed < wanted else "objective"


def allocate(gaid: GenAIDeployment, placements: Sequence[Placement], rate: float) -> tuple[dict[str, float], float]:
    """Return the requests per second of each pool by name, and those that no tier can take: `TierFill.shares`."""
    return TierFill(gaid, placements).shares(rate)


def limits_of(gaid: GenAIDeployment, placements: Sequence[Placement], think_s: float | None = None) -> Limits:
    """Return the connections at which each tier is exhausted, and at which the first request finds no room at all."""
    return _limits_of(gaid, TierFill(gaid, placements), think_s)


def _limits_of(gaid: GenAIDeployment, tier_fill: TierFill, think_s: float | None) -> Limits:
    rates = {tier.name: tier_fill.full_from(tier.name) for tier in gaid.tiers_on}
    found = {name: None if rate is None else tier_fill.connections(rate, think_s) for name, rate in rates.items()}
    return Limits(found, tier_fill.connections(tier_fill.served_up_to(), think_s))


def _rate_of(tier_fill: TierFill, demand: Demand) -> float:
    return tier_fill.rate_of(demand.connections or 0.0, demand.think_s) if demand.rate is None else demand.rate


def refused_from(gaid: GenAIDeployment, exhausted_at: Mapping[str, float | None]) -> dict[str, float]:
    """Return the connections from which on each traffic class, by name, finds all tiers that may serve it full."""
    return {
        one.name: max((exhausted_at[tier.name] or 0.0 for tier in gaid.tiers_for(one)), default=0.0)
        for one in gaid.spec.traffic
    }
