"""The best allocation for connections, which ask the faster the sooner they are answered.

N connections that think for Z seconds ask lambda = N / (Z + W) times a second, and W is that of the allocation, which
depends on lambda. W jumps where another variant or tier becomes the best, so a rate with lambda (Z + W) = N need not
exist among the best allocations. What exists is the cheapest that can carry N: planned for some rate, it sees less than
that once N connections use it. That lesser rate solves the equation with replicas and shares held, where W is smooth.

The search keeps two rates: the highest known not to carry N (its users come back sooner than it was planned for) and
the least known to. Each step costs one programme; a handful is enough.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tierserve.api.v1alpha1.deployment import GenAIDeployment
from tierserve.plan.allocation.best import best_allocation
from tierserve.plan.allocation.candidates import Group, groups_of
from tierserve.plan.allocation.optimum import find, pool_share, summed
from tierserve.plan.allocation.relaxation import advise
from tierserve.plan.allocation.types import Allocation, Infeasible, PoolShare
from tierserve.plan.capacity import Demand
from tierserve.queueing.batching.response import batch_response
from tierserve.queueing.closed import fixed_point

_CLOSE, _SAME = 1e-3, 1e-9


def best_for(gaid: GenAIDeployment, demand: Demand) -> Allocation | Infeasible:
    """Return the best allocation for `demand`, or the smallest change that makes one possible.

    With connections and a think time, `rate` of the allocation times (Z + its mean response) is N, and its pools could
    take a little more: up to one part in a thousand, or up to the next jump of W.
    """
    if demand.rate is not None or demand.think_s is None or not demand.connections:
        return best_allocation(gaid, demand.rate if demand.rate is not None else demand.connections or 0.0)
    found = _carrying(gaid, demand.connections, demand.think_s)
    if isinstance(found, Allocation):
        return found
    told = advise(gaid, found.rate)
    if told.changed is None or isinstance(_carrying(told.changed, demand.connections, demand.think_s), Allocation):
        return told
    return advise(gaid, found.most)  # with the change it would answer sooner and be asked for more than it was made for


def at_rate(gaid: GenAIDeployment, planned: Allocation, rate: float) -> Allocation:
    """Return an allocation with its replicas and shares at another rate, above 0, that it can take."""
    factor = rate / planned.rate
    pools = [
        pool_share(
            gaid.tier(one.placement.tier),
            one.option,
            one.placement.site,
            replicas=one.replicas,
            rates={name: part * factor for name, part in one.rates.items()},
            overflow=one.overflow * factor,
            z=one.peakedness,
        )
        for one in planned.pools
    ]
    return summed(gaid, rate, pools, planned.gap)


@dataclass(frozen=True, slots=True)
class _Failed:
    """No allocation carries the connections: a rate they would ask at that is too high, and the most they ever ask."""

    rate: float
    most: float


def _carrying(gaid: GenAIDeployment, connections: float, think_s: float) -> Allocation | _Failed:
    groups = groups_of(gaid)
    target_s = gaid.spec.objective.response_time.target.value
    low, most = connections / (think_s + target_s), connections / (think_s + _soonest(groups, target_s))
    best: Allocation | None = None
    high, trial, asked = most, most, 0.0
    while True:
        planned = find(gaid, trial, groups=groups)
        if planned is None:
            high, guess = trial, low
        elif (rate := connections / (think_s + planned.mean_response_s)) > trial * (1.0 + _SAME):
            low, asked, guess = trial, rate, rate
        else:
            best = at_rate(gaid, planned, _rate_of(planned, connections, think_s))
            high, guess = trial, best.rate
            if guess > trial * (1.0 - _SAME):
                return best
        if high - low <= _CLOSE * high:
            return best or _Failed(max(asked, high), most)
        trial = guess if low < guess < high else 0.5 * (low + high)


def _rate_of(planned: Allocation, connections: float, think_s: float) -> float:
    """The rate at which connections ask for an allocation that carries them."""
    parts = [(one.rate / planned.rate, one.mean_response_s - _in_replicas(one, 1.0), one) for one in planned.pools]

    def cycle(rate: float) -> float:
        factor = rate / planned.rate
        return think_s + sum(part * (network_s + _in_replicas(one, factor)) for part, network_s, one in parts)

    return fixed_point(connections, cycle, math.nextafter(planned.rate, math.inf))


def _in_replicas(one: PoolShare, factor: float) -> float:
    """Mean seconds of wait and service where a pool has `factor` of the work it was planned for."""
    return batch_response(one.work * factor, one.replicas, one.option.work).mean_response


def _soonest(groups: Sequence[Group], target_s: float) -> float:
    """Mean seconds in which an empty service answers at the soonest."""
    options = [option for group in groups for option in group.options if option.uses]
    alone = (min(use.network_s for use in one.uses.values()) + 1.0 / float(one.rates[0]) for one in options)
    return min(alone, default=target_s)
