"""Replicas of every pool for so many connections, and the number of connections at which each tier is exhausted.

A pool of R replicas with n slots is taken as M/M/c with c = R n servers whose service time is that of a full replica,
T(n): cautious, since a replica that is not full is faster. It meets the objective if

    t_UL + quantile of the wait + quantile of the service + t_DL <= target.

Demand fills the tiers in the order of overflow, the sites of a tier in equal parts; classes that fewer tiers may serve
are placed first. What no tier can take within the objective is not served.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from tierserve.api.deployment import GenAIDeployment
from tierserve.plan.energy import Energy, energy_of
from tierserve.plan.placement import Placement, place
from tierserve.queueing.closed import fixed_point
from tierserve.queueing.erlang import erlang_c
from tierserve.queueing.response import mean_wait, wait_quantile
from tierserve.queueing.staffing import servers_for

UNREACHABLE_WAIT = 0.1
"""Where service alone misses the target: the wait may add this share of the service time at the percentile."""
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
        offered_load, utilisation: a = lambda T(n), and a / c.
        p_wait: C(c, a).
        wait_s, service_s: quantiles of the wait and of the service in a batch as full as it is busy.
        response_s: t_UL + wait_s + service_s + t_DL.
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
    service_s: float
    response_s: float
    mean_response_s: float
    meets: bool
    binds: str
    energy: Energy

    @property
    def inference_s(self) -> float:
        """t_inference: wait and service together."""
        return self.wait_s + self.service_s

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


def wait_budget(placement: Placement) -> float:
    """Return the seconds a request may wait at the percentile: what the service leaves of the target.

    Where the service leaves nothing, a tenth of it, so that the pool is at least not slowed by its queue.
    """
    left = placement.target_s - placement.service_quantile_s
    return left if left > 0.0 else UNREACHABLE_WAIT * placement.service_quantile_s


def replicas_for(placement: Placement, rate: float) -> int:
    """Return the least replicas that keep the wait at `rate` per second in its budget; bounds do not count here."""
    servers = servers_for(
        rate * placement.service_s,
        max_wait_quantile=wait_budget(placement),
        q=placement.percentile / 100.0,
        mu=1.0 / placement.service_s,
    )
    return math.ceil(servers / placement.slots)


@lru_cache(maxsize=4096)
def most_rate(placement: Placement, replicas: int) -> float:
    """Return the highest rate, in requests per second, at which `replicas` replicas keep the wait in its budget."""
    servers, budget = replicas * placement.slots, wait_budget(placement)
    mu, q = 1.0 / placement.service_s, placement.percentile / 100.0
    return _largest_where(lambda rate: wait_quantile(servers, rate, mu, q) <= budget, servers * mu)


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
    mu, q = 1.0 / placement.service_s, placement.percentile / 100.0
    wait_s = wait_quantile(servers, rate, mu, q)
    service_s = placement.service_quantile_s * _fullness(placement, rate, replicas)
    response_s = placement.network_s + wait_s + service_s
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
        p_wait=erlang_c(servers, load) if load > 0 else 0.0,
        wait_s=wait_s,
        service_s=service_s,
        response_s=response_s,
        mean_response_s=placement.network_s + mean_wait(servers, rate, mu) + _mean_service(placement, rate, replicas),
        meets=response_s <= (placement.target_s + placement.network_s) * (1 + 1e-9),
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
        return min(one.network_s + _mean_service(one, 0.0, 1) for one in placements if one.tier == first)
    shares, unserved = allocate(gaid, placements, rate)
    times = {one.pool: one.network_s + one.service_s for one in placements}
    served = sum(shares[name] * times[name] for name in shares)
    return (served + unserved * max(times.values())) / rate


def _mean_service(placement: Placement, rate: float, replicas: int) -> float:
    """Mean service time with the batch as it is at this load: T is linear in n, and n = rate T / R (Little)."""
    work = (placement.input_tokens, placement.output_tokens)
    alone = placement.profile.service_time(1.0, *work)
    slope = (placement.service_s - alone) / (placement.slots - 1) if placement.slots > 1 else 0.0
    crowd = slope * rate / max(replicas, 1)
    return min(placement.service_s, alone / (1.0 - crowd)) if crowd < 1.0 else placement.service_s


def _fullness(placement: Placement, rate: float, replicas: int) -> float:
    """Service time in a batch as full as it is in 95 of 100 moments, over that in a full replica; at most 1."""
    others = min(placement.slots, rate * _mean_service(placement, rate, replicas) / max(replicas, 1))
    batch = min(placement.slots, 1.0 + others + 1.645 * math.sqrt(others))
    work = (placement.input_tokens, placement.output_tokens)
    return placement.profile.service_time(batch, *work) / placement.service_s
