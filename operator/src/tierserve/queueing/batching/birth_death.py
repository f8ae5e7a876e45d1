"""Replicas that slow down as their batches fill, behind one queue: a birth-death process with rates mu(k).

R replicas hold n requests each. With k requests in them, spread evenly, each has floor(k / R) or one more, and all of
them together finish

    mu(k) = (R - m) r(q) + m r(q + 1),    q, m = divmod(k, R),    k <= c = R n,        mu(k) = R r(n),    k > c,

requests per second, with r(j) the rate of a replica with j in its batch (`BatchProfile.rate`). The probability of k in
the system is pi(k) ~ prod lambda / mu(j) (Kleinrock, "Queueing Systems" I, 1975, ch. 3). Beyond c it falls by
lambda / mu(c) at each step: a geometric tail, so that the wait of those that wait at all is exponential with the rate
mu(c) - lambda, as in M/M/c. With r(j) = j mu the whole is M/M/c, and P(wait) is Erlang C.

Up to 2,048 slots pi is a running product of lambda / mu(k) from the likeliest state outwards, and all of it is summed.
Beyond, mu is linear between multiples of R, so that ln pi at any k is a sum of at most n differences of lgamma, and pi
is summed on a grid with the end corrections of Euler and Maclaurin: the time does not grow with the number of replicas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from tierserve.queueing._arrays import Array
from tierserve.queueing._validation import above_zero, at_least_zero, complain, whole

DIRECT = 2048
"""Slots of a pool, R n, up to which its states are summed one by one: there it takes less than the grid."""
_POINTS = 384
"""Points of the grid, about; up to so many states they are all summed."""
_NEGLIGIBLE = 42.0
"""States less likely than the likeliest by a factor of e^42 count as none."""
_FLAT = 1e-9
"""A slope of mu, beside the rate itself, so small that lgamma of huge arguments would have no digits left."""


_STATES = np.arange(DIRECT + 1, dtype=np.float64)
_POWERS = np.stack([np.ones(DIRECT), _STATES[1:], _STATES[1:] ** 2])


@dataclass(frozen=True, slots=True)
class BatchQueue:
    """Stationary figures of the pool; times in seconds.

    Attributes:
        servers: c = R n.
        arrival_rate: lambda, requests per second.
        capacity: mu(c), requests per second.
        p_wait: P(an arrival finds all slots taken), 1 where the pool cannot bear the load.
        mean_wait: mean time in the queue, `inf` where the pool cannot bear the load.
        mean_service: mean time in a replica; its batch is as full as it is when a request is there.
        mean_batch: requests in all replicas on average, those that wait not among them.
        batch_sd: standard deviation of their number.
    """

    servers: int
    arrival_rate: float
    capacity: float
    p_wait: float
    mean_wait: float
    mean_service: float
    mean_batch: float
    batch_sd: float = 0.0

    @property
    def mean_response(self) -> float:
        """Mean time from arrival to the last token."""
        return self.mean_wait + self.mean_service

    def wait_survival(self, t: float) -> float:
        """Return P(wait > t seconds)."""
        spare = self.capacity - self.arrival_rate
        return 1.0 if spare <= 0.0 else self.p_wait * math.exp(-spare * t)

    def wait_quantile(self, q: float) -> float:
        """Return the seconds that a share q of the requests wait at most."""
        spare = self.capacity - self.arrival_rate
        if spare <= 0.0:
            return math.inf
        return max(0.0, math.log(self.p_wait / (1.0 - q)) / spare) if self.p_wait > 0.0 else 0.0


def batch_queue(lam: float, replicas: int, rates: Sequence[float] | Array) -> BatchQueue:
    """Return the figures of `replicas` replicas behind one queue (or, nearly, behind a router that joins the shortest).

    `batch_queue(lam / R, 1, rates)` is one replica of R between which arrivals are split at random.

    Errors. The sums are within 1e-6 of the chain, at any size, and within 1e-12 up to 2,048 slots. The chain takes
    the replicas as evenly full, which is exact for one replica and for r(j) = j mu. Beside the chain of every
    replica (2 and 3 of 2 to 8 slots, loads of 0.3 to 0.9): with one queue and step times as measured P(wait) is up
    to 0.001 and the mean response up to 0.2% too low, with batches that slow down threefold 0.009 and 2.6%. Behind
    a router that joins the shortest a replica may idle while others queue: P(wait) is up to 0.04 too high, the mean
    wait up to 0.08 service times too low (30 to 50% of it at a load of 0.3, 2 to 4% at 0.9 of two replicas), the
    mean response up to 5.3%. Beside replicas that work step by step (8 of 16, loads of 0.6 and 0.9) the mean
    response is up to 1.5% too high.

    Args:
        lam: arrivals per second, >= 0, Poisson.
        replicas: R, >= 1.
        rates: r(1), ..., r(n): requests per second that a replica finishes with so many in its batch; none is
            below the one before.

    Raises:
        ValueError: an argument is out of its range.
    """
    return queue_of(*_checked(lam, replicas, rates))


def queue_of(rate: float, count: int, levels: Array) -> BatchQueue:
    """Return `batch_queue` of arguments that were checked: `levels` as `levels_of` gives them."""
    slots = levels.size - 1
    servers, capacity = count * slots, count * float(levels[-1])
    if rate == 0.0:
        return BatchQueue(servers, 0.0, capacity, 0.0, 0.0, 1.0 / float(levels[1]), 0.0)
    if rate >= capacity:
        return BatchQueue(servers, rate, capacity, 1.0, math.inf, slots / float(levels[-1]), float(servers))
    below, mean, spread, last = _sums(rate, count, levels)
    ratio = rate / capacity
    waiting = last / (1.0 - ratio)  # k >= c: such an arrival waits
    total = below + waiting
    queue = waiting * ratio / (1.0 - ratio) / total
    batch = (mean + servers * waiting) / total
    # around the likeliest state, as squares of huge numbers would leave no digits
    off = batch - spread.around
    variance = (spread.squares + (servers - spread.around) ** 2 * waiting) / total - off * off
    sd = math.sqrt(max(variance, 0.0))
    return BatchQueue(servers, rate, capacity, waiting / total, queue / rate, batch / rate, batch, sd)


@dataclass(frozen=True, slots=True)
class LossQueue:
    """Stationary figures of a pool that turns away whom it has no room for; times in seconds, of those it takes.

    Attributes:
        p_loss: P(an arrival finds slots and queue full).
        p_wait: P(one that is taken waits).
        mean_wait: mean time in the queue.
        mean_service: mean time in a replica.
        mean_batch: requests in all replicas on average, those that wait not among them.
    """

    p_loss: float
    p_wait: float
    mean_wait: float
    mean_service: float
    mean_batch: float


def loss_queue(lam: float, replicas: int, rates: Sequence[float] | Array, room: int) -> LossQueue:
    """Return the figures of `batch_queue` where at most `room` requests may wait and any more are turned away.

    With `room` 0 and r(j) = j mu the loss is Erlang B. Arguments as of `batch_queue`; the load may be more than the
    replicas can bear.

    Errors as of `batch_queue` with one queue. Beside the chain of every replica (1 to 3 of 2 and 4 slots, room for 0 to
    10, loads of 0.6 to 1.3) it is exact for one replica and for r(j) = j mu; else P(loss) is up to 0.001 too low with
    step times as measured, 0.004 with batches that slow down threefold.

    Raises:
        ValueError: an argument is out of its range.
    """
    if room < 0 or int(room) != room:
        raise complain("room", room, "a whole number >= 0", "give how many requests may wait")
    rate, count, levels = _checked(lam, replicas, rates)
    slots = levels.size - 1
    servers, capacity = count * slots, float(count * levels[-1])
    if rate == 0.0:
        return LossQueue(0.0, 0.0, 0.0, 1.0 / float(levels[1]), 0.0)
    below, mean, _, last = _sums(rate, count, levels)
    ratio, behind = rate / capacity, np.arange(int(room) + 1, dtype=np.float64)
    # pi(c + j) in units of pi(c), or above capacity of the last, so that nothing overflows
    full = ratio ** (behind - (room if ratio > 1.0 else 0))
    scale = ratio ** (-float(room) if ratio > 1.0 else 0.0)
    waiting = last * float(full.sum())
    total = below * scale + waiting
    loss = last * float(full[-1]) / total
    taken = rate * (1.0 - loss)
    queue = last * float(full @ behind) / total
    batch = (mean * scale + servers * waiting) / total
    return LossQueue(loss, (waiting / total - loss) / (1.0 - loss), queue / taken, batch / taken, batch)


def _checked(lam: float, replicas: int, rates: Sequence[float] | Array) -> tuple[float, int, Array]:
    rate = at_least_zero("lam", lam, "give the arrivals per second")
    return rate, whole("replicas", replicas, "give the replicas that serve"), levels_of(rates)


def levels_of(rates: Sequence[float] | Array) -> Array:
    """Return r(0) = 0, r(1), ..., r(n), checked. Raises ValueError where one is below the one before, or not finite."""
    given = np.asarray(rates, dtype=np.float64)
    if given.ndim != 1 or given.size == 0:
        raise complain("rates", rates, "a list of r(1), ..., r(n)", "give a rate for each batch that fits")
    above_zero("rates[0]", given[0], "a replica with one request must finish it")
    falls = np.flatnonzero(~(np.diff(given) >= 0.0))
    if falls.size or not np.isfinite(given).all():
        at = int(falls[0]) + 1 if falls.size else int(np.flatnonzero(~np.isfinite(given))[0])
        raise complain(f"rates[{at}]", float(given[at]), "finite and no less than the one before",
                       "a batch that finishes less than a smaller one is never filled: leave it out")  # fmt: skip
    return np.concatenate([[0.0], given])


class _Chain:
    """ln pi(k) up to a constant, at any k of 0..c, in closed form between multiples of R."""

    def __init__(self, lam: float, replicas: int, levels: Array) -> None:
        self.lam, self.replicas, self.levels = lam, replicas, levels
        self.slots = levels.size - 1
        self.servers = replicas * self.slots
        self.slope = np.diff(levels)  # of mu, per request, within each segment
        ends = self._within(np.arange(self.slots), np.full(self.slots, float(replicas)))
        self.start = np.concatenate([[0.0], np.cumsum(ends)])

    def _within(self, segment: npt.NDArray[np.int64], steps: Array) -> Array:
        """Sum of ln(lambda / mu) over the first `steps` states of a segment."""
        base, slope = self.replicas * self.levels[segment], self.slope[segment]
        flat = slope <= _FLAT * base / self.replicas
        safe = np.where(flat, 1.0, slope)
        x = base / safe
        sums = steps * np.log(safe) + gammaln(x + steps + 1.0) - gammaln(x + 1.0)
        middle = base + slope * (steps + 1.0) / 2.0
        with np.errstate(divide="ignore", invalid="ignore"):
            level = np.where(steps > 0, steps * np.log(middle), 0.0)
        return steps * math.log(self.lam) - np.where(flat, level, sums)

    def log_weight(self, k: Array) -> Array:
        """ln pi(k) - ln pi(0)."""
        segment = np.minimum(k // self.replicas, self.slots - 1).astype(np.int64)
        out: Array = self.start[segment] + self._within(segment, k - segment * float(self.replicas))
        return out

    def log_weight_at(self, k: int) -> float:
        """The same for one k, without arrays: ten times as fast."""
        segment = min(k // self.replicas, self.slots - 1)
        steps = k - segment * self.replicas
        base, slope = self.replicas * float(self.levels[segment]), float(self.slope[segment])
        if slope <= _FLAT * base / self.replicas:
            sums = steps * math.log(base + slope * (steps + 1.0) / 2.0) if steps else 0.0
        else:
            x = base / slope
            sums = steps * math.log(slope) + math.lgamma(x + steps + 1.0) - math.lgamma(x + 1.0)
        return float(self.start[segment]) + steps * math.log(self.lam) - sums

    def rate(self, k: float) -> float:
        """mu(k)."""
        segment = min(int(k // self.replicas), self.slots - 1)
        return float(self.replicas * self.levels[segment] + self.slope[segment] * (k - segment * self.replicas))

    def mode(self) -> int:
        """The likeliest state: the last at which mu <= lambda, for the rates do not fall."""
        segment = int(np.searchsorted(self.replicas * self.levels, self.lam, side="right")) - 1
        if segment >= self.slots:
            return self.servers
        inside = (self.lam - self.replicas * self.levels[segment]) / max(self.slope[segment], 1e-300)
        return min(int(segment * self.replicas + inside), self.servers)


def _edge(chain: _Chain, mode: int, top: float, way: int) -> int:
    """The state on one side of the mode from which on all are negligible, or the last one there."""
    end = 0 if way < 0 else chain.servers
    step = 1 + int(math.sqrt(mode))
    while True:
        at = mode + way * step
        if (at - end) * way >= 0:
            return end
        if chain.log_weight_at(at) < top - _NEGLIGIBLE:
            return at
        step *= 2


@dataclass(frozen=True, slots=True)
class _Spread:
    """Sum of (k - around)^2 pi(k) over k < c."""

    around: int
    squares: float


def _sums(lam: float, replicas: int, levels: Array) -> tuple[float, float, _Spread, float]:
    """Sums of pi(k), k pi(k) and squares over k < c, and pi(c), all in units of the likeliest state's."""
    if replicas * (levels.size - 1) <= DIRECT:
        return _sums_of_all(lam, replicas, levels)
    return _sums_on_grid(_Chain(lam, replicas, levels))


def _sums_of_all(lam: float, replicas: int, levels: Array) -> tuple[float, float, _Spread, float]:
    slope = levels[1:] - levels[:-1]
    mu = ((replicas * levels[:-1])[:, None] + slope[:, None] * _STATES[1 : replicas + 1]).ravel()  # mu(1), ..., mu(c)
    mode = int(mu.searchsorted(lam, "right"))
    up, down = np.multiply.accumulate(lam / mu[mode:]), np.multiply.accumulate(mu[:mode][::-1] / lam)
    # sums of pi, of its distance from the mode, and of the squares of that, on either side
    above, below = (_POWERS[:, : side.size] @ side for side in (up, down))
    whole, first, squares = 1.0 + float(above[0] + below[0]), float(above[1] - below[1]), float(above[2] + below[2])
    last, away = (float(up[-1]) if up.size else 1.0), mu.size - mode
    whole, first, squares = whole - last, first - last * away, squares - last * away * away
    return whole, first + mode * whole, _Spread(mode, squares), last


def _sums_on_grid(chain: _Chain) -> tuple[float, float, _Spread, float]:
    mode = chain.mode()
    top = chain.log_weight_at(mode)
    low, high = _edge(chain, mode, top, -1), _edge(chain, mode, top, 1)
    stride = max(1, (high - low) // _POINTS)
    low = max(low - (-(high - low) % stride), low - stride)
    if low < 0:  # the grid must end at c; what it lacks at 0 is summed one by one
        low += stride
    grid = np.arange(low, high + 1, stride, dtype=np.float64)
    weight = np.exp(chain.log_weight(grid) - top)
    rest = np.arange(0.0, low) if 0 < low < stride else np.empty(0)
    extra = np.exp(chain.log_weight(rest) - top)
    whole = _sum(weight, stride, chain, low, high) + float(extra.sum())
    mean = _sum(weight * grid, stride, chain, low, high) + float((extra * rest).sum())
    squares = _sum(weight * (grid - mode) ** 2, stride, chain, low, high) + float((extra * (rest - mode) ** 2).sum())
    last = math.exp(chain.log_weight_at(chain.servers) - top)
    if high == chain.servers:
        whole, mean = whole - last, mean - last * chain.servers
        squares -= last * float(chain.servers - mode) ** 2
    return whole, mean, _Spread(mode, squares), last


def _sum(values: Array, stride: int, chain: _Chain, low: int, high: int) -> float:
    """Sum over all states of low..high from every stride-th one, by Euler and Maclaurin."""
    total = float(values.sum()) * stride
    if stride == 1:
        return total
    ends = float(values[0] + values[-1]) / 2.0
    slope = float(values[-1]) * math.log(chain.lam / chain.rate(high)) if high > 0 else 0.0
    first = float(values[0]) * math.log(chain.lam / chain.rate(low)) if low > 0 else 0.0
    return total - (stride - 1) * ends + (1 - stride * stride) / 12.0 * (slope - first)
