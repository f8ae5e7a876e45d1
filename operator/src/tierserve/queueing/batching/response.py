"""How long requests take in a pool of batching replicas: wait and service, with the sizes they have and full batches.

`batch_queue` gives the chance to wait, and how full batches are. From it:

*   A request that does not wait has (1 + o) steps of alpha + n (...), with n others beside it, and its own tokens. The
    mean of n makes the mean service that of the chain. The batch moves while the request is in it: over a stay S, in
    which all of the batch is replaced (autocorrelation 1 - t / S), the mean of it deviates by sd sqrt(2/3), and each
    request more lengthens each step. The service is taken as normal with that deviation.
*   A request that waits finds all slots taken, and is served in a full batch. Its wait is exponential at the rate
    (mu(c) - lambda) / g, where g is W(M/G/c) / W(M/M/c) for the spread of sizes (Kimura; `queueing.mgc`): g is
    near 1/2 where all requests are alike, 1 where their service is as uneven as the exponential.

Sizes are a mixture of (share, input tokens, output tokens); `lognormal_points` makes one of a mean and a deviation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from scipy.special import ndtr, ndtri

from tierserve.queueing._arrays import Array
from tierserve.queueing._validation import above_zero, at_least_zero, complain, fraction, whole
from tierserve.queueing.batching.birth_death import BatchQueue, levels_of, queue_of
from tierserve.queueing.batching.profile import BatchProfile, Sizes
from tierserve.queueing.mgc import wait_ratio

EDGES = np.concatenate([np.linspace(0.0, 0.9, 19), [0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 1.0]])
"""Of the parts that a distribution of sizes is cut into: finer where percentiles are asked for."""
STAY = math.sqrt(2.0 / 3.0)
"""Deviation of the mean batch during a stay, over that of the batch."""
SURE = 1e-12
"""Least deviation of a service time, over its mean."""
ROUNDING = 1.0 + 1e-9
"""Factor of what may be late for a quantile, so that it does not hang on the last digit of a sum of shares."""
_FEW = 8
"""Sizes up to which a loop is faster than arrays."""
_SAME = 1e-10


@dataclass(frozen=True)
class BatchWork:
    """One replica and what requests ask of it.

    Attributes:
        profile: step times.
        slots: n, the largest batch.
        sizes: (share, input tokens, output tokens) of the requests; the shares sum to 1.
        service_cs2: squared coefficient of variation of the service time for the waits; None: as the sizes make it.
    """

    profile: BatchProfile
    slots: int
    sizes: Sizes
    service_cs2: float | None = None

    def __post_init__(self) -> None:
        if not self.sizes or abs(sum(share for share, _, _ in self.sizes) - 1.0) > 1e-6:
            raise complain("sizes", self.sizes, "shares that sum to 1", "give (share, input tokens, output tokens)")
        if self.slots < 1:
            raise complain("slots", self.slots, "at least 1", "give the largest batch of a replica")

    @cached_property
    def rates(self) -> Array:
        """r(1), ..., r(n): requests per second with so many of the mixture in the batch, shape (n,)."""
        # T(n) is linear in n
        alone, full = (self.profile.mean_service_time(n, self.sizes) for n in (1.0, float(self.slots)))
        batch = np.arange(1.0, self.slots + 1.0)
        return batch / (alone + (batch - 1.0) * ((full - alone) / max(self.slots - 1, 1)))

    @cached_property
    def levels(self) -> Array:
        """0 and the rates, checked, shape (n + 1,)."""
        rates = self.rates  # j / (T(1) + (j - 1) t) rises throughout or falls throughout
        return np.append(0.0, rates) if rates[-1] >= rates[0] else levels_of(rates)

    @cached_property
    def shares(self) -> Array:
        """Share of each size, shape (m,)."""
        out: Array = self._columns[0]
        return out

    @cached_property
    def steps(self) -> Array:
        """Steps of each size, prefill among them, shape (m,)."""
        out: Array = 1.0 + self._columns[2]
        return out

    @cached_property
    def own(self) -> Array:
        """Seconds that the tokens of each size add to its own steps, shape (m,)."""
        _, i, o = self._columns
        beta, gamma = self.profile.beta, self.profile.gamma
        out: Array = (beta + gamma) * i + o * (beta + gamma * (i + 0.5 * o))
        return out

    @cached_property
    def _columns(self) -> Array:
        return np.array(self.sizes, dtype=np.float64).T.copy()

    def services(self, mean_s: float) -> Array:
        """Return the service time of each size where the mean of them is `mean_s` seconds, shape (m,)."""
        own, steps = self._means
        return self.steps * ((mean_s - own) / steps) + self.own

    @cached_property
    def _means(self) -> tuple[float, float]:
        return float(self.shares @ self.own), float(self.shares @ self.steps)

    @cached_property
    def alone_s(self) -> float:
        """Mean service time in a replica that is else empty."""
        return 1.0 / float(self.rates[0])

    @cached_property
    def full_s(self) -> float:
        """Mean service time in a full batch."""
        return self.slots / float(self.rates[-1])

    @cached_property
    def full(self) -> Array:
        """Service time of each size in a full batch, shape (m,)."""
        return self.services(self.full_s)

    @cached_property
    def slope(self) -> Array:
        """Seconds that one request more in the batch adds to each size, shape (m,)."""
        return self.steps * self.profile.share(self.sizes)

    @cached_property
    def cs2(self) -> float:
        """Squared coefficient of variation of the service time in a full batch."""
        if self.service_cs2 is not None:
            return self.service_cs2
        spread = float(self.shares @ (self.full - self.full_s) ** 2)
        return spread / (self.full_s * self.full_s)


@dataclass(frozen=True)
class BatchResponse:
    """Response times of a pool in seconds, without the network.

    Attributes:
        queue: the chain behind it.
        mean_wait: mean time in the queue, corrected for the spread of sizes.
        decay: rate of the exponential of the waits, per second.
        shares: of the sizes, shape (m,).
        free, free_sd: mean and deviation of the service of each size for a request that did not wait.
        full: service of each size for one that waited.
    """

    queue: BatchQueue
    mean_wait: float
    decay: float
    shares: Array
    free: Array
    free_sd: Array
    full: Array

    @property
    def mean_response(self) -> float:
        """Mean time from arrival to the last token; `inf` where the pool cannot bear the load."""
        return self.mean_wait + self.queue.mean_service

    def survival(self, t: float) -> float:
        """Return P(wait + service > t seconds)."""
        if self.decay <= 0.0:
            return 1.0
        return self._few(t) if len(self.shares) <= _FEW else self._many(t)

    def _many(self, t: float) -> float:
        served = ndtr((self.free - t) / np.maximum(self.free_sd, SURE * self.free))
        waited = np.exp(-self.decay * np.maximum(t - self.full, 0.0))
        p = self.queue.p_wait
        return float(self.shares @ ((1.0 - p) * served + p * waited))

    def _few(self, t: float) -> float:
        """The same without arrays, which take longer than the sum."""
        p, total = self.queue.p_wait, 0.0
        for share, free, width, full in self._parts:
            served = 0.5 * math.erfc((t - free) / width)
            waited = math.exp(-self.decay * (t - full)) if t > full else 1.0
            total += share * ((1.0 - p) * served + p * waited)
        return total

    @cached_property
    def _parts(self) -> tuple[tuple[float, float, float, float], ...]:
        """(share, free, sqrt(2) deviations of it, full) of each size."""
        width = math.sqrt(2.0) * np.maximum(self.free_sd, SURE * self.free)
        columns = (self.shares.tolist(), self.free.tolist(), width.tolist(), self.full.tolist())
        return tuple(zip(*columns, strict=True))

    def wait_survival(self, t: float) -> float:
        """Return P(wait > t seconds)."""
        return 1.0 if self.decay <= 0.0 else self.queue.p_wait * math.exp(-self.decay * t)

    def wait_quantile(self, q: float) -> float:
        """Return the seconds that a share q of the requests wait at most; 0 where fewer than 1 - q wait at all."""
        if self.decay <= 0.0:
            return math.inf
        p = self.queue.p_wait
        return max(0.0, math.log(p / (1.0 - q)) / self.decay) if p > 0.0 else 0.0

    def quantile(self, q: float) -> float:
        """Return the seconds that a share q of the requests take at most, wait and service together.

        Where just a share q of the sizes is short, it is the time of those: a billionth more that may be late decides.
        """
        miss = (1.0 - fraction("q", q, "give a quantile such as 0.95")) * ROUNDING
        if self.decay <= 0.0:
            return math.inf
        high = float(np.max(self.full)) + self.wait_quantile(q)
        while self.survival(high) > miss:
            high *= 2.0
        return _first_within(self.survival, miss, high)


def _first_within(survival: Callable[[float], float], miss: float, high: float) -> float:
    """Return the least t <= high with survival(t) <= miss, which falls, to ten digits and never below.

    By regula falsi (Illinois) on the logarithm, which is nearly straight where waits are exponential; where two steps
    do not halve the bracket, as beside a jump, the next one does.
    """
    low, at_low, at_high = 0.0, -math.log(miss), min(_excess(survival(high), miss), 0.0)
    side, slow, width = 0, 0, high
    while high - low > _SAME * high:
        x = (low * at_high - high * at_low) / (at_high - at_low) if slow < 2 else 0.5 * (low + high)
        x = min(max(x, low + 0.2 * _SAME * high), high - 0.2 * _SAME * high)
        y = _excess(survival(x), miss)
        if y > 0.0:
            low, at_low, at_high, side = x, y, at_high * (0.5 if side > 0 else 1.0), 1
        else:
            high, at_high, at_low, side = x, y, at_low * (0.5 if side < 0 else 1.0), -1
        slow = slow + 1 if high - low > 0.5 * width else 0
        width = high - low if slow == 0 else width
    return high


def _excess(survival: float, miss: float) -> float:
    """ln(survival / miss), no less than to a thousandth: lower, it would only mislead the next guess."""
    return math.log(max(survival / miss, 1e-3))


def batch_response(lam: float, replicas: int, work: BatchWork) -> BatchResponse:
    """Return the response times of `replicas` replicas behind one queue, Poisson arrivals.

    Errors against a simulation token by token (1 to 16 replicas of 8 and 64 slots, loads of 0.3 to 0.97, sizes alike
    and lognormal) are in docs/queueing.md, from bench/queueing/simulator.py.

    Args:
        lam: arrivals per second, >= 0.
        replicas: R, >= 1.
        work: the replica and the sizes of the requests.

    Raises:
        ValueError: an argument is out of its range.
    """
    rate = at_least_zero("lam", lam, "give the arrivals per second")
    queue = queue_of(rate, whole("replicas", replicas, "give the replicas that serve"), work.levels)
    ratio = wait_ratio(queue.servers, min(rate / queue.capacity, 1.0), work.cs2) if rate > 0.0 else 1.0
    p, alone = queue.p_wait, work.alone_s
    mean_s = alone if p >= 1.0 else max(alone, (queue.mean_service - p * work.full_s) / (1.0 - p))
    return BatchResponse(
        queue=queue,
        mean_wait=queue.mean_wait * ratio,
        decay=(queue.capacity - queue.arrival_rate) / ratio,
        shares=work.shares,
        free=work.services(mean_s),
        free_sd=work.slope * (queue.batch_sd / replicas * STAY),
        full=work.full,
    )


@lru_cache(maxsize=256)
def lognormal_points(mean: float, spread: float) -> tuple[tuple[float, float], ...]:
    """Return (share, value) of a lognormal cut into parts, whose mean is `mean`.

    Args:
        mean: > 0.
        spread: standard deviation over the mean, >= 0; with 0 there is one point.

    Raises:
        ValueError: an argument is out of its range.
    """
    above_zero("mean", mean, "give the mean of the sizes")
    if at_least_zero("spread", spread, "give the standard deviation over the mean") == 0.0:
        return ((1.0, mean),)
    sigma = math.sqrt(math.log1p(spread * spread))
    # the mean within a part: the lognormal's partial expectation is the normal's distribution shifted by sigma
    parts = np.diff(ndtr(ndtri(EDGES) - sigma))
    shares = np.diff(EDGES)
    return tuple((float(share), float(mean * part / share)) for share, part in zip(shares, parts, strict=True))
