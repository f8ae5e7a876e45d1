"""Many pools planned at once, each for its own rate: `replicas_for` and what it predicts, by arrays.

All pools are looked for in lock-step: from where the limit of many slots puts the answer, in steps that double until
they hold it, then halving. A pool that is too large for arrays, or so near a bound that rounding might decide, is
planned alone by `plan.pool`: the replicas are those of `replicas_for`, without exception.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tierserve.plan.placement import Placement
from tierserve.plan.pool import ALMOST, UNREACHABLE_WAIT, meets, replicas_for, response_of
from tierserve.queueing._arrays import Array
from tierserve.queueing.batch_many import (
    MOST,
    Index,
    Mask,
    Responses,
    Rows,
    diffusion_many,
    responses_many,
    rows_of,
)

_TOGETHER = 512
"""Pools that are looked for in lock-step: enough that calls cost little, few enough for the cache."""
_NEAR = 1e-8
"""Nearer to a bound than this, beside it, the pool alone decides."""


@dataclass(frozen=True, slots=True)
class ManyPlans:
    """The least replicas of d pools and what is predicted with them; arrays of shape (d,), in the order given.

    Attributes:
        replicas: R, 0 where nobody asks.
        p_wait: share of the requests that find all slots taken.
        wait_s: quantile of the wait at the objective's percentile, seconds.
        inference_s: the same of wait and service together.
        mean_s: mean of wait and service together.
    """

    replicas: Index
    p_wait: Array
    wait_s: Array
    inference_s: Array
    mean_s: Array

    def _put(self, at: Index, values: Sequence[npt.ArrayLike]) -> None:
        for name, column in zip(self.__slots__, values, strict=True):
            getattr(self, name)[at] = column


def plan_many(placements: Sequence[Placement], rates: Sequence[float] | Array) -> ManyPlans:
    """Return the least replicas of each pool that keep the objective at its rate, and the response times with them.

    `replicas_for` of each, some five times as fast; times as of `response_of`, to 1e-8. Floor, ceiling and headroom do
    not count here.

    Args:
        placements: d pools.
        rates: requests per second of each, >= 0.

    Raises:
        ValueError: a rate is negative or not finite, or there are not as many as pools.
    """
    lam = np.asarray(rates, dtype=np.float64)
    if lam.shape != (len(placements),) or not (np.isfinite(lam) & (lam >= 0.0)).all():
        raise ValueError(f"rates must be {len(placements)} finite numbers >= 0, one for each pool: got {rates!r}")
    plans = ManyPlans(np.zeros(lam.size, dtype=np.int64), *(np.zeros(lam.size) for _ in range(4)))
    parts = np.array([len(one.sizes) for one in placements])
    order = np.argsort(parts, kind="stable")
    for start in range(0, lam.size, _TOGETHER):
        some = order[start : start + _TOGETHER]
        search = _Search([placements[k] for k in some], lam[some])
        search.run()
        search.put(plans, some)
    return plans


class _Search:
    """Pools whose replicas are looked for together; `alone` marks those that are not."""

    def __init__(self, placements: Sequence[Placement], lam: Array) -> None:
        self.placements, self.lam = placements, lam
        self.rows = rows = rows_of(
            [one.profile for one in placements],
            [one.slots for one in placements],
            [one.mixture for one in placements],
            [None if one.spread_known else 1.0 for one in placements],
        )
        self.target, percentile = np.array([(one.target_s, one.percentile) for one in placements]).T
        self.q = percentile / 100.0
        tails = [one.service_tail_s for one in placements]
        tail = np.where([one is None for one in tails], rows.full_s, np.array(tails, dtype=np.float64))
        self.reachable, self.patience = tail < self.target, UNREACHABLE_WAIT * tail
        self.allowed, unsure = _may_miss(rows, 1.0 - self.q, self.target)
        self.low = np.floor(lam / rows.rate)
        self.alone = unsure | _near(tail, self.target) | (lam <= 0.0) | (rows.alone < rows.each)
        self.alone |= (self.low + 1.0) * rows.slots > MOST
        self.high = np.full(lam.size, np.inf)
        self.found: Responses | None = None

    def run(self) -> None:
        """Find `high` for all that are not alone, and their response times."""
        on = np.flatnonzero(~self.alone)
        floor, at = self.low.copy(), self._guess(on)
        step = np.ones(self.lam.size)
        while on.size:
            self._probe(on, at)
            on = on[~self.alone[on] & (self.high[on] - self.low[on] > 1.0)]
            low, high, stride = self.low[on], self.high[on], step[on]
            down = np.maximum(high - stride, low + 1.0)
            inner = np.where(low > floor[on], np.floor(0.5 * (low + high)), down)
            at = np.where(np.isinf(high), low + stride, inner)
            step[on] *= 2.0

    def _guess(self, on: Index) -> Array:
        """The least replicas that meet the objective in the limit of many slots, no fewer than bear the load."""
        low, high = self.low[on], np.full(on.size, np.inf)
        at, step, left = low + 1.0, np.ones(on.size), np.arange(on.size)
        while left.size:
            some = on[left]
            late, _ = self._late(some, diffusion_many(self.lam[some], at[left], self.rows.take(some)))
            low[left], high[left] = np.where(late, at[left], low[left]), np.where(late, high[left], at[left])
            large = at * self.rows.slots[on] > MOST
            left = left[(high[left] - low[left] > 1.0) & ~large[left]]
            at[left] = np.where(np.isinf(high[left]), low[left] + step[left], np.floor(0.5 * (low[left] + high[left])))
            step[left] *= 2.0
        return np.where(np.isinf(high), at, high)

    def _probe(self, on: Index, at: Array) -> None:
        """Narrow `low` and `high` of the pools `on` with `at` replicas."""
        fits = at * self.rows.slots[on] <= MOST
        self.alone[on[~fits]] = True
        on, at = on[fits], at[fits]
        if not on.size:
            return
        found = responses_many(self.lam[on], at, self.rows.take(on))
        late, near = self._late(on, found)
        for k in np.flatnonzero(near):
            late[k] = not meets(self.placements[on[k]], int(at[k]), float(self.lam[on[k]]))
        self.low[on[late]], self.high[on[~late]] = at[late], at[~late]
        self._keep(on[~late], found.take(np.flatnonzero(~late)))

    def _keep(self, on: Index, found: Responses) -> None:
        if self.found is None:
            size = self.lam.size
            columns = (getattr(found, name) for name in found.__slots__)
            self.found = Responses(*(np.ones((size, *one.shape[1:])) for one in columns))
        self.found.put(on, found)

    def _late(self, on: Index, found: Responses) -> tuple[Mask, Mask]:
        """Whether more of the requests take too long than may, and whether that is too near to tell."""
        target, reachable = self.target[on], self.reachable[on]
        miss = found.survival(target)
        if not reachable.all():
            miss = np.where(reachable, miss, found.wait_survival(self.patience[on]))
        edge = _near(found.free, target[:, None]).any(axis=1)
        return miss > self.allowed[on], _near(miss, self.allowed[on]) | edge

    def put(self, plans: ManyPlans, at: Index) -> None:
        """Put what was found into `plans`, with the pools that are planned alone."""
        for k in np.flatnonzero(self.alone):
            plans._put(at[k], _one(self.placements[k], float(self.lam[k])))
        on = np.flatnonzero(~self.alone)
        if self.found is None or not on.size:
            return
        found, q = self.found.take(on), self.q[on]
        plans._put(at[on], (self.high[on], found.p_wait, found.wait_quantile(q), found.quantile(q), found.mean_response))


def _one(placement: Placement, rate: float) -> tuple[float, ...]:
    replicas, q = replicas_for(placement, rate), placement.percentile / 100.0
    response = response_of(placement, max(replicas, 1), rate)
    return replicas, response.queue.p_wait, response.wait_quantile(q), response.quantile(q), response.mean_response


def _may_miss(rows: Rows, share: Array, target: Array) -> tuple[Array, Mask]:
    """As `pool.may_miss`, and whether that is too near to tell."""
    services = rows.services(rows.alone)
    some = rows.shares > 0.0
    too_long = (rows.shares * (services > target[:, None])).sum(axis=1)
    most = share * (1.0 + ALMOST)
    near = (some & _near(services, target[:, None])).any(axis=1) | _near(too_long, most)
    raised = np.maximum(share, too_long + ALMOST * share)
    return np.where((too_long > 0.0) & (too_long <= most), raised, share), near


def _near(x: Array, bound: Array) -> Mask:
    out: Mask = np.abs(x - bound) <= _NEAR * bound
    return out
