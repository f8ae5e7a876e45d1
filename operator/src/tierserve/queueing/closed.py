"""Connections as a closed population: N users who think for Z seconds, ask, and wait for the answer.

They offer lambda = N / (Z + W) requests per second, and W depends on lambda: a fixed point. W grows with lambda, so
lambda (Z + W(lambda)) - N has exactly one root. The paper takes lambda = N, which is the case Z + W = 1 s.

Arrivals are taken as Poisson of that rate (an open queue), which is an upper estimate of the wait for small N: of N
users that share c >= N servers none ever waits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import overload

import numpy as np

from tierserve.queueing._arrays import Array, Real, array_of, is_scalar
from tierserve.queueing._validation import above_zero, at_least_zero, complain
from tierserve.queueing.mmc import mean_response

_N = "give the number of connections"


@overload
def closed_rate(n: float, think_s: float, *, c: float, mu: float, network_s: float = 0.0) -> float: ...
@overload
def closed_rate(n: Real, think_s: float, *, c: float, mu: float, network_s: float = 0.0) -> float | Array: ...
def closed_rate(n: Real, think_s: float, *, c: float, mu: float, network_s: float = 0.0) -> float | Array:
    """Return lambda = n / (Z + W(lambda)), the requests per second of n connections at an M/M/c service.

    Errors beside the exact population (machine repairmen: Palm, 1947; exponential think times of 0.5 to 20 services, n
    from half to twice what fills the servers): never too high, so that the response is never too short. The rate is
    up to 35% too low with 1 server, 18% with 4, 9% with 16, 4.5% with 64, and the mean response up to 79, 30, 17 and
    11% too long; worst where n is what just fills the servers, nothing to speak of at half of it with 16 or more.

    Args:
        n: connections, real, >= 0.
        think_s: Z, mean seconds between an answer and the next request, >= 0.
        c: servers, > 0.
        mu: requests one server finishes per second, > 0.
        network_s: seconds of uplink and downlink, part of W, >= 0.

    Returns:
        A float below c mu; for an array of n, an array of its shape.

    Raises:
        ValueError: an argument is out of its range.
    """
    servers = above_zero("c", c, "give at least a part of a server: with none no request ends")
    each = above_zero("mu", mu, "give the requests per second that one server finishes")
    away = at_least_zero("think_s", think_s, "give seconds") + at_least_zero("network_s", network_s, "give seconds")

    def cycle(lam: float) -> float:
        return away + mean_response(servers, lam, each)

    if is_scalar(n):
        return fixed_point(at_least_zero("n", n, _N), cycle, servers * each)
    sizes = array_of("n", n, _N)
    return np.array([fixed_point(float(x), cycle, servers * each) for x in sizes.flat]).reshape(sizes.shape)


def fixed_point(n: float, cycle: Callable[[float], float], capacity: float = math.inf) -> float:
    """Return the rate with rate x cycle(rate) = n, by Brent's method to 1e-14 relative.

    Args:
        n: connections, >= 0.
        cycle: seconds of one round (think, network, wait, service) at a rate, > 0; does not fall as the rate grows.
        capacity: requests per second that the rate stays under; cycle may be `inf` from there on.

    Raises:
        ValueError: a round takes no time at all, so that no rate is too high.
    """
    shortest = cycle(0.0)
    if shortest <= 0.0:
        raise complain("cycle", shortest, "> 0 s", "give a think time or a service that takes time")
    if n == 0.0:
        return 0.0
    top = n / shortest
    if top >= capacity:
        top = math.nextafter(capacity, 0.0)

    def excess(lam: float) -> float:
        return lam * cycle(lam) - n

    if excess(top) <= 0.0:  # so near to capacity that no float lies between
        return top
    from scipy.optimize import brentq  # half a second to import, and seldom needed

    return float(brentq(excess, 0.0, top, xtol=1e-15 * top, rtol=1e-14))
