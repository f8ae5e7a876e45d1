"""One pool of batching replicas and the objective: what R replicas take, and how many a rate needs.

A request keeps the objective if t_UL + wait + service + t_DL <= target; the share that does not may be 1 - percentile.
Wait and service are those of `queueing.batching.response`: batches as full as they are, one queue before all replicas.
Where prompts are so long that reading them holds up answers (`held_up`), they are those of
`queueing.batching.prefill_stalls`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from tierserve.plan.placement import Placement
from tierserve.queueing.batching.prefill_stalls import prompt_response, unevenness
from tierserve.queueing.batching.response import BatchResponse, BatchWork, batch_response
from tierserve.queueing.staffing import halfin_whitt, smallest

UNREACHABLE_WAIT = 0.1
"""Where service alone misses the target: the wait may add this share of the service time at the percentile."""
ALMOST = 1e-3
"""Share of what may miss that is added where sizes that are always too long use it up."""
NOTABLE = 0.025
"""`unevenness` of requests from which on prompts are taken as read in one step each. Below it the simulated p95 was at
most 5% above that of even steps with 16 slots, and 10% with 32 in a single replica; mostly 3% or less."""
_CLOSE = 1e-10
_LEAST = 1e-300
_MOST_REPLICAS = 1 << 40
_BETA_MAX = 8.0
_MANY = 8
"""Replicas from which on a guess saves more than it takes."""


@lru_cache(maxsize=4096)
def work_of(placement: Placement) -> BatchWork:
    """Return a replica and the sizes of its requests; where only means are known, waits are as for exponential ones."""
    cs2 = None if placement.spread_known else 1.0
    return BatchWork(placement.profile, placement.slots, placement.mixture, cs2)


@lru_cache(maxsize=4096)
def held_up(placement: Placement) -> bool:
    """Return whether prompts are so long that answers beside them wait notably while they are read, at any load."""
    return placement.slots > 1 and unevenness(work_of(placement)) > NOTABLE


def response_of(placement: Placement, replicas: int, rate: float) -> BatchResponse:
    """Return wait and service at `rate` requests per second with `replicas` replicas (at least 1)."""
    return (prompt_response if held_up(placement) else batch_response)(rate, replicas, work_of(placement))


def reachable(placement: Placement) -> bool:
    """Return whether a full replica keeps the objective for requests that do not wait."""
    return placement.service_quantile_s < placement.target_s


@lru_cache(maxsize=4096)
def may_miss(placement: Placement) -> float:
    """Return the share of the requests that may take too long.

    Sizes that are too long even alone use it up. Where they are just that share, a thousandth more is allowed: else
    no request could ever wait, and no number of replicas ensures that.
    """
    share, work = 1.0 - placement.percentile / 100.0, work_of(placement)
    too_long = float(work.shares[work.services(1.0 / float(work.rates[0])) > placement.target_s].sum())
    return max(share, too_long + ALMOST * share) if 0.0 < too_long <= share * (1.0 + ALMOST) else share


def miss(placement: Placement, response: BatchResponse) -> float:
    """Return the share of the requests that take too long.

    Where service alone is too long no number of replicas helps. Then it is the share that waits for more than a tenth
    of the service, so that the pool is at least not slowed by its queue.
    """
    return _goal_of(placement).miss(response)


def meets(placement: Placement, replicas: int, rate: float) -> bool:
    """Return whether `replicas` replicas keep the objective at `rate` requests per second."""
    return _goal_of(placement).met(replicas, rate)


def even_meets(placement: Placement, replicas: int, rate: float) -> bool:
    """Return the same where the reading of a prompt is spread evenly over the steps of its request."""
    return _even_goal_of(placement).met(replicas, rate)


@dataclass(frozen=True, slots=True)
class _Goal:
    """What does not depend on rate and replicas: to look it up in the cache by a placement takes longer than to use it.

    Attributes:
        work: a replica and the sizes of its requests.
        rate: requests per second that a full replica finishes.
        allowed: share of the requests that may take too long.
        target_s: the time they may take, without the network; None where service alone takes longer.
        patience_s: what they may wait then.
        respond: response times of a rate, replicas and the work.
    """

    work: BatchWork
    rate: float
    allowed: float
    target_s: float | None
    patience_s: float
    respond: Callable[[float, int, BatchWork], BatchResponse]

    def miss(self, response: BatchResponse) -> float:
        if self.target_s is not None:
            return response.survival(self.target_s)
        return response.wait_survival(self.patience_s)

    def met(self, replicas: int, rate: float) -> bool:
        if rate <= 0.0:
            return True
        if rate >= replicas * self.rate:
            return False
        return self.miss(self.respond(rate, replicas, self.work)) <= self.allowed

    def excess(self, rate: float, replicas: int) -> float:
        """ln of what misses over what may, > 0 where it is too much."""
        return math.log(max(self.miss(self.respond(rate, replicas, self.work)), _LEAST) / self.allowed)

    def guess(self, rate: float) -> int:
        """Replicas by the limit of Halfin and Whitt, with the waits of exponential service."""
        slots, full_s, alone_s = self.work.slots, self.work.full_s, self.work.alone_s
        each = (full_s - alone_s) / max(slots - 1, 1)
        sd = full_s * math.sqrt(rate / max(alone_s - each, ALMOST * alone_s))  # batches slow down: above sqrt(a)
        left = self.patience_s if self.target_s is None else max(self.target_s - full_s, 0.0)
        low, high = 0.0, _BETA_MAX
        for _ in range(8):
            beta = 0.5 * (low + high)
            enough = halfin_whitt(beta) * math.exp(-beta * sd / full_s * left) <= self.allowed
            low, high = (low, beta) if enough else (beta, high)
        return math.ceil((rate * full_s + high * sd) / slots)


@lru_cache(maxsize=4096)
def _even_goal_of(placement: Placement) -> _Goal:
    target_s = placement.target_s if reachable(placement) else None
    patience_s = UNREACHABLE_WAIT * placement.service_quantile_s
    return _Goal(work_of(placement), placement.rate, may_miss(placement), target_s, patience_s, batch_response)


@lru_cache(maxsize=4096)
def _goal_of(placement: Placement) -> _Goal:
    even = _even_goal_of(placement)
    return replace(even, respond=prompt_response) if held_up(placement) else even


def replicas_for(placement: Placement, rate: float) -> int:
    """Return the least replicas that keep the objective at `rate` per second, without the bounds of the pool."""
    return replicas_from(placement, rate, even_replicas_for(placement, rate))


def replicas_from(placement: Placement, rate: float, even: int) -> int:
    """Return `replicas_for` where `even` is what `even_replicas_for` says."""
    if even == 0 or not held_up(placement):
        return even
    goal = _goal_of(placement)  # no response is shorter than with even steps, so that no fewer replicas do
    return smallest(lambda r: r >= _MOST_REPLICAS or goal.met(r, rate), even, even)


def even_replicas_for(placement: Placement, rate: float) -> int:
    """Return what `replicas_for` would if the reading of a prompt were spread evenly over the steps of its request."""
    if rate <= 0.0:
        return 0
    goal = _even_goal_of(placement)
    floor = math.floor(rate / goal.rate)  # these cannot bear the load, or just so
    start = floor + 1 if floor < _MANY else max(floor + 1, goal.guess(rate))
    return smallest(lambda r: r >= _MOST_REPLICAS or goal.met(r, rate), start, floor + 1)


@lru_cache(maxsize=4096)
def most_rate(placement: Placement, replicas: int) -> float:
    """Return the highest rate, in requests per second, at which `replicas` replicas keep the objective."""
    if replicas <= 0:
        return 0.0
    goal = _even_goal_of(placement)
    capacity = replicas * goal.rate
    spare = min(0.9, 1.5 / math.sqrt(replicas * placement.slots))  # Halfin and Whitt: it grows with the square root
    even = last_where(lambda x: goal.excess(x, replicas), capacity * (1.0 - spare), capacity, -math.log(goal.allowed))
    if not held_up(placement) or even <= 0.0:
        return even
    goal = _goal_of(placement)
    above = goal.excess(even, replicas)
    return last_where(lambda x: goal.excess(x, replicas), 0.8 * even, even, above) if above > 0.0 else even


def last_where(excess: Callable[[float], float], guess: float, high: float, at_high: float) -> float:
    """Return the largest x < high with excess(x) <= 0, excess rising, to ten digits and never beyond.

    By regula falsi (Illinois); `at_high` > 0 is excess(high), `guess` in (0, high) where to begin.
    """
    low, at_low = guess, excess(guess)
    while at_low > 0.0:
        high, at_high = low, at_low
        low *= 0.5
        at_low = excess(low) if low > high * _LEAST else -1.0
    side = 0
    for _ in range(100):
        if high - low <= _CLOSE * high:
            break
        x = (low * at_high - high * at_low) / (at_high - at_low)
        x = min(max(x, low + 0.2 * _CLOSE * high), high - 0.2 * _CLOSE * high)
        y = excess(x)
        if y > 0.0:
            high, at_high = x, y
            at_low *= 0.5 if side > 0 else 1.0
            side = 1
        else:
            low, at_low = x, y
            at_high *= 0.5 if side < 0 else 1.0
            side = -1
    return low
