"""Many pools planned at once, each for its own rate: `replicas_for` and what it predicts, by arrays.

All pools are looked for in lock-step: from where the limit of many slots puts the answer, in steps that double until
they hold it, then halving. From there on a pool whose long prompts hold up answers is planned alone by
`plan.pool_sizing`, and
from the start one that is too large for arrays, or so near a bound that rounding might decide: the replicas are those
of `replicas_for`, without exception.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tierserve.plan.placement import Placement
from tierserve.plan.pool_sizing import (
    ALMOST,
    NOTABLE,
    UNREACHABLE_WAIT,
    even_meets,
    replicas_for,
    replicas_from,
    response_of,
)
from tierserve.queueing._arrays import Array
from tierserve.queueing.batching.response_batch import (
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
_FEW = 12
"""Fewer pools than this are planned sooner one by one."""
_NEAR = 1e-8
"""Nearer to a bound than this, beside it, the pool alone decides."""


@dataclass(frozen=True, slots=True)
class PoolPlans:
    """The replicas of d pools and what is predicted with them; arrays of shape (d,), in the order given.

    Attributes:
        replicas: R, 0 without traffic; there the times are those of an empty replica.
        p_wait: share of the requests that find all slots taken.
        wait_s: quantile of the wait at the objective's percentile, seconds.
        inference_s: the same of wait and service together.
        mean_s: mean of wait and service together.
        late: share of the requests for which wait and service take longer than the target leaves.
    """

    replicas: Index
    p_wait: Array
    wait_s: Array
    inference_s: Array
    mean_s: Array
    late: Array

    def put(self, at: Index | int, values: Sequence[npt.ArrayLike]) -> None:
        """Replace some of the rows."""
        for name, column in zip(self.__slots__, values, strict=True):
            getattr(self, name)[at] = column

    @property
    def columns(self) -> tuple[npt.NDArray[np.generic], ...]:
        """The attributes in their order."""
        return tuple(getattr(self, name) for name in self.__slots__)


def size_pools(placements: Sequence[Placement], rates: Sequence[float] | Array) -> PoolPlans:
    """Return the least replicas of each pool that keep the objective at its rate, and the response times with them.

    The replicas are those of `replicas_for`, and times those of `response_of` to 1e-8, in a fifth of the time or less.
    Bounds and headroom of the pools are not applied.

    Args:
        placements: d pools.
        rates: requests per second of each, >= 0.

    Raises:
        ValueError: a rate is negative or not finite, or there are not as many as pools.
    """
    lam = _checked(placements, rates)
    if lam.size < _FEW:
        return _one_by_one(placements, lam, _counted(placements, lam))
    return _all(placements, lam, lambda search, _: search.plan())


def replicas_of_pools(placements: Sequence[Placement], rates: Sequence[float] | Array) -> Index:
    """Return `replicas_for` of each pool at its rate, shape (d,). Arguments and errors as of `size_pools`."""
    lam = _checked(placements, rates)
    if lam.size < _FEW:
        return _counted(placements, lam)
    return _all(placements, lam, lambda search, _: search.count()).replicas


def responses_of_pools(
    placements: Sequence[Placement], replicas: Sequence[int], rates: Sequence[float] | Array
) -> PoolPlans:
    """Return the response times of each pool with so many replicas; arguments and errors else as of `size_pools`."""
    lam, count = _checked(placements, rates), np.array(replicas, dtype=np.int64)
    if lam.size < _FEW:
        return _one_by_one(placements, lam, count)
    return _all(placements, lam, lambda search, some: search.predict(count[some]))


def _counted(placements: Sequence[Placement], lam: Array) -> Index:
    return np.array([replicas_for(one, rate) for one, rate in zip(placements, lam.tolist(), strict=True)], np.int64)


def _one_by_one(placements: Sequence[Placement], lam: Array, replicas: Index) -> PoolPlans:
    plans = _empty(lam.size)
    for k, (one, rate) in enumerate(zip(placements, lam.tolist(), strict=True)):
        response, q = response_of(one, max(int(replicas[k]), 1), rate), one.percentile / 100.0
        late = response.survival(one.target_s)
        times = response.queue.p_wait, response.wait_quantile(q), response.quantile(q), response.mean_response, late
        plans.put(k, (replicas[k], *times))
    return plans


def _checked(placements: Sequence[Placement], rates: Sequence[float] | Array) -> Array:
    lam = np.asarray(rates, dtype=np.float64)
    if lam.shape != (len(placements),) or not (np.isfinite(lam) & (lam >= 0.0)).all():
        raise ValueError(f"rates must be {len(placements)} finite numbers >= 0, one for each pool: got {rates!r}")
    return lam


def _all(placements: Sequence[Placement], lam: Array, plan: Callable[[_Search, Index], PoolPlans]) -> PoolPlans:
    """What `plan` says of all pools, those with about as many sizes together."""
    plans = _empty(lam.size)
    order = np.argsort([len(one.sizes) for one in placements], kind="stable")
    for start in range(0, lam.size, _TOGETHER):
        some = order[start : start + _TOGETHER]
        search = _Search([placements[k] for k in some], lam[some])
        plans.put(some, plan(search, some).columns)
    return plans


def _empty(size: int) -> PoolPlans:
    return PoolPlans(np.zeros(size, dtype=np.int64), *(np.zeros(size) for _ in range(5)))


class _Search:
    """Pools whose replicas are looked for together; `alone` marks those that are not.

    Steps are even in it; to the replicas of those that are `held_up` more may be added.
    """

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
        self.held_up = (rows.slots > 1.0) & (rows.uneven > NOTABLE * (1.0 - _NEAR))
        self.alone = unsure | _near(tail, self.target) | (lam <= 0.0) | (rows.alone < rows.each)
        self.alone |= (self.low + 1.0) * rows.slots > MOST
        self.high = np.full(lam.size, np.inf)
        self.found: Responses | None = None

    def _run(self) -> None:
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
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):  # at capacity, or so near: `near`
            found = responses_many(self.lam[on], at, self.rows.take(on))
        late, near = self._late(on, found)
        for k in np.flatnonzero(near):
            late[k] = not even_meets(self.placements[on[k]], int(at[k]), float(self.lam[on[k]]))
        self.low[on[late]], self.high[on[~late]] = at[late], at[~late]
        self._keep(on[~late], found.take(np.flatnonzero(~late)))

    def _keep(self, on: Index, found: Responses) -> None:
        if self.found is None:
            size = self.lam.size
            columns = (getattr(found, name) for name in found.__slots__)
            self.found = Responses(*(np.ones((size, *one.shape[1:])) for one in columns))
        self.found.put(on, found)

    def _late(self, on: Index, found: Responses) -> tuple[Mask, Mask]:
        """Whether more of the requests take too long than may, and whether that is too near to decide."""
        target, reachable = self.target[on], self.reachable[on]
        miss = found.survival(target)
        if not reachable.all():
            miss = np.where(reachable, miss, found.wait_survival(self.patience[on]))
        edge = _near(found.free, target[:, None]).any(axis=1)
        return miss > self.allowed[on], _near(miss, self.allowed[on]) | edge

    def plan(self) -> PoolPlans:
        """Return the least replicas and the times with them."""
        plans = self.count()
        alone = self.alone | self.held_up
        on = np.flatnonzero(~alone)
        if self.found is not None and on.size:
            plans.put(on, (plans.replicas[on], *self._times(on, self.found.take(on))))
        self._put_alone(plans, alone, plans.replicas)
        return plans

    def count(self) -> PoolPlans:
        """Return the least replicas, without times."""
        self._run()
        plans, alone = _empty(self.lam.size), np.flatnonzero(self.alone)
        plans.replicas[~self.alone] = self.high[~self.alone]
        plans.replicas[alone] = _counted([self.placements[k] for k in alone.tolist()], self.lam[alone])
        for k in np.flatnonzero(self.held_up & ~self.alone).tolist():
            even = int(plans.replicas[k])
            plans.replicas[k] = replicas_from(self.placements[k], float(self.lam[k]), even)
        return plans

    def predict(self, replicas: Index) -> PoolPlans:
        """Return the times with `replicas`."""
        plans, count = _empty(self.lam.size), replicas.astype(np.float64)
        full = self.lam >= count * self.rows.rate * (1.0 - _NEAR)
        alone = self.held_up | full | (self.lam <= 0.0)
        alone |= (self.rows.alone < self.rows.each) | (count * self.rows.slots > MOST)
        on = np.flatnonzero(~alone)
        if on.size:
            found = responses_many(self.lam[on], count[on], self.rows.take(on))
            plans.put(on, (replicas[on], *self._times(on, found)))
        self._put_alone(plans, alone, replicas)
        return plans

    def _times(self, on: Index, found: Responses) -> tuple[Array, ...]:
        q = self.q[on]
        late = found.survival(self.target[on])
        return found.p_wait, found.wait_quantile(q), found.quantile(q), found.mean_response, late

    def _put_alone(self, plans: PoolPlans, alone: Mask, replicas: Index) -> None:
        some = np.flatnonzero(alone)
        one_by_one = _one_by_one([self.placements[k] for k in some.tolist()], self.lam[some], replicas[some])
        plans.put(some, one_by_one.columns)


def _may_miss(rows: Rows, share: Array, target: Array) -> tuple[Array, Mask]:
    """As `pool.may_miss`, and whether that is too near to decide."""
    services = rows.services(rows.alone)
    some = rows.shares > 0.0
    too_long = (rows.shares * (services > target[:, None])).sum(axis=1)
    most = share * (1.0 + ALMOST)
    near = (some & _near(services, target[:, None])).any(axis=1) | _near(too_long, most)
    raised = np.maximum(share, too_long + ALMOST * share)
    return np.where((too_long > 0.0) & (too_long <= most), raised, share), near


def _near(x: Array, bound: Array) -> Mask:
    out: Mask = ~(np.abs(x - bound) > _NEAR * bound)  # so that NaN is, too
    return out
