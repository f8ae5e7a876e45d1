"""Inverse of Erlang C: the least number of servers that meets a target of the wait or the response.

The search starts where Halfin and Whitt ("Heavy-traffic limits for queues with many exponential servers", 1981) put it,
c = a + beta sqrt(a) with P(wait) = 1 / (1 + beta Phi(beta) / phi(beta)), which is right to a server or two, widens from
there until it holds the answer, and halves. Every probe is one exact Erlang C, so the answer is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

from tierserve.queueing._arrays import Real, array_of, is_scalar
from tierserve.queueing._validation import above_zero, at_least_zero, complain, fraction
from tierserve.queueing.erlang import erlang_c
from tierserve.queueing.mmc import response_survival

_LOAD = "give the offered load in erlangs: arrival rate x mean service time"
_S = "give seconds"
_BETA_MAX = 40.0
_SQRT_2PI = math.sqrt(2.0 * math.pi)
_SQRT_HALF = math.sqrt(0.5)


@dataclass(frozen=True, slots=True)
class _Targets:
    """What must hold, times in mean service times; `inf` asks for nothing."""

    p_wait: float
    mean_wait: float
    wait: float
    response: float
    miss: float
    service: float | None

    def met(self, p_wait: float, spare: float) -> bool:
        """Return whether a queue with P(wait) = `p_wait` and `spare` = c - a > 0 meets every target."""
        return (
            p_wait <= self.p_wait
            and p_wait <= self.mean_wait * spare
            and (p_wait <= self.miss or p_wait * math.exp(-spare * self.wait) <= self.miss)
            and (self.response == math.inf or self._response_met(p_wait, spare))
        )

    def _response_met(self, p_wait: float, spare: float) -> bool:
        if self.service is None:
            return response_survival(p_wait, spare, self.response) <= self.miss
        return p_wait <= self.miss or p_wait * math.exp(-spare * (self.response - self.service)) <= self.miss


@overload
def servers_for(
    a: float,
    *,
    max_p_wait: float | None = ...,
    max_mean_wait: float | None = ...,
    max_wait_quantile: float | None = ...,
    max_mean_response: float | None = ...,
    max_response_quantile: float | None = ...,
    q: float = ...,
    mu: float = ...,
    service_quantile_s: float | None = ...,
    z: float = ...,
) -> int: ...
@overload
def servers_for(
    a: Real,
    *,
    max_p_wait: float | None = ...,
    max_mean_wait: float | None = ...,
    max_wait_quantile: float | None = ...,
    max_mean_response: float | None = ...,
    max_response_quantile: float | None = ...,
    q: float = ...,
    mu: float = ...,
    service_quantile_s: float | None = ...,
    z: float = ...,
) -> int | npt.NDArray[np.int64]: ...
def servers_for(
    a: Real,
    *,
    max_p_wait: float | None = None,
    max_mean_wait: float | None = None,
    max_wait_quantile: float | None = None,
    max_mean_response: float | None = None,
    max_response_quantile: float | None = None,
    q: float = 0.95,
    mu: float = 1.0,
    service_quantile_s: float | None = None,
    z: float = 1.0,
) -> int | npt.NDArray[np.int64]:
    """Return the least whole number of servers that carries `a` erlangs and meets every target given.

    Exact as an inverse: one server less misses a target. What the target is worth is the error of the formula that it
    is probed with: `erlang_c` and `wait_quantile` are exact for M/M/c, `z` is as good as `hayward_c`, and
    `service_quantile_s` as `response_quantile` with it, on the safe side.

    Args:
        a: offered load in erlangs, >= 0: a number, or an array for an array of answers.
        max_p_wait: the largest share of requests that may wait, in (0, 1].
        max_mean_wait: the longest mean wait in seconds, > 0.
        max_wait_quantile: the longest wait at the quantile `q`, in seconds, >= 0.
        max_mean_response: the longest mean of wait + service in seconds, > 1 / mu.
        max_response_quantile: the longest wait + service at the quantile `q`, in seconds.
        q: quantile of the two above, in (0, 1).
        mu: requests one server finishes per second; leave 1 to give times in mean service times.
        service_quantile_s: the quantile `q` of the service time if service is nearly constant; None: exponential.
        z: peakedness of the arrivals (Hayward); 1 for Poisson.

    Returns:
        An int, 0 where a is 0; for an array, an int64 array of its shape.

    Raises:
        ValueError: an argument is out of its range, no target is given, or no number of servers meets it because the
            service alone takes longer.
    """
    if all(x is None for x in (max_p_wait, max_mean_wait, max_wait_quantile, max_mean_response, max_response_quantile)):
        raise ValueError("servers_for needs a target, got none: give max_p_wait, max_mean_wait or another max_...")
    miss = 1.0 - fraction("q", q, "give a quantile such as 0.95")
    each = above_zero("mu", mu, "give the requests per second that one server finishes")
    service = None if service_quantile_s is None else each * at_least_zero("service_quantile_s", service_quantile_s, _S)
    targets = _Targets(
        p_wait=_p_wait(max_p_wait),
        mean_wait=min(_mean_wait(max_mean_wait, each), _mean_response_slack(max_mean_response, each)),
        wait=math.inf
        if max_wait_quantile is None
        else each * at_least_zero("max_wait_quantile", max_wait_quantile, _S),
        response=_response_limit(max_response_quantile, miss, each, service),
        miss=miss,
        service=service,
    )
    peak = above_zero("z", z, "give 1 for Poisson arrivals, more for bursts")
    if is_scalar(a):
        return _least(at_least_zero("a", a, _LOAD), targets, peak)
    loads = array_of("a", a, _LOAD)
    answers = [_least(float(load), targets, peak) for load in loads.flat]
    return np.array(answers, dtype=np.int64).reshape(loads.shape)


def halfin_whitt(beta: float) -> float:
    """Return the limit of P(wait) with a + beta sqrt(a) servers as a grows, beta > 0 (Halfin and Whitt, 1981).

    It is below `erlang_c`, for beta of 0.2 to 2 by up to 0.041 at a = 10, 0.014 at 100, 0.0015 at 1e4, 0.00015 at 1e6.
    """
    density = math.exp(-0.5 * beta * beta) / _SQRT_2PI
    return density / (density + beta * 0.5 * math.erfc(-beta * _SQRT_HALF))


def _p_wait(value: float | None) -> float:
    if value is not None and not 0.0 < value <= 1.0:
        raise complain("max_p_wait", value, "in (0, 1]", "give a share such as 0.2: a wait can be made rare, not never")
    return 1.0 if value is None else float(value)


def _mean_wait(value: float | None, mu: float) -> float:
    return math.inf if value is None else mu * above_zero("max_mean_wait", value, _S)


def _mean_response_slack(value: float | None, mu: float) -> float:
    if value is None:
        return math.inf
    slack = mu * above_zero("max_mean_response", value, _S) - 1.0
    if slack <= 0.0:
        raise complain(
            "max_mean_response", value, f"> 1 / mu = {1 / mu:.6g} s, the service alone", "give a longer time"
        )
    return slack


def _response_limit(value: float | None, miss: float, mu: float, service: float | None) -> float:
    if value is None:
        return math.inf
    limit = mu * above_zero("max_response_quantile", value, _S)
    alone = -math.log(miss) if service is None else service
    if limit < alone or (service is None and limit == alone):
        need = f">= {alone / mu:.6g} s, the same quantile of the service alone"
        raise complain("max_response_quantile", value, need, "give a longer time, or a faster server")
    return limit


def _least(a: float, targets: _Targets, z: float) -> int:
    if a == 0.0:
        return 0

    def good(c: int) -> bool:
        return c > a and targets.met(erlang_c(c / z, a / z), (c - a) / z)

    floor = math.floor(a) + 1
    start = max(floor, math.floor(a + z * _start(a / z, targets)))
    return smallest(good, start, floor)


def _start(a: float, targets: _Targets) -> float:
    """Servers above the load by the limit of Halfin and Whitt, to 1/1000 of a standard deviation."""
    low, high, root = 0.0, _BETA_MAX, math.sqrt(a)
    for _ in range(15):
        beta = 0.5 * (low + high)
        if targets.met(halfin_whitt(beta), beta * root):
            high = beta
        else:
            low = beta
    return high * root


def smallest(good: Callable[[int], bool], start: int, floor: int) -> int:
    """Least integer >= floor for which `good` (false, then true) holds, looked for outwards from `start`."""
    step = 1
    if good(start):
        high, low = start, start - step
        while low >= floor and good(low):
            high, step = low, 2 * step
            low = high - step
        low = max(low, floor - 1)
    else:
        low, high = start, start + step
        while not good(high):
            low, step = high, 2 * step
            high = low + step
    while high - low > 1:
        mid = (low + high) // 2
        low, high = (low, mid) if good(mid) else (mid, high)
    return high
