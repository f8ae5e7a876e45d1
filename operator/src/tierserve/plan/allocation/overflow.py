"""Traffic that overflows is burstier than fresh traffic: how bursty, and what that costs the pool it goes to.

A planner that splits requests between tiers splits a Poisson stream at random, and both parts are Poisson again: such
shares are smooth, whatever tier they go to. What overflows is something else: requests sent to a pool that found all of
its slots taken at that moment and went to the next tier in the order. They come in clumps. With a erlangs offered to
c servers and m of them overflowing, the peakedness of what overflows (variance over mean of the servers it would keep
busy if there were no end of them) is

    z = 1 - m + a / (c + 1 - a + m)

(Wilkinson, "Theories for toll traffic engineering in the U.S.A.", Bell System Technical Journal 35, 1956). Of a stream
that is split at random a part p keeps 1 + p (z - 1); streams that join are weighted by their means.

A pool with arrivals of peakedness z is planned as c / z servers with a / z erlangs (Hayward; Fredericks, "Congestion in
blocking systems", 1980). Batches do not divide by z, so the ratio of the highest rates with and without z is taken of
M/M/c with the service time of a full replica, which is defined for any real c, and applied to the curve of the batches.
"""

from __future__ import annotations

import math
from functools import lru_cache

from tierserve.queueing.erlang import hayward_c

_STEPS = 34


def wilkinson(offered: float, servers: float, overflow: float) -> float:
    """Return z >= 1 of the traffic that overflows: `offered` and `overflow` in erlangs, to `servers` servers."""
    if overflow <= 0.0:
        return 1.0
    return max(1.0, 1.0 - overflow + offered / (servers + 1.0 - offered + overflow))


def split(z: float, part: float) -> float:
    """Return the peakedness of a random part of a stream."""
    return 1.0 + part * (z - 1.0)


@lru_cache(maxsize=16384)
def derate(servers: int, z: float, mu: float, budget_s: float, miss: float) -> float:
    """Return the rate that `servers` take of arrivals of peakedness z, over that of Poisson arrivals; 0 to 1.

    Args:
        servers: c.
        z: peakedness, >= 1.
        mu: requests one server finishes per second.
        budget_s, miss: P(wait > budget_s) must be at most `miss`.
    """
    return min(1.0, _most_load(servers, z, mu * budget_s, miss) / _most_load(servers, 1.0, mu * budget_s, miss))


def _most_load(servers: int, z: float, budget: float, miss: float) -> float:
    """Largest a with C(c / z, a / z) exp(-(c - a) budget / z) <= miss; `budget` in service times."""
    low, high = 0.0, float(servers)
    for _ in range(_STEPS):
        a = 0.5 * (low + high)
        late = hayward_c(servers, a, z) * math.exp(-(servers - a) * budget / z)
        low, high = (a, high) if late <= miss else (low, a)
    return low
