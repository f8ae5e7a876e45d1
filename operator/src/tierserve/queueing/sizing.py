"""How many replicas hold the response-time objective: Erlang C with peakedness, and the tail of wait plus service.

The wait has an atom at 0 and an exponential tail, P(W > t) = C exp(-r t) with C = C(c/z, a/z): by Hayward
a stream of peakedness z is to c servers what a Poisson stream of a/z erlangs is to c/z servers (Fredericks, "Congestion
in blocking systems", Bell System Technical Journal 59, 1980). The service time is taken as lognormal with the mean and
deviation that were observed; the response time is the sum of both, taken as independent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from tierserve.queueing.erlang import erlang_c

_EDGES = np.concatenate(
    [np.linspace(0.0, 0.9, 37), [0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 0.999, 1.0]]
)
_WEIGHTS = np.diff(_EDGES)
_NORMAL = ndtri((_EDGES[1:] + _EDGES[:-1]) / 2.0)
_NO_SPREAD = 1e-3  # a coefficient of variation below it is taken as a constant service time
_UNREACHABLE_SLACK = 0.1  # share of the service time that a wait may add where service alone misses the target
_LARGEST_BATCH = 1 << 22  # replicas at which a search gives up


@dataclass(frozen=True, slots=True)
class Demand:
    """What the servers of a pool must bear.

    Attributes:
        load: offered load a = lambda S, in erlangs, >= 0.
        service_s: mean service time S at the batch that is planned for, seconds, > 0.
        service_sd_s: its standard deviation, seconds, >= 0.
        peakedness: z, > 0; 1 for a Poisson stream.
    """

    load: float
    service_s: float
    service_sd_s: float = 0.0
    peakedness: float = 1.0

    def at(self, load: float) -> Demand:
        """Return the same demand at another offered load."""
        return Demand(max(load, 0.0), self.service_s, self.service_sd_s, self.peakedness)


@dataclass(frozen=True, slots=True)
class Objective:
    """P(response > target_s), and P(wait > max_wait_s), may be at most 1 - percentile / 100."""

    target_s: float
    percentile: float = 95.0
    max_wait_s: float = math.inf

    @property
    def may_miss(self) -> float:
        """The share of requests that may take longer than the target."""
        return 1.0 - self.percentile / 100.0


def wait_probability(servers: float, demand: Demand) -> float:
    """Return P(wait > 0) for `servers`, 1 if the load exceeds their capacity."""
    if servers <= demand.load:
        return 1.0
    return erlang_c(servers / demand.peakedness, demand.load / demand.peakedness)


def wait_decay(servers: float, demand: Demand) -> float:
    """Return the rate, per second, at which P(wait > t) falls for those who wait; the load is below the capacity.

    It is that of heavy traffic, 2 (c - a) / ((z + cs^2) S), with the squared coefficient of variation cs^2 of the
    service time (Whitt, "Approximations for the GI/G/m queue", 1993): for M/M/c it is exact. Without a known spread
    the service time is taken as exponential.
    """
    cs2 = (demand.service_sd_s / demand.service_s) ** 2 if demand.service_sd_s > 0.0 else 1.0
    return 2.0 * (servers - demand.load) / ((demand.peakedness + cs2) * demand.service_s)


def _service_points(demand: Demand) -> tuple[np.ndarray, np.ndarray]:
    cv = demand.service_sd_s / demand.service_s
    if cv < _NO_SPREAD:
        return np.array([demand.service_s]), np.array([1.0])
    sigma = math.sqrt(math.log1p(cv * cv))
    return demand.service_s * np.exp(sigma * _NORMAL - sigma * sigma / 2.0), _WEIGHTS


def service_miss(demand: Demand, target_s: float) -> float:
    """Return P(service > target): the share that misses the target with no wait at all."""
    points, weights = _service_points(demand)
    return float(weights[points > target_s].sum())


def response_miss(servers: float, demand: Demand, target_s: float) -> float:
    """Return P(response > target_s) with `servers` slots, 1 if the load exceeds their capacity."""
    if servers <= demand.load:
        return 1.0
    points, weights = _service_points(demand)
    slack = target_s - points
    waits = wait_probability(servers, demand) * np.exp(-wait_decay(servers, demand) * np.maximum(slack, 0.0))
    return float(weights @ np.where(slack < 0.0, 1.0, waits))


def response_quantile(servers: float, demand: Demand, percentile: float) -> float:
    """Return the response time (s) that `percentile` % of requests stay under; inf if the load exceeds the capacity.

    Between two service times of the k-th and the next, P(response > t) = P(service > t) + C e^(-r t) sum w e^(r s) over
    those up to the k-th, which is solved for t.
    """
    if servers <= demand.load:
        return math.inf
    points, weights = _service_points(demand)
    decay, waits = wait_decay(servers, demand), wait_probability(servers, demand)
    over = 1.0 - np.cumsum(weights)
    left = 1.0 - percentile / 100.0 - over
    first = int(np.argmax(left > 0.0))
    if waits <= 0.0:
        return float(points[first])
    sums = np.logaddexp.accumulate(np.log(weights) + decay * points)[first:]
    points, left = points[first:], left[first:]
    times = np.maximum((math.log(waits) + sums - np.log(left)) / decay, points)
    return float(times[int(np.argmax(times < np.r_[points[1:], math.inf]))])


def reachable(demand: Demand, objective: Objective) -> bool:
    """Return whether any number of servers meets the objective: the service time alone must."""
    return service_miss(demand, objective.target_s) <= objective.may_miss


def meets(servers: float, demand: Demand, objective: Objective) -> bool:
    """Return whether `servers` slots meet the objective.

    Where service alone misses it no number does; then a wait of more than a tenth of the service time must be as rare
    as a miss may be, so that the pool is as fast as replicas can make it at a bounded price.
    """
    if servers <= demand.load:
        return demand.load <= 0.0
    longest_s = objective.max_wait_s
    if not reachable(demand, objective):
        longest_s = min(longest_s, max(objective.target_s - demand.service_s, _UNREACHABLE_SLACK * demand.service_s))
    elif response_miss(servers, demand, objective.target_s) > objective.may_miss:
        return False
    waiting = wait_probability(servers, demand) * math.exp(-wait_decay(servers, demand) * longest_s)
    return waiting <= objective.may_miss


def replicas_for(demand: Demand, objective: Objective, slots: int) -> int:
    """Return the least number of replicas of `slots` each that hold the objective (0 for no load)."""
    if demand.load <= 0.0:
        return 0
    low = math.floor(demand.load / slots)  # these are at or below the load
    step, high = 1, low + 1
    while not meets(high * slots, demand, objective) and high < _LARGEST_BATCH:
        low, step = high, step * 2
        high += step
    while high - low > 1:
        mid = (low + high) // 2
        low, high = (low, mid) if meets(mid * slots, demand, objective) else (mid, high)
    return high
