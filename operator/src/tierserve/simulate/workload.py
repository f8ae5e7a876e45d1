"""Workloads: scaled-up recorded traces and synthetic streams, reproducible by seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tierserve.simulate.types import Floats, Ints, Workload


@dataclass(frozen=True, slots=True)
class Sizes:
    """Tokens of synthetic requests: means, and one coefficient of variation for both (lognormal; 0: all alike)."""

    input: float
    output: float
    cv: float = 0.0

    def draw(self, n: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """Return n numbers of input and of output tokens, at least 1 each."""
        return _lognormal(self.input, self.cv, n, rng), _lognormal(self.output, self.cv, n, rng)


def _lognormal(mean: float, cv: float, n: int, rng: np.random.Generator) -> Ints:
    if cv <= 0.0:
        return np.full(n, max(round(mean), 1), dtype=np.int64)
    sigma2 = float(np.log1p(cv * cv))
    values = mean * np.exp(rng.normal(-sigma2 / 2.0, sigma2**0.5, n))
    return np.maximum(np.rint(values), 1).astype(np.int64)


def stream(
    rate: Callable[[Floats], Floats], most: float, length_s: float, sizes: Sizes, *, seed: int, name: str
) -> Workload:
    """Return a Poisson stream whose rate changes, by thinning (Lewis and Shedler, 1979).

    Args:
        rate: requests per second at each of an array of seconds; never above `most`.
        most: the highest rate.
        length_s: seconds.
        sizes: of the requests.
        seed: of the random numbers.
        name: of the workload.
    """
    rng = np.random.default_rng(seed)
    count = rng.poisson(most * length_s)
    times = np.sort(rng.uniform(0.0, length_s, count))
    times = times[rng.random(count) * most < rate(times)]
    return Workload(times, *sizes.draw(times.size, rng), length_s, name)


def poisson(rate: float, length_s: float, sizes: Sizes, seed: int = 1) -> Workload:
    """Return a stream of a constant rate."""
    return stream(lambda t: np.full(t.size, rate), rate, length_s, sizes, seed=seed, name=f"poisson {rate:g}/s")


def steps(rates: Sequence[float], each_s: float, sizes: Sizes, seed: int = 1, name: str = "steps") -> Workload:
    """Return a stream with one rate after the other, each for `each_s` seconds."""
    values = np.asarray(rates, dtype=np.float64)

    def rate(t: Floats) -> Floats:
        found: Floats = values[np.minimum((t / each_s).astype(np.int64), values.size - 1)]
        return found

    return stream(rate, float(values.max()), each_s * values.size, sizes, seed=seed, name=name)


def growing(first: float, last: float, per_minute: float, sizes: Sizes, seed: int = 1) -> Workload:
    """Return a stream that grows by a share a minute from one rate to another."""
    speed = np.log1p(per_minute) / 60.0
    length_s = float(np.log(last / first) / speed)
    return stream(
        lambda t: first * np.exp(speed * t), last, length_s, sizes, seed=seed, name=f"{first:g}/s to {last:g}/s"
    )


def bursts(
    low: float, high: float, *, low_s: float, high_s: float, length_s: float, sizes: Sizes, seed: int = 1
) -> Workload:
    """Return a Markov-modulated stream: two rates, each held for an exponential time of the mean given."""
    rng = np.random.default_rng([seed, 2])
    pairs = 2 + int(4 * length_s / (low_s + high_s))
    spans = rng.exponential(np.tile([low_s, high_s], pairs))
    ends = np.cumsum(spans)

    def rate(t: Floats) -> Floats:
        return np.where(np.searchsorted(ends, t, side="right") % 2 == 0, low, high)

    return stream(rate, max(low, high), length_s, sizes, seed=seed, name=f"bursts {low:g}-{high:g}/s")


def daily(mean: float, swing: float, days: float, sizes: Sizes, *, seed: int = 1, noise: float = 0.0) -> Workload:
    """Return a stream that swings with the hour by a share, and by noise (per ten minutes, lognormal sd) on top."""
    length_s = days * 86_400.0
    wobble = np.exp(np.random.default_rng([seed, 3]).normal(0.0, noise, int(length_s / 600.0) + 1))

    def rate(t: Floats) -> Floats:
        shape = 1.0 - swing * np.cos(2.0 * np.pi * t / 86_400.0)
        return mean * shape * wobble[(t / 600.0).astype(np.int64)]

    return stream(rate, mean * (1.0 + swing) * float(wobble.max()), length_s, sizes, seed=seed, name="daily")


def thickened(work: Workload, times: int, spread_s: float, seed: int = 1) -> Workload:
    """Return the workload with `times` copies of each request, at random within `spread_s` after it."""
    if times <= 1:
        return work
    rng = np.random.default_rng(seed)
    moments = np.repeat(work.times_s, times) + rng.uniform(0.0, spread_s, len(work) * times)
    order = np.argsort(moments, kind="stable")
    return Workload(
        moments[order],
        np.repeat(work.input_tokens, times)[order],
        np.repeat(work.output_tokens, times)[order],
        max(work.length_s, float(moments.max())),
        work.name,
        work.source,
    )


def among(weights: Sequence[float], n: int, seed: int | Sequence[int] = 1) -> Ints:
    """Return n random indices with these weights: classes of requests by their shares."""
    shares = np.cumsum(np.asarray(weights, dtype=np.float64))
    dice = np.random.default_rng(seed).random(n)
    return np.searchsorted(shares / shares[-1], dice, side="right").astype(np.int64)


def zipf(keys: int, exponent: float, n: int, seed: int | Sequence[int] = 1) -> Ints:
    """Return n keys at random of 0 to keys - 1, the k-th with weight 1 / (k + 1)^exponent."""
    return among((1.0 / np.arange(1, keys + 1) ** exponent).tolist(), n, seed)
