"""How long requests take in a pool of batching replicas where arrivals come in bursts, or prompts are long.

`batch_response` is of Poisson arrivals and of even steps. Here

*   steps last as long as what is read in them (`queueing.batching.steps`);
*   short bursts are described by the peakedness z. Hayward's form of it (Fredericks, "Congestion in blocking
    systems", 1980) is C(c/z, a/z): requests come and go z at a time. For rates mu(k) that is the chain on every z-th
    state. Edges of a finer or coarser grid keep its drift and its ratio of up to down, (lambda / mu)^(step / z), which
    for a step of 1 and z = 1 is the chain of `batch_queue`;
*   long bursts are described by `Bursts`: the rate itself is redrawn from its distribution after exponential times. The
    chain has the rate as a second dimension (a quasi-birth-death process, Neuts, "Matrix-geometric solutions in
    stochastic models", 1981), cut where the queue is negligible, and solved as one banded system.

A request that finds k in the system waits for those before it, and is served in a batch as full as it finds it, but for
the part by which batches move towards their mean during a stay.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_banded
from scipy.special import gammaincc

from tierserve.queueing._arrays import Array, Real, array_of
from tierserve.queueing._validation import above_zero, complain, fraction
from tierserve.queueing.batching.birth_death import BatchQueue
from tierserve.queueing.batching.response import BatchResponse, BatchWork, batch_response
from tierserve.queueing.batching.steps import StepNoise, step_noise

_STATES = 500
"""States of the grid below c, and of the queue, at most."""
_GROUPS = 40
"""What arrivals find is described by so many kinds of states, at most."""
_FIRST, _LATER, _LAST = 0.1, 0.05, 4.0
"""Strides of a stay: of the shortest service, of the time that has passed, and the longest services looked ahead."""
_SURE = 1e-2
_NEGLIGIBLE = 1e-6
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Bursts:
    """An arrival rate that is redrawn at random times.

    Attributes:
        levels: (share of time, rate over the mean rate); shares sum to 1, and the mean of the rates is 1.
        turn_s: mean seconds between two draws.
    """

    levels: tuple[tuple[float, float], ...]
    turn_s: float

    def __post_init__(self) -> None:
        above_zero("turn_s", self.turn_s, "give the seconds that a rate lasts")
        if not self.levels or abs(sum(share for share, _ in self.levels) - 1.0) > 1e-6:
            raise complain("levels", self.levels, "shares that sum to 1", "give (share of time, rate over the mean)")
        if abs(sum(share * rate for share, rate in self.levels) - 1.0) > 1e-6 or min(r for _, r in self.levels) < 0.0:
            raise complain("levels", self.levels, "rates >= 0 of mean 1", "divide the rates by their mean")


@dataclass(frozen=True, slots=True)
class BurstResponse:
    """Response times of a pool in seconds, without the network, as a mixture over what arrivals find.

    Attributes:
        queue: the chain of Poisson arrivals at the same rate.
        p_wait, mean_wait: share of the requests that wait, and the mean time in the queue.
        mean_response: mean time from arrival to the last token; `inf` where the pool cannot bear the load.
        found: share of the arrivals that find each kind of state, shape (g,).
        wait: what these wait, shape (g,).
        shares: of the sizes, shape (m,).
        mean, variance: of the service of each size from each kind of state, shape (g, m).
    """

    queue: BatchQueue
    p_wait: float
    mean_wait: float
    mean_response: float
    found: Array
    wait: Array
    shares: Array
    mean: Array
    variance: Array

    def survival(self, t: float) -> float:
        """Return P(wait + service > t seconds)."""
        if math.isinf(self.mean_response):
            return 1.0
        left = np.maximum(t - self.wait, 0.0)[:, None]
        late = gammaincc(self.mean * self.mean / self.variance, left * self.mean / self.variance)
        return float(self.found @ late @ self.shares)

    def quantile(self, q: float) -> float:
        """Return the seconds that a share q of the requests take at most, wait and service together."""
        miss = 1.0 - fraction("q", q, "give a quantile such as 0.95")
        if math.isinf(self.mean_response):
            return math.inf
        low, high = 0.0, max(self.mean_response, _TINY)
        while self.survival(high) > miss:
            low, high = high, 2.0 * high
        while high - low > 1e-6 * high:
            mid = 0.5 * (low + high)
            low, high = (mid, high) if self.survival(mid) > miss else (low, mid)
        return high


def burst_response(
    lam: float, replicas: int, work: BatchWork, *, peakedness: float = 1.0, bursts: Bursts | None = None
) -> BurstResponse:
    """Return the response times of `replicas` replicas behind one queue, with arrivals in bursts.

    With z = 1, no `bursts` and prompts that cost nothing it is `batch_response` (mean and p95 within 2.5%).
    Errors on real traces: docs/benchmarks/trace-prediction.md.

    Args:
        lam: mean arrivals per second, >= 0.
        replicas: R, >= 1.
        work: the replica and the sizes of the requests.
        peakedness: z of the arrivals (within one rate, where `bursts` are given), > 0; 1 for Poisson.
        bursts: how the rate itself changes; None: not.

    Raises:
        ValueError: an argument is out of its range.
    """
    z = above_zero("peakedness", peakedness, "give 1 for Poisson arrivals, more for bursts")
    calm = batch_response(lam, replicas, work)
    noise = step_noise(calm, replicas, work)
    if lam == 0.0 or calm.decay <= 0.0:
        return _alone_or_never(calm, work)
    levels = bursts.levels if bursts else ((1.0, 1.0),)
    turn_s = bursts.turn_s if bursts else 1.0
    chain = _Chain.over(calm, replicas, work, z=z, levels=np.array(levels), turn_s=turn_s)
    return _mixture(chain.seen(calm.queue.servers, lam, turn_s), calm, noise, replicas, work)


def _alone_or_never(calm: BatchResponse, work: BatchWork) -> BurstResponse:
    """Without arrivals every request is alone in its batch; an offered load beyond capacity is never served."""
    mean, one = calm.free[None, :], np.ones(1)
    wait, waits = (0.0, 0.0) if calm.decay > 0.0 else (math.inf, 1.0)
    response = wait + float(work.shares @ calm.free)
    return BurstResponse(calm.queue, waits, wait, response, one, 0.0 * one, work.shares, mean, (_SURE * mean) ** 2)


class _Seen(NamedTuple):
    """What arrivals find: share of them and requests in the system, shape (g,); arrivals per second t seconds later."""

    share: Array
    inside: Array
    rate_after: Callable[[float], Array]


def _mixture(seen: _Seen, calm: BatchResponse, noise: StepNoise, replicas: int, work: BatchWork) -> BurstResponse:
    queue, alone = calm.queue, work.services(1.0 / float(work.rates[0]))
    wait = np.maximum(seen.inside - queue.servers + 1.0, 0.0) * (seen.inside >= queue.servers) / queue.capacity
    even = np.maximum(_served(seen, wait, replicas, work), alone)
    mean = np.maximum(even + noise.mean - calm.free, 0.5 * alone)
    variance = noise.variance_in(even, calm, work)
    p_wait, mean_wait = float(seen.share @ (wait > 0.0)), float(seen.share @ wait)
    response = mean_wait + float(seen.share @ mean @ work.shares)
    return BurstResponse(queue, p_wait, mean_wait, response, seen.share, wait, work.shares, mean, variance)


def _served(seen: _Seen, wait: Array, replicas: int, work: BatchWork) -> Array:
    """Return the service of each size from each state, shape (g, m): its steps as the batch allows them meanwhile.

    The number in the system continues as arrivals less departures do, in strides of a part of the time that has passed.
    """
    own, share = work.own / work.steps, work.profile.share(work.sizes)
    mu = np.concatenate([[0.0], work.rates]) * replicas
    others = np.concatenate([[0.0, 0.0], np.arange(1.0, work.slots)])
    inside, t = seen.inside + 1.0, 0.0
    left = np.tile(work.steps, (inside.size, 1))
    end, pace = np.zeros(left.shape), np.ones(left.shape)
    first, last = _FIRST / float(work.rates[0]), float(wait.max()) + _LAST * float(work.full.max())
    while t < last and (left > 0.0).any():
        stride = max(first, _LATER * t)
        batch = np.minimum(inside / replicas, float(work.slots))
        pace = (work.profile.alpha + share * np.interp(batch, np.arange(mu.size), others))[:, None] + own
        active = np.clip(t + stride - wait, 0.0, stride)[:, None]
        done = np.minimum(left, active / pace)
        end = np.where(left > 0.0, t + stride - active + done * pace, end)
        left = left - done
        level = np.minimum(batch.astype(np.int64), work.slots - 1)
        slope = np.where(batch < work.slots, np.diff(mu)[level] / replicas, 0.0) + _TINY
        drift = seen.rate_after(t + stride / 2.0) - np.interp(batch, np.arange(mu.size), mu)
        inside = np.maximum(inside + drift * -np.expm1(-slope * stride) / slope, 1.0)
        t += stride
    return np.asarray(end + left * pace - wait[:, None])


class _Moves(NamedTuple):
    """Rates to the next state above and below, shape (states - 1, levels)."""

    up: Array
    down: Array


@dataclass(frozen=True, slots=True)
class _Chain:
    """The stationary chances of a grid of states and rates, shape (states, levels)."""

    at: Array
    chance: Array
    rates: Array

    @classmethod
    def over(
        cls, calm: BatchResponse, replicas: int, work: BatchWork, *, z: float, levels: Array, turn_s: float
    ) -> _Chain:
        """Solve the chain, with room for a longer queue until what is cut off is negligible."""
        queue = calm.queue
        uneven = (queue.capacity - queue.arrival_rate) / calm.decay
        rates = levels[:, 1] * queue.arrival_rate
        room = 20.0 * z * uneven / max(1.0 - queue.arrival_rate / queue.capacity, 1e-3)
        room += 4.0 * max(float(rates.max()) - queue.capacity, 0.0) * turn_s
        knots = np.concatenate([[0.0], work.rates]) * replicas
        for _ in range(12):
            at, widths, free = _grid(queue.servers, room)
            mu = np.interp((at[:-1] + np.where(widths[:-1] > 1.0, 0.5 * np.diff(at), 1.0)) / replicas,
                           np.arange(knots.size), knots)  # fmt: skip
            clump = np.full(mu.size, z)
            clump[free - 1 :] *= uneven
            moves = _moves(at, widths, mu, rates, clump)
            # as many wait as with even sizes, for another time
            moves.down[free - 1] *= uneven
            pivot = min(int(np.searchsorted(mu, queue.arrival_rate)), at.size - 1)
            chance = _solved(moves, levels, turn_s, pivot)
            if chance[-1].sum() < _NEGLIGIBLE:
                break
            room *= 2.0
        return cls(at, chance, rates)

    def seen(self, servers: int, lam: float, turn_s: float) -> _Seen:
        """Group the states by what an arrival finds in them."""
        share = self.chance * self.rates / lam
        kept = np.maximum(np.rint(_GROUPS * np.sqrt(share.sum(0))), 8.0)
        parts = [_grouped(self.at, share[:, k], servers, kept[k]) for k in range(self.rates.size)]
        found, inside = (np.concatenate(column) for column in zip(*parts, strict=True))
        above = np.repeat(self.rates - lam, [part[0].size for part in parts])
        return _Seen(found / found.sum(), inside, lambda t: lam + above * math.exp(-t / turn_s))


def _grouped(at: Array, share: Array, servers: int, kept: float) -> tuple[Array, Array]:
    """Merge neighbouring states to their mean, fewer where they are high; those that wait apart from the others."""
    total = float(share.sum())
    if total <= 0.0:
        return np.zeros(0), np.zeros(0)
    beyond = 1.0 - np.clip((np.cumsum(share) - share / 2.0) / total, 0.0, 1.0)
    label = np.minimum((1.0 - np.cbrt(beyond)) * kept, kept - 1.0).astype(np.int64)
    label = label * 2 + (at >= servers)
    count = int(label.max()) + 1
    weight = np.bincount(label, share, count)
    mine = weight > 0.0
    middle: Array = np.bincount(label, share * at, count)[mine] / weight[mine]
    return np.asarray(weight[mine], dtype=np.float64), middle


def _grid(servers: int, room: float) -> tuple[Array, Array, int]:
    """Return middles and widths of cells of states, and how many are not beyond c: one by one where they are few."""
    low = max(1, servers // _STATES)
    below = servers - low * np.arange(servers // low, -1.0, -1.0)
    high = max(1, math.ceil(room / _STATES))
    queued = servers + 0.5 + high * (np.arange(max(math.ceil(room / high), 1)) + 0.5)
    widths = np.concatenate([np.full(below.size, float(low)), np.full(queued.size, float(high))])
    return np.concatenate([below, queued]), widths, below.size


def _solved(chain: _Moves, levels: Array, turn_s: float, pivot: int) -> Array:
    """Return the stationary chances, shape (states, levels), of moves between neighbours and draws of the rate."""
    up, down = chain.up, chain.down
    states, count = up.shape[0] + 1, up.shape[1]
    turns = (levels[None, :, 0] - np.eye(count)) / turn_s  # from row to column
    out = np.zeros((states, count))
    out[:-1] += up
    out[1:] += down
    # what comes into every state less what goes out, as bands of a matrix ordered by state, then level
    size = states * count
    banded = np.zeros((2 * count + 1, size))
    for here in range(count):
        for there in range(count):
            banded[count + there - here, here::count] = turns[here, there] - (out[:, here] if here == there else 0.0)
    banded[2 * count, : size - count] = up.ravel()
    banded[0, count:] = down.ravel()
    wanted, row = np.zeros(size), pivot * count + int(np.argmax(levels[:, 0]))
    for column in range(max(0, row - count), min(size, row + count + 1)):
        banded[count + row - column, column] = 0.0
    banded[count, row], wanted[row] = 1.0, 1.0  # in place of one balance, which follows from the others
    chance = np.maximum(solve_banded((count, count), banded, wanted), 0.0).reshape(states, count)
    return np.asarray(chance / chance.sum())


def _moves(at: Array, widths: Array, mu: Array, rates: Array, clump: Array) -> _Moves:
    """Moves between the middles of cells with the drift lambda - mu and the ratio (lambda / mu)^(stride / clump).

    Arguments of each edge, shape (states - 1,), but `at` and `widths`, of each state.
    """
    stride, mu, clump = np.diff(at)[:, None], mu[:, None], clump[:, None]
    with np.errstate(divide="ignore"):
        grow = np.clip(np.log(rates / mu) * stride / clump, -700.0, 700.0)
    flat = np.abs(grow) < 1e-9
    flow = np.where(flat, mu * clump / stride, (rates - mu) / np.expm1(np.where(flat, 1.0, grow)))
    return _Moves(flow * np.exp(grow) / widths[:-1, None], flow / widths[1:, None])


def bursts_of(counts: Real, window_s: float, levels: int = 8) -> Bursts:
    """Return the rates that these counts show, and for how long one lasts.

    The rates are means of parts of the windows, finer where they are high. How long they last is described by
    the dispersion of counts over windows that are joined: where rates are redrawn after exponential times of mean T,
    the variance over n windows is that of rates with correlation e^(-t/T) on top of Poisson's.

    Args:
        counts: arrivals in consecutive windows, >= 0, of twenty windows or more.
        window_s: seconds of each.
        levels: rates that are distinguished, >= 1.

    Raises:
        ValueError: a count is negative or not finite, or there are too few.
    """
    seen = array_of("counts", counts, "give the arrivals in each window").ravel()
    above_zero("window_s", window_s, "give the seconds of a window")
    if seen.size < 20 or seen.sum() == 0.0:
        raise complain("counts", seen.size, "of twenty windows or more, with an arrival", "wait until there are")
    mean = float(seen.mean())
    spread = float(np.var(seen, ddof=1)) - mean
    if spread <= 0.0:
        return Bursts(((1.0, 1.0),), window_s)
    # Poisson's part of the variance is not the rate's: pull the counts towards their mean by it
    true = mean + (np.sort(seen) - mean) * math.sqrt(spread / (spread + mean))
    true = np.maximum(true, 0.0)
    edges = 1.0 - (1.0 - np.linspace(0.0, 1.0, levels + 1)) ** 2
    cuts = np.unique(np.rint(edges * seen.size).astype(np.int64))
    parts = [true[a:b] for a, b in itertools.pairwise(cuts)]
    shares = np.array([part.size / seen.size for part in parts])
    rates = np.array([part.mean() for part in parts])
    rates /= float(shares @ rates)
    return Bursts(tuple(zip(shares.tolist(), rates.tolist(), strict=True)), _lasting(seen, window_s))


def _lasting(counts: Array, window_s: float) -> float:
    """Return T in seconds, by least squares over windows of 1, 2, 4, ... joined, as long as there are ten of them."""
    mean, found = float(counts.mean()), []
    many = 1
    while counts.size // many >= 10:
        joined = counts[: counts.size // many * many].reshape(-1, many).sum(1)
        found.append((many * window_s, max(float(np.var(joined, ddof=1)) / (many * mean) - 1.0, 0.0)))
        many *= 2
    times, excess = (np.array(column) for column in zip(*found, strict=True))
    tries = window_s * np.geomspace(0.2, counts.size / 4.0, 60)
    best, least = window_s, math.inf
    for turn in tries:
        x = times / turn
        shape = (
            2.0 * turn * (1.0 + np.expm1(-x) / x)
        )  # of the dispersion over a window, for a variance of the rate of 1
        scale = excess[0] / shape[0]
        miss = float((((scale * shape - excess) / (1.0 + excess)) ** 2).sum())
        best, least = (float(turn), miss) if miss < least else (best, least)
    return best
