"""Results of a simulation of several tiers: response times, and the pool of each request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tierserve.simulate.engine.router import CACHED, DIRECT, REFUSED
from tierserve.simulate.run import Result
from tierserve.simulate.types import Floats, Ints, Objective

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TiersResult:
    """Results of a run. Requests in order of arrival, shape (n,); times in seconds.

    Attributes:
        sites, tiers: names of the pools, and the tier of each.
        classes: tiers that each class may use, in order.
        kind: class of each request.
        pool: index of the pool that took it; -1: none, a cache answered or it was refused.
        how: direct, waited, cached or refused
            (`simulate.engine.router.DIRECT` on).
        arrive_s, first_s, end_s: at the gateway; NaN where it never happened.
        output_tokens: of each request.
        network_s: t_UL + t_DL of where it was answered.
        prefix_hit: whether a pool's cache had the beginning of its prompt.
        pools: what each pool saw of its requests, without the network.
    """

    sites: tuple[str, ...]
    tiers: tuple[str, ...]
    classes: Mapping[str, tuple[str, ...]]
    class_id: Ints
    pool: Ints
    outcome: Ints
    arrive_s: Floats
    output_tokens: Ints
    first_s: Floats
    end_s: Floats
    network_s: Floats
    prefix_hit: Mask
    pools: tuple[Result, ...]

    @property
    def response_s(self) -> Floats:
        """t_UL + wait + service + t_DL; `inf` for those that were never answered."""
        return np.nan_to_num(self.end_s - self.arrive_s, nan=np.inf) + self.network_s

    @property
    def ttft_s(self) -> Floats:
        """Time to first token at the client: t_UL + wait + prefill + t_DL."""
        return np.nan_to_num(self.first_s - self.arrive_s, nan=np.inf) + self.network_s

    @property
    def itl_s(self) -> Floats:
        """Mean time between the tokens of each request."""
        return np.nan_to_num((self.end_s - self.first_s) / np.maximum(self.output_tokens, 1), nan=np.inf)

    @property
    def cached(self) -> Mask:
        """Mask of the requests answered by the response cache."""
        found: Mask = self.outcome == CACHED
        return found

    @property
    def refused(self) -> Mask:
        """Mask of the requests refused with 503."""
        found: Mask = self.outcome == REFUSED
        return found

    def in_pool(self, site: str) -> Mask:
        """Mask of the requests that a pool served."""
        found: Mask = self.pool == self.sites.index(site)
        return found

    def passed_by(self, tier: str) -> Mask:
        """Mask of the overflow of a tier: requests that reached it in their tier order, and were served elsewhere or
        refused."""
        tiers = list(dict.fromkeys(self.tiers))
        position = np.full((len(self.classes), len(tiers)), np.iinfo(np.int64).max)
        for row, order in zip(position, self.classes.values(), strict=True):
            for at, name in enumerate(order):
                if name in tiers:
                    row[tiers.index(name)] = at
        place = np.array([tiers.index(name) for name in self.tiers])[self.pool]
        mine, taken = position[self.class_id, tiers.index(tier)], position[self.class_id, place]
        here = (self.pool >= 0) & (place == tiers.index(tier))
        arrived = (mine < np.iinfo(np.int64).max) & ((self.outcome != DIRECT) | (mine < taken))
        found: Mask = arrived & ~here & ~self.cached
        return found

    def attainment(self, objective: Objective, among: Mask | None = None) -> float:
        """Share of the requests (those `among`, if given) that kept every target; NaN if there are none."""
        good = (
            (self.response_s <= objective.response_s)
            & (self.ttft_s <= objective.ttft_s)
            & (self.itl_s <= objective.itl_s)
        )
        mine = good if among is None else good[among]
        return float(mine.mean()) if mine.size else float("nan")

    def gpu_hours(self) -> float:
        """Accelerators held in all pools, in hours."""
        return sum(one.gpu_hours() for one in self.pools)
