"""What long prompts do to the requests beside them: steps that last as long as the prompts read in them.

`batch_response` spreads the work of a request evenly over its steps. That is right where answers make up the work. A
prompt of thousands of tokens is read in one step though, which holds up all of the batch, lets others gather who
then read theirs in one step too, and an arrival lands in a long step more often than in a short one. Counted in steps
this is a linear process (Hawkes, "Spectra of some self-exciting and mutually exciting point processes", Biometrika 58,
1971): a step lasts

    s(k) = alpha + sum over requests that joined m steps ago of c(m),       c(0) = B, c(m) = d for m = 1 ... o,

with B the seconds to read a prompt, d those that a request adds to each later step, and Poisson arrivals while the step
runs. Its spectrum is known, hence covariance of the steps, their mean as an arrival finds it, and mean and variance of
the sum of the 1 + o steps of each size. Those are of one replica. Of R replicas behind one queue, where the emptiest
takes the next, the mean of all moves like one with 1/R of the variance; around it each replica has as many requests as
the others and only differs in what these are, which feeds no further arrivals.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tierserve.queueing._arrays import Array
from tierserve.queueing.batching.profile import Sizes
from tierserve.queueing.batching.response import EDGES, BatchResponse, BatchWork

_ROOM = 4
"""Length of the transform over the most steps of a request, so that its ends do not meet."""
Complex = npt.NDArray[np.complex128]
_FEW, _LEAST = 1e-3, 1e-2
_OUTPUTS = np.array([0.0, 0.3, 0.6, 0.8, 0.9, 0.96, 0.99, 1.0])
"""Of the parts that the answers to prompts of like length are cut into."""


@dataclass(frozen=True, slots=True)
class StepNoise:
    """Service times of each size where steps last as long as what is read in them; seconds, shape (m,).

    Attributes:
        mean: of the time from arrival to the last token, of a request that finds a slot.
        sd: its deviation.
        local_sd: the part of it that stays where the number of requests in the batch is known.
    """

    mean: Array
    sd: Array
    local_sd: Array

    def variance_in(self, even: Array, calm: BatchResponse, work: BatchWork, kept: float = 0.0) -> Array:
        """Return the variance of services that even steps would make `even` seconds long, shape (..., m).

        What others read meanwhile varies as much as they are many. Of the variance of batches as `calm` has it a part
        `kept` is counted: none where the number in the batch is distinguished.
        """
        alone = work.services(1.0 / float(work.rates[0]))
        others = np.maximum(even - alone, 0.0) / np.maximum(calm.free - alone, _FEW * alone)
        pooled = np.maximum(self.sd**2 - self.local_sd**2 - calm.free_sd**2, 0.0) + kept * calm.free_sd**2
        out: Array = np.maximum(self.local_sd**2 * others + pooled, (_LEAST * even) ** 2)
        return out


@dataclass(frozen=True, slots=True)
class Kernels:
    """Of a mixture, over frequencies (f,) and sizes (m,): what one request adds to the steps."""

    length: int
    mean: Complex  # of the sizes, (f,)
    power: Array  # mean square, (f,)
    local: Array  # the same around a batch of a constant number, (f,)
    prompt: Array  # B, (m,)
    decode: Array  # d, (m,)
    steps: Array  # 1 + o, whole, (m,)


@lru_cache(maxsize=64)
def kernels_of(work: BatchWork) -> Kernels:
    """Return what one request of the mixture adds to the steps, at any load."""
    i = np.array([size[1] for size in work.sizes])
    o = np.maximum(np.rint([size[2] for size in work.sizes]), 0.0)
    p = work.profile
    prompt, decode, steps = (p.beta + p.gamma) * i, p.beta + p.gamma * (i + o / 2.0), 1.0 + o
    length = 1 << math.ceil(math.log2(_ROOM * float(steps.max()) + 64.0))
    typical = float(work.shares @ (decode * steps)) / float(work.shares @ steps)
    mean = np.zeros(length // 2 + 1, dtype=np.complex128)
    power, local = np.zeros(mean.size), np.zeros(mean.size)
    for many in np.unique(steps):  # sizes of as many steps share the sum of their later ones
        mine = steps == many
        _, later = later_steps(int(many), length)
        share, b, d = work.shares[mine], prompt[mine], decode[mine]
        mean += share @ b + (share @ d) * later
        power += _square(share, b, d, later)
        local += _square(share, b, d - typical, later)
    return Kernels(length, mean, power, local, prompt, decode, steps)


@lru_cache(maxsize=16)
def _circle(length: int) -> tuple[Complex, Complex]:
    """Return e^(-2 pi i k / length), shape (length,), and 1 / (1 - that) for k <= length / 2, 0 for k = 0."""
    turns = np.exp(-2j * math.pi * np.arange(length) / length)
    inverse = np.zeros(length // 2 + 1, dtype=np.complex128)
    inverse[1:] = 1.0 / (1.0 - turns[1 : inverse.size])
    return turns, inverse


def later_steps(many: int, length: int) -> tuple[Complex, Complex]:
    """Return the transforms of a step `many` steps later, and of all the steps 1, ..., many - 1, shape (f,)."""
    turns, inverse = _circle(length)
    end = turns[np.arange(inverse.size) * many & (length - 1)]  # a power of two
    later = (turns[: inverse.size] - end) * inverse
    later[0] = many - 1.0
    return end, later


def _square(share: Array, b: Array, d: Array, later: Complex) -> Array:
    """Mean of |b + d later|^2 over sizes, shape (f,)."""
    out: Array = share @ (b * b) + 2.0 * (share @ (b * d)) * later.real + (share @ (d * d)) * np.abs(later) ** 2
    return out


def step_noise(response: BatchResponse, replicas: int, work: BatchWork) -> StepNoise:
    """Return the service of each size with steps as long as what is read in them, for Poisson arrivals.

    Errors: docs/benchmarks/trace-prediction.md (Poisson arrivals with the sizes of real traces).

    Args:
        response: of `batch_response` for the same pool.
        replicas: R.
        work: the replica and the sizes of the requests.
    """
    kernels, each = kernels_of(work), response.queue.arrival_rate / replicas
    own = kernels.prompt + kernels.decode * (kernels.steps - 1.0)
    rho = each * float(work.shares @ own)
    if each <= 0.0 or rho >= 1.0 or response.decay <= 0.0:
        zero = np.zeros_like(response.free)
        return StepNoise(response.free, response.free_sd, zero)
    step = work.profile.alpha / (1.0 - rho)
    grown = 1.0 / (1.0 - each * kernels.mean)
    pooled = np.fft.irfft(each * step * kernels.power * np.abs(grown) ** 2, kernels.length)
    local = np.fft.irfft(each * step * kernels.local, kernels.length)
    extra = longer_at_one(kernels, work, rho, pooled, np.fft.irfft(grown, kernels.length))
    mean = np.maximum(response.free + extra / replicas, response.free * 0.5)
    longer = np.maximum(mean / (kernels.steps * step), 1.0)  # as many arrivals as come in the time that it takes
    inside = sum_variance(kernels.steps, local) * longer
    whole = inside * (1.0 - 1.0 / replicas) + sum_variance(kernels.steps, pooled) * longer / replicas
    found = 0.5 * (step + float(pooled[0]) / step)
    return StepNoise(mean, np.sqrt(whole + found * found / replicas), np.sqrt(inside))


def longer_at_one(kernels: Kernels, work: BatchWork, rho: float, covariance: Array, grown: Array) -> Array:
    """Return by how much each size takes longer at a single replica than even steps make it, seconds, shape (m,)."""
    steps, step = kernels.steps.astype(np.int64), work.profile.alpha / (1.0 - rho)
    found = step + covariance / step  # mean of the steps from the one on in which a request arrives
    total = np.cumsum(found)
    sums = np.cumsum(grown)
    sums_of_sums = np.cumsum(sums)
    mine = kernels.prompt * sums[steps - 1]
    mine = mine + kernels.decode * np.where(steps > 1, sums_of_sums[np.maximum(steps - 2, 0)], 0.0)
    own = kernels.prompt + kernels.decode * (kernels.steps - 1.0)
    mean = (float(work.shares @ (kernels.steps * work.profile.alpha + own))) / (1.0 - rho)
    even = (mean - float(work.shares @ own)) / float(work.shares @ kernels.steps)
    out: Array = found[0] / 2.0 + (total[steps] - found[0]) + mine - (kernels.steps * even + own)
    return out


def sum_variance(steps: Array, covariance: Array) -> Array:
    """Variance of the sum of so many steps in a row, shape (m,)."""
    lags = np.arange(covariance.size)
    sums, weighted = np.cumsum(covariance), np.cumsum(lags * covariance)
    at = steps.astype(np.int64) - 1
    out: Array = steps * covariance[0] + 2.0 * (steps * (sums[at] - covariance[0]) - weighted[at])
    return np.maximum(out, 0.0)


def sizes_of(inputs: npt.NDArray[Any], outputs: npt.NDArray[Any]) -> Sizes:
    """Return a mixture of some 200 sizes with the tokens of these requests, for `BatchWork`.

    Requests are cut by their inputs, finer where they are long, and each part by its outputs; each piece is its mean,
    so that means are kept and squares nearly.

    Args:
        inputs, outputs: tokens of each request, shape (n,).
    """
    order = np.argsort(inputs, kind="stable")
    parts = _cut(order, EDGES)
    pieces = [one for part in parts for one in _cut(part[np.argsort(outputs[part], kind="stable")], _OUTPUTS)]
    return tuple((one.size / order.size, float(inputs[one].mean()), float(outputs[one].mean())) for one in pieces)


def _cut(items: npt.NDArray[np.int64], edges: Array) -> list[npt.NDArray[np.int64]]:
    cuts = np.rint(edges * items.size).astype(np.int64)
    return [items[a:b] for a, b in itertools.pairwise(cuts) if b > a]
