"""Fit of a batching profile to response times measured in closed loops.

A closed loop of n connections on a replica with n slots or more keeps n requests in the batch and none in a queue. The
mean response of n like requests of i input and o output tokens is then T(n) of `queueing.batching.profile`:

    T(n) = alpha (1 + o) + beta n (i + o) + gamma [(n - 1)(1 + o)(i + o / 2) + i + o (i + o / 2)],

which is linear in the coefficients. They are those that minimise the squared relative errors of the cells and are not
negative. Their intervals come from a bootstrap, which repeats the fit with cells drawn from the measured times. It does
not see an engine that does not follow the model: the error of each cell shows that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from tierserve.queueing._arrays import Array
from tierserve.queueing._validation import complain
from tierserve.queueing.batching.profile import BatchProfile

NAMES = ("alpha", "beta", "gamma")
RESAMPLES = 1000
LEAST_TIMES = 2
"""Measured requests that a cell needs: one has no spread."""
_SEPARABLE = 1e-4
"""Least singular value, over the largest, of the equations with columns scaled to 1: below it they are as good as one
equation less, and the coefficients any of a line of values. Grids with two sizes of everything have above 1e-2."""
_GAIN = 0.03
"""Share of the throughput that a larger batch must add to be useful; less is within the noise of a few rounds."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Measurement of one batch size and one size of request.

    Attributes:
        batch: n, the connections of the closed loop.
        input, output: mean tokens of a request.
        times: response times in seconds, in the order in which they ended.
    """

    batch: int
    input: float
    output: float
    times: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean response time in seconds."""
        return math.fsum(self.times) / len(self.times)

    @property
    def tokens_per_s(self) -> float:
        """Output tokens per second of the whole batch."""
        return self.batch * self.output / self.mean


@dataclass(frozen=True, slots=True)
class Interval:
    """Bounds of a 95% confidence interval, in seconds."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Fit:
    """Profile that fits the cells best.

    Attributes:
        profile: the coefficients.
        intervals: 95% interval of each coefficient by name.
        fitted: T(n) of each cell by the profile, in seconds.
        errors: (fitted - measured) / measured of each cell.
    """

    profile: BatchProfile
    intervals: dict[str, Interval]
    fitted: tuple[float, ...]
    errors: tuple[float, ...]

    @property
    def mean_error(self) -> float:
        """Mean of the absolute errors of the cells."""
        return math.fsum(map(abs, self.errors)) / len(self.errors)

    @property
    def largest_error(self) -> float:
        """Largest absolute error of a cell."""
        return max(map(abs, self.errors))


def fit_profile(cells: Sequence[Cell], *, seed: int = 1) -> Fit:
    """Return the profile of a replica from closed loops of at most its slots.

    Args:
        cells: at least three, which differ in batch, input and output.
        seed: of the bootstrap.

    Raises:
        ValueError: a cell is not a measurement, or the cells do not determine the coefficients.
    """
    _check(cells)
    rows = np.array([_row(cell) for cell in cells])
    means = np.array([cell.mean for cell in cells])
    _check_separable(rows / means[:, None])
    coefficients = _solve(rows, means)
    if not coefficients.any():
        raise complain("times", means.tolist(), "longer with more tokens or requests", "measure the replica again")
    drawn = np.array([_solve(rows, resampled) for resampled in _resamples(cells, np.random.default_rng(seed))])
    lows, highs = np.quantile(drawn, (0.025, 0.975), axis=0)
    fitted = rows @ coefficients
    return Fit(
        BatchProfile(*map(float, coefficients)),
        {name: Interval(float(low), float(high)) for name, low, high in zip(NAMES, lows, highs, strict=True)},
        tuple(map(float, fitted)),
        tuple(map(float, fitted / means - 1.0)),
    )


def largest_useful_batch(cells: Sequence[Cell]) -> int:
    """Return the batch from which on larger ones raise the throughput of no size of request by more than 3%."""
    useful = 1
    for size in {_size(cell) for cell in cells}:
        rates = {cell.batch: cell.tokens_per_s for cell in cells if _size(cell) == size}
        useful = max(useful, min(n for n, rate in rates.items() if rate * (1.0 + _GAIN) >= max(rates.values())))
    return useful


def _size(cell: Cell) -> tuple[int, int]:
    return round(cell.input), round(cell.output)


def _row(cell: Cell) -> tuple[float, float, float]:
    """Factors of alpha, beta and gamma in T(n)."""
    n, i, o = float(cell.batch), cell.input, cell.output
    read = i + o / 2.0
    return 1.0 + o, n * (i + o), (n - 1.0) * (1.0 + o) * read + i + o * read


def _solve(rows: Array, means: Array) -> Array:
    """Return the coefficients >= 0 with the least squared relative errors."""
    weighted = rows / means[:, None]
    # Tokens of context are counted in thousands: with columns of like size the tolerance of `nnls` fits all.
    scale = np.linalg.norm(weighted, axis=0)
    solution: Array = nnls(weighted / scale, np.ones(len(means)))[0] / scale
    return solution


def _resamples(cells: Sequence[Cell], rng: np.random.Generator) -> Array:
    """Return mean times of the cells, drawn with replacement, shape (RESAMPLES, cells).

    Drawn are rounds of n requests that ended one after another and not single ones, for these share steps, and with
    them whatever disturbs the machine. The factor makes up for the variance that few rounds lose.
    """
    columns = []
    for cell in cells:
        rounds = max(len(cell.times) // cell.batch, min(LEAST_TIMES, len(cell.times)))
        means = np.array([part.mean() for part in np.array_split(np.array(cell.times), rounds)])
        drawn = means[rng.integers(rounds, size=(RESAMPLES, rounds))].mean(axis=1)
        factor = math.sqrt(rounds / (rounds - 1.0)) if rounds > 1 else 1.0
        columns.append(np.maximum(cell.mean + factor * (drawn - means.mean()), 0.1 * cell.mean))
    return np.array(columns).T


def _check(cells: Sequence[Cell]) -> None:
    for cell in cells:
        if cell.batch < 1 or cell.input < 0.0 or cell.output <= 0.0:
            size = (cell.batch, cell.input, cell.output)
            raise complain("cell", size, "a batch >= 1, input >= 0 and output > 0", "measure requests with an answer")
        if len(cell.times) < LEAST_TIMES:
            raise complain("times", len(cell.times), f"at least {LEAST_TIMES} in each cell", "measure more rounds")
        if not all(0.0 < time < math.inf for time in cell.times):
            raise complain("times", min(cell.times), "finite and above 0", "measure the cell again")


def _check_separable(rows: Array) -> None:
    values = np.linalg.svd(rows / np.linalg.norm(rows, axis=0), compute_uv=False) if len(rows) >= len(NAMES) else [1, 0]
    if values[-1] < _SEPARABLE * values[0]:
        raise ValueError(
            "cells must differ in batch, input and output so that alpha, beta and gamma can be separated: "
            "measure at least two batch sizes, two prompt lengths and two response lengths"
        )
