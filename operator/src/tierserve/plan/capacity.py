"""Replicas of every pool for so many connections, and the number of connections at which each tier is exhausted.

A pool of R replicas with n slots each is one queue before batches that slow as they fill (`plan.pool`). It meets the
objective if the share of requests with t_UL + wait + service + t_DL > target is at most 1 - percentile.

Demand fills the tiers in the order of overflow, the sites of a tier in equal parts; classes that fewer tiers may serve
are placed first. What no tier can take within the objective is not served.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tierserve.api.deployment import GenAIDeployment
from tierserve.plan.energy import Energy, energy_of
from tierserve.plan.placement import Placement, place
from tierserve.plan.pool import may_miss, most_rate, replicas_for, response_of
from tierserve.queueing.closed import fixed_point

_MOST_RATE = 1e12


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
        """Response time at the percentile, the worst of the pools that serve; 0 where nobody asks."""
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
    pools = tuple(place(gaid) if placements is None else placements)
    rate = demand.rate if demand.rate is not None else _rate_of(gaid, pools, demand)
    shares, unserved = allocate(gaid, pools, rate)
    known = limits or limits_of(gaid, pools, demand.think_s)
    return Plan(
        connections=demand.connections
        if demand.connections is not None
        else _connections(gaid, pools, demand.think_s, rate),
        rate=rate,
        think_s=demand.think_s,
        pools=tuple(pool_plan(gaid, one, shares[one.pool]) for one in pools),
        unserved_rate=unserved,
        exhausted_at=known.exhausted_at,
        served_up_to=known.served_up_to,
    )


def pool_plan(gaid: GenAIDeployment, placement: Placement, rate: float) -> PoolPlan:
    """Return one pool at `rate` requests per second, with the replicas that the objective and the bounds give it."""
    needed = replicas_for(placement, rate)
    wanted = replicas_for(placement, rate * (1.0 + placement.headroom))
    replicas = min(max(wanted, placement.min_replicas), placement.max_replicas)
    servers, load = replicas * placement.slots, rate * placement.service_s
    response, q = response_of(placement, max(replicas, 1), rate), placement.percentile / 100.0
    there = replicas > 0 or rate == 0.0
    inference_s = response.quantile(q) if there else math.inf
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
        p_wait=response.queue.p_wait if there else 1.0,
        wait_s=response.wait_quantile(q) if there else math.inf,
        inference_s=inference_s,
        response_s=placement.network_s + inference_s,
        mean_response_s=placement.network_s + (response.mean_response if there else math.inf),
        meets=there and (rate == 0.0 or response.survival(placement.target_s) <= may_miss(placement)),
        binds=_binds(full, needed, wanted, replicas),
        energy=energy_of(gaid.tier(placement.tier), replicas, min(1.0, utilisation), rate),
    )


def _binds(full: bool, needed: int, wanted: int, replicas: int) -> str:
    if full:
        return "replicas.max"
    if wanted < replicas:
        return "replicas.min"
    return "replicas.headroom" if needed < wanted else "objective"


def allocate(gaid: GenAIDeployment, placements: Sequence[Placement], rate: float) -> tuple[dict[str, float], float]:
    """Return the requests per second of each pool by name, and those that no tier can take.

    Classes with fewer tiers to go to are placed first; each fills its tiers in the order of overflow, the sites of a
    tier in proportion to what they can take.
    """
    room = {one.pool: most_rate(one, one.max_replicas) for one in placements}
    given = dict.fromkeys(room, 0.0)
    total = sum(one.share for one in gaid.spec.traffic) or 1.0
    unserved = 0.0
    for traffic in sorted(gaid.spec.traffic, key=lambda one: len(gaid.tiers_for(one))):
        left = rate * traffic.share / total
        for tier in gaid.tiers_for(traffic):
            left -= _fill(tier.pools, left, room, given)
        unserved += left if left > rate * 1e-12 else 0.0
    return given, unserved


def _fill(pools: Sequence[str], rate: float, room: Mapping[str, float], given: dict[str, float]) -> float:
    spare = {name: max(0.0, room[name] - given[name]) for name in pools if name in room}
    most = sum(spare.values())
    taken = min(rate, most)
    for name, part in spare.items():
        given[name] += taken * part / most if most > 0 else 0.0
    return taken


def limits_of(gaid: GenAIDeployment, placements: Sequence[Placement], think_s: float | None = None) -> Limits:
    """Return the connections at which each tier is exhausted, and at which the first request finds no room at all."""
    found: dict[str, float | None] = {}
    for tier in gaid.spec.tiers:
        rate = _most(lambda rate, name=tier.name: _is_full(gaid, placements, name, rate))  # type: ignore[misc]
        found[tier.name] = None if rate >= _MOST_RATE else _connections(gaid, placements, think_s, rate)
    last = _most(lambda rate: allocate(gaid, placements, rate)[1] > 0)
    return Limits(found, _connections(gaid, placements, think_s, last))


def refused_from(gaid: GenAIDeployment, exhausted_at: Mapping[str, float | None]) -> dict[str, float]:
    """Return the connections from which on each traffic class, by name, finds all tiers that may serve it full."""
    return {
        one.name: max((exhausted_at[tier.name] or 0.0 for tier in gaid.tiers_for(one)), default=0.0)
        for one in gaid.spec.traffic
    }


def _is_full(gaid: GenAIDeployment, placements: Sequence[Placement], tier: str, rate: float) -> bool:
    shares, _ = allocate(gaid, placements, rate)
    mine = [one for one in placements if one.tier == tier]
    limit = sum(most_rate(one, one.max_replicas) for one in mine)
    return sum(shares[one.pool] for one in mine) >= limit * (1.0 - 1e-9)


def _most(over: Callable[[float], bool]) -> float:
    """Highest rate at which `over` (false, then true) is not yet true."""
    return _largest_where(lambda rate: not over(rate), _MOST_RATE)


def _largest_where(good: Callable[[float], bool], most: float) -> float:
    """Largest real number up to `most` for which `good` (true, then false) holds, to ten digits."""
    if good(most):
        return most
    low, high = 0.0, most
    scale = most
    while scale > most * 1e-24 and not good(scale):  # the answer may be many powers of ten below
        high, scale = scale, scale / 16.0
    low = scale if good(scale) else 0.0
    while high - low > 1e-11 * high:
        mid = 0.5 * (low + high)
        low, high = (mid, high) if good(mid) else (low, mid)
    return low


def _rate_of(gaid: GenAIDeployment, placements: Sequence[Placement], demand: Demand) -> float:
    n = demand.connections or 0.0
    if demand.think_s is None:
        return n
    think_s = demand.think_s
    return fixed_point(n, lambda rate: think_s + _mean_round(gaid, placements, rate))


def _connections(gaid: GenAIDeployment, placements: Sequence[Placement], think_s: float | None, rate: float) -> float:
    if think_s is None:
        return rate
    return rate * (think_s + _mean_round(gaid, placements, rate))


def _mean_round(gaid: GenAIDeployment, placements: Sequence[Placement], rate: float) -> float:
    """Mean seconds from sending a request to having the answer; a request that finds no room counts as the slowest."""
    if rate <= 0.0:
        first = gaid.overflow[0].name
        return min(one.network_s + response_of(one, 1, 0.0).mean_response for one in placements if one.tier == first)
    shares, unserved = allocate(gaid, placements, rate)
    times = {one.pool: one.network_s + one.service_s for one in placements}
    served = sum(shares[name] * times[name] for name in shares)
    return (served + unserved * max(times.values())) / rate
