"""How demand fills the tiers: which class goes where, how much each pool takes, and what is left.

Demand fills the tiers in the order of overflow, the sites of a tier in proportion to what they can take; classes that
fewer tiers may serve are placed first. What no tier can take within the objective is not served.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tierserve.api.v1alpha1.deployment import GenAIDeployment
from tierserve.plan.placement import Placement
from tierserve.plan.pool_sizing import most_rate, response_of
from tierserve.queueing.closed import fixed_point

_MOST_RATE = 1e12


class TierFill:
    """The ways of the classes of a service through its tiers, worked out once for any number of rates.

    Attributes:
        room: the most that each pool takes within the objective with all its replicas, by name, requests per second.
    """

    def __init__(self, gaid: GenAIDeployment, placements: Sequence[Placement]) -> None:
        self.room = {one.pool: most_rate(one, one.max_replicas) for one in placements}
        total = sum(one.share for one in gaid.spec.traffic) or 1.0
        ways = [(one.share, gaid.tiers_for(one)) for one in gaid.spec.traffic]
        self._classes = [
            (share, total, [[pool for pool in tier.pools if pool in self.room] for tier in tiers])
            for share, tiers in sorted(ways, key=lambda way: len(way[1]))
        ]
        self._tiers = {tier.name: [one.pool for one in placements if one.tier == tier.name] for tier in gaid.tiers_on}
        self._times = {one.pool: one.network_s + one.service_s for one in placements}
        self._nearest = [one for one in placements if one.tier == next(t.name for t in gaid.overflow if not t.is_off)]

    def shares(self, rate: float) -> tuple[dict[str, float], float]:
        """Return the requests per second of each pool by name, and those that no tier can take."""
        given, unserved = dict.fromkeys(self.room, 0.0), 0.0
        for share, total, tiers in self._classes:
            left = rate * share / total
            for pools in tiers:
                left -= self._fill(pools, left, given)
            unserved += left if left > rate * 1e-12 else 0.0
        return given, unserved

    def _fill(self, pools: Sequence[str], rate: float, given: dict[str, float]) -> float:
        spare = [(name, max(0.0, self.room[name] - given[name])) for name in pools]
        most = sum(part for _, part in spare)
        taken = min(rate, most)
        for name, part in spare:
            given[name] += taken * part / most if most > 0 else 0.0
        return taken

    def full_from(self, tier: str) -> float | None:
        """Return the requests per second up to which `tier` has room; None where it never fills."""
        mine = self._tiers[tier]
        limit = sum(self.room[name] for name in mine) * (1.0 - 1e-9)

        def is_full(rate: float) -> bool:
            shares, _ = self.shares(rate)
            return sum(shares[name] for name in mine) >= limit

        rate = _most(is_full)
        return None if rate >= _MOST_RATE else rate

    def served_up_to(self) -> float:
        """Return the requests per second at which the first finds no room."""
        return _most(lambda rate: self.shares(rate)[1] > 0)

    def rate_of(self, connections: float, think_s: float | None) -> float:
        """Return the requests per second of so many connections."""
        if think_s is None:
            return connections
        return fixed_point(connections, lambda rate: think_s + self._mean_round(rate))

    def connections(self, rate: float, think_s: float | None) -> float:
        """Return the connections that make so many requests per second."""
        return rate if think_s is None else rate * (think_s + self._mean_round(rate))

    def _mean_round(self, rate: float) -> float:
        """Mean seconds from sending a request to having the answer; one that finds no room counts as the slowest."""
        if rate <= 0.0:
            return min(one.network_s + response_of(one, 1, 0.0).mean_response for one in self._nearest)
        shares, unserved = self.shares(rate)
        served = sum(share * self._times[name] for name, share in shares.items())
        return (served + unserved * max(self._times.values())) / rate


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
