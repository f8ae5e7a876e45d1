"""The response times of many pools of batching replicas at once: `batch_response` for the rows of arrays.

Every row is a pool of its own, with its own step times, slots, sizes and arrivals; the formulas are those of
`queueing.batching.birth_death` and `queueing.batching.response`. pi(k) is the running product of lambda / mu(k) from k
= 0 on, begun so low that it cannot overflow, which holds for pools of up to `MOST` slots, R n.

`diffusion_many` has in place of the chain its limit for many slots, that of Halfin and Whitt (1981) for batches that
slow down: around x R, where R r(x) = lambda, the number in the pool is normal with the variance lambda / r'(x); above
c, requests wait. It costs little, and says where to look.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from tierserve.queueing._arrays import Array
from tierserve.queueing.batching.profile import BatchProfile, Sizes
from tierserve.queueing.batching.response import ROUNDING, STAY, SURE
from tierserve.queueing.mgc import wait_ratio_many

MOST = 1280
"""Slots of a pool up to which it can be one of many."""
_ROOM = 650.0
"""ln pi may rise to this: with a' = lambda c / mu(c) < c the likeliest state is at most e^a' times as likely as 0."""
_BLOCK = 1 << 15
"""States that are worked on at once: 256 KiB, which stay in the cache of a core."""
_SAME = 1e-10
_TINY = 1e-300
_FAR = 37.0
_SQRT_2PI = math.sqrt(2.0 * math.pi)

Index = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rows:
    """One replica of each of d pools, with up to m sizes of its requests; a row with fewer has some of share 0.

    Attributes:
        slots: n, shape (d,).
        cs2: squared coefficient of variation of the service time for the waits, shape (d,).
        alone: T(1), shape (d,).
        each: T(n) - T(n - 1), shape (d,).
        mean_own, mean_steps: means of the two below, shape (d,).
        uneven: `queueing.batching.prefill_stalls.unevenness`, shape (d,).
        shares, steps, own, slope, full: as of `BatchWork`, shape (d, m).
    """

    slots: Array
    cs2: Array
    alone: Array
    each: Array
    mean_own: Array
    mean_steps: Array
    uneven: Array
    shares: Array
    steps: Array
    own: Array
    slope: Array
    full: Array

    @property
    def full_s(self) -> Array:
        """Mean service time in a full batch, shape (d,)."""
        return self.alone + (self.slots - 1.0) * self.each

    @property
    def rate(self) -> Array:
        """Requests per second that a full replica finishes, shape (d,)."""
        return self.slots / self.full_s

    def services(self, mean_s: Array) -> Array:
        """Return the service time of each size where the means are `mean_s`, shape (d, m)."""
        return self.steps * ((mean_s - self.mean_own) / self.mean_steps)[:, None] + self.own

    def take(self, rows: Index) -> Rows:
        """Return some of the rows."""
        return Rows(*(getattr(self, name)[rows] for name in self.__slots__))


def rows_of(
    profiles: Sequence[BatchProfile], slots: Sequence[int], sizes: Sequence[Sizes], cs2: Sequence[float | None]
) -> Rows:
    """Return the rows of d replicas; arguments are those of `BatchWork`, one each."""
    n = np.array(slots, dtype=np.float64)
    alpha, beta, gamma = np.array([(one.alpha, one.beta, one.gamma) for one in profiles]).reshape(-1, 3).T[:, :, None]
    most = max(map(len, sizes), default=1)
    even = [one if len(one) == most else one + ((0.0, *one[0][1:]),) * (most - len(one)) for one in sizes]
    share, i, o = np.moveaxis(np.array(even, dtype=np.float64).reshape(-1, most, 3), 2, 0)
    steps, own = 1.0 + o, (beta + gamma) * i + o * (beta + gamma * (i + 0.5 * o))
    mean_steps, mean_own = _mean(share, steps), _mean(share, own)
    each = _mean(share, beta * (i + o) + gamma * steps * (i + 0.5 * o))
    step = alpha + ((n - 1.0) * each / mean_steps)[:, None]
    full = steps * step + own
    alone = mean_steps * alpha[:, 0] + mean_own
    full_s = alone + (n - 1.0) * each
    spread = _mean(share, (full - full_s[:, None]) ** 2) / (full_s * full_s)
    given = np.array([math.nan if one is None else one for one in cs2], dtype=np.float64)
    return Rows(
        slots=n,
        cs2=np.where(np.isnan(given), spread, given),
        alone=alone,
        each=each,
        mean_own=mean_own,
        mean_steps=mean_steps,
        uneven=_unevenness(share, (beta + gamma) * i, _Line(n, alone, each), spread),
        shares=share,
        steps=steps,
        own=own,
        slope=steps * (each / mean_steps)[:, None],
        full=full,
    )


class _Line(NamedTuple):
    """T(k) = alone + (k - 1) each up to k = slots, shape (d,)."""

    slots: Array
    alone: Array
    each: Array


def _unevenness(share: Array, prompts: Array, line: _Line, spread: Array) -> Array:
    """`queueing.batching.prefill_stalls.unevenness` of each row; `spread` is the squared coefficient of variation of a
    full service."""
    own = line.alone - line.each
    batch = np.where(line.each * line.slots > own, np.maximum(own, 0.0) / np.maximum(line.each, _TINY), line.slots)
    batch = np.maximum(batch, 1.0)
    square = _mean(share, prompts * prompts)
    grown = np.sqrt(spread + batch * square / (own + batch * line.each) ** 2) - np.sqrt(spread)
    out: Array = grown * line.slots * _mean(share, prompts) / (own + line.slots * line.each)
    return out


@dataclass(frozen=True, slots=True)
class Responses:
    """Response times of d pools that bear their load, in seconds, without the network; as `BatchResponse`."""

    p_wait: Array
    mean_wait: Array
    mean_service: Array
    decay: Array
    shares: Array
    free: Array
    free_sd: Array
    full: Array

    @property
    def mean_response(self) -> Array:
        """Mean time from arrival to the last token, shape (d,)."""
        return self.mean_wait + self.mean_service

    def take(self, rows: Index) -> Responses:
        """Return some of the rows."""
        return Responses(*(getattr(self, name)[rows] for name in self.__slots__))

    def put(self, rows: Index, some: Responses) -> None:
        """Replace some of the rows."""
        for name in self.__slots__:
            getattr(self, name)[rows] = getattr(some, name)

    def survival(self, t: Array) -> Array:
        """Return P(wait + service > t seconds) of each, shape (d,)."""
        at, p = t[:, None], self.p_wait[:, None]
        served = ndtr((self.free - at) / np.maximum(self.free_sd, SURE * self.free))
        waited = np.exp(-self.decay[:, None] * np.maximum(at - self.full, 0.0))
        return _mean(self.shares, served + p * (waited - served))

    def wait_survival(self, t: Array) -> Array:
        """Return P(wait > t seconds) of each, shape (d,)."""
        out: Array = self.p_wait * np.exp(-self.decay * t)
        return out

    def wait_quantile(self, q: Array) -> Array:
        """Return the seconds that a share q of each waits at most, shape (d,)."""
        out: Array = np.maximum(0.0, np.log(np.maximum(self.p_wait, _TINY) / (1.0 - q)) / self.decay)
        return out

    def quantile(self, q: Array) -> Array:
        """Return the seconds that a share q of each takes at most, wait and service together, shape (d,)."""
        miss, high = (1.0 - q) * ROUNDING, self.full.max(axis=1) + self.wait_quantile(q)
        while (late := np.flatnonzero(self.survival(high) > miss)).size:
            high[late] *= 2.0
        return _first_within(self, miss, high)


def _mean(shares: Array, values: Array) -> Array:
    out: Array = np.einsum("dm,dm->d", shares, values)
    return out


def _first_within(responses: Responses, miss: Array, high: Array) -> Array:
    """Least t with survival(t) <= miss, to ten digits and never below: that of `queueing.batching.response`, for all
    rows at once."""
    out, rows = high.copy(), np.arange(high.size)
    low, at_low, at_high = np.zeros_like(high), -np.log(miss), _excess(responses.survival(high), miss)
    side, slow, width = np.zeros_like(high), np.zeros_like(high), high.copy()
    while rows.size:
        apart, least = at_high - at_low, 0.2 * _SAME * high
        cut = (low * at_high - high * at_low) / np.where(apart == 0.0, 1.0, apart)
        x = np.where((slow < 2) & (apart != 0.0), cut, 0.5 * (low + high))
        x = np.minimum(np.maximum(x, low + least), high - least)
        y = _excess(responses.survival(x), miss)
        late = y > 0.0
        at_low = np.where(late, y, at_low * np.where(side < 0, 0.5, 1.0))
        at_high = np.where(late, at_high * np.where(side > 0, 0.5, 1.0), y)
        low, high, side = np.where(late, x, low), np.where(late, high, x), np.where(late, 1.0, -1.0)
        slow = np.where(high - low > 0.5 * width, slow + 1.0, 0.0)
        width = np.where(slow == 0.0, high - low, width)
        out[rows] = high
        on = np.flatnonzero(high - low > _SAME * high)
        if on.size < 0.7 * rows.size:  # else copying costs more than it saves
            rows, responses, miss = rows[on], responses.take(on), miss[on]
            low, high, at_low, at_high = low[on], high[on], at_low[on], at_high[on]
            side, slow, width = side[on], slow[on], width[on]
    return out


def _excess(survival: Array, miss: Array) -> Array:
    out: Array = np.log(np.maximum(survival / miss, 1e-3))
    return out


def responses_many(lam: Array, replicas: Array, rows: Rows) -> Responses:
    """Return the response times of each row at its `lam` with its `replicas`.

    The same as `batch_response`, to 1e-9 of each figure. Nothing is checked.

    Args:
        lam: arrivals per second, 0 < lam < replicas x rate, shape (d,).
        replicas: whole numbers, replicas x slots <= `MOST`, shape (d,).
        rows: d replicas.
    """
    below, first, squares, last = _sums(lam, replicas, rows)
    servers, capacity = replicas * rows.slots, replicas * rows.rate
    ratio = lam / capacity
    waiting = last / (1.0 - ratio)
    total = below + waiting
    batch = (first + servers * waiting) / total
    sd = np.sqrt(np.maximum((squares + servers * servers * waiting) / total - batch * batch, 0.0))
    queue = waiting * ratio / (1.0 - ratio) / total
    return _responses(lam, replicas, rows, _Queues(waiting / total, queue / lam, batch / lam, sd))


def diffusion_many(lam: Array, replicas: Array, rows: Rows) -> Responses:
    """Return the same in the limit of many slots; a guess for few. Arguments as of `responses_many`, any size."""
    servers, capacity = replicas * rows.slots, replicas * rows.rate
    gain = np.maximum(rows.alone - rows.each, 1e-9 * rows.alone)
    part = lam / replicas
    batch = np.minimum(part * gain / np.maximum(1.0 - rows.each * part, 1e-9), rows.slots)
    service = np.maximum(rows.alone + (batch - 1.0) * rows.each, rows.alone)
    sd = service * np.sqrt(lam / gain)
    beta = np.minimum((servers + 0.5 - replicas * batch) / sd, _FAR)
    spare = np.maximum(capacity - lam, 1e-12 * capacity)
    above = capacity / spare
    p = above / (above + sd * ndtr(beta) * _SQRT_2PI * np.exp(0.5 * beta * beta))
    return _responses(lam, replicas, rows, _Queues(p, p / spare, service, sd))


class _Queues(NamedTuple):
    """P(wait), mean wait and service, and deviation of the batches of each row, shape (d,)."""

    p: Array
    wait: Array
    service: Array
    sd: Array


def _responses(lam: Array, replicas: Array, rows: Rows, queues: _Queues) -> Responses:
    p, service = queues.p, queues.service
    capacity, full_s = replicas * rows.rate, rows.full_s
    ratio = wait_ratio_many(replicas * rows.slots, np.minimum(lam / capacity, 1.0), rows.cs2)
    rest = np.where(p < 1.0, 1.0 - p, 1.0)
    mean_s = np.maximum(rows.alone, np.where(p < 1.0, (service - p * full_s) / rest, rows.alone))
    return Responses(
        p_wait=p,
        mean_wait=queues.wait * ratio,
        mean_service=service,
        decay=(capacity - lam) / ratio,
        shares=rows.shares,
        free=rows.services(mean_s),
        free_sd=rows.slope * (queues.sd * STAY / replicas)[:, None],
        full=rows.full,
    )


def _sums(lam: Array, replicas: Array, rows: Rows) -> tuple[Array, Array, Array, Array]:
    """Sums of pi(k), k pi(k) and k^2 pi(k) over k < c, and pi(c), of each row in a unit of its own, shape (d,)."""
    servers = (replicas * rows.slots).astype(np.int64)
    order = np.argsort(servers, kind="stable")
    out = np.empty((4, lam.size))
    start = 0
    while start < lam.size:
        # the rows of a block are as wide as its last, so that they should be much alike
        wide = int(servers[order[min(start + 7, lam.size - 1)]])
        some = order[start : start + max(8, _BLOCK // wide)]
        some = some[: max(8, int(np.searchsorted(servers[some], 1.25 * wide)))]
        out[:, some] = _block(lam[some], replicas[some], rows.alone[some], rows.each[some], servers[some])
        start += some.size
    return out[0], out[1], out[2], out[3]


def _block(lam: Array, replicas: Array, alone: Array, each: Array, servers: Index) -> Array:
    k = np.arange(1.0, float(servers[-1]) + 1.0)
    count = replicas[:, None]
    inside = np.floor(k / count)  # whole requests in each replica
    more = k - inside * count  # replicas with one more
    own = np.maximum(alone - each, _TINY)[:, None]
    slower = own + each[:, None] * inside
    here = inside / slower
    mu = count * here + more * ((inside + 1.0) / (slower + each[:, None]) - here)
    np.divide(lam[:, None], mu, out=mu)
    highest = lam * (alone + (servers / replicas - 1.0) * each)  # a' = lambda T(n)
    lowest = np.exp(np.minimum(0.0, _ROOM - highest))
    mu[:, 0] *= lowest
    pi = np.multiply.accumulate(mu, axis=1, out=mu)
    at = np.arange(lam.size)
    last = pi[at, servers - 1]
    pi[k >= servers[:, None]] = 0.0
    sums = pi @ np.stack([np.ones_like(k), k, k * k], axis=1)
    sums[:, 0] += lowest
    return np.vstack([sums.T, last])
