"""How long requests take in a pool of batching replicas where a prompt is read in one step, for Poisson arrivals.

`batch_response` spreads the work of a request evenly over its steps. A long prompt holds up all of the batch for one
step though; while it lasts others gather, who are then read in one step too. `step_noise` has that for a replica that
takes everybody at once. Here it is bounded by the slots, and requests change as they do in a batch:

*   Of n slots only those that are free let arrivals in. Of what more arrivals would add to the batch a part
    phi = Cov(min(N, n), N) / Var N gets in (statistical linearisation: Booton, "Nonlinear control systems with random
    inputs", 1954). With N as a gamma distribution that is P(N' < n), N' the same with a shape larger by one.
*   The other requests of a batch that stays as full are renewals: one ends, the next is read. Where all are alike the
    same number is read in every stay; where answers are exponential it is as uneven as Poisson's. The spectrum is that
    of a renewal process whose marks are what a request adds to the steps (Daley and Vere-Jones, "An introduction to the
    theory of point processes", chapter 8).

The service of each size is a gamma distribution of that mean and variance for those who find a slot. Those who wait do
so as in `batch_response`, and are served in a full batch. Neither the mean nor any tail is below that of even steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from scipy.special import gammainc, gammaincc, log_ndtr, ndtr

from tierserve.queueing._arrays import Array
from tierserve.queueing.batching.response import BatchResponse, BatchWork, batch_response
from tierserve.queueing.batching.steps import Complex, Kernels, kernels_of, later_steps, longer_at_one, sum_variance

REFILLED = 0.9
"""Chance that a slot is taken again at once: batches are not as regular as like sizes would make them. Between 0.8 and
1 the errors are the same to a fifth of a per cent."""
_SURE = 1e-6
_ROUNDS, _CLOSE = 30, 1e-4


@dataclass(frozen=True)
class PromptResponse(BatchResponse):
    """Response times of a pool in seconds, without the network, with prompts that are read in one step each.

    Attributes:
        served, served_sd: mean and deviation of the service of each size for a request that did not wait, shape (m,).
        full_sd: deviation of the service of one that waited.
    """

    served: Array
    served_sd: Array
    full_sd: Array

    @property
    def mean_response(self) -> float:
        """Mean time from arrival to the last token; `inf` where the pool cannot bear the load."""
        even, p = super().mean_response, self.queue.p_wait
        held_up = (1.0 - p) * float(self.shares @ self.served) + p * float(self.shares @ self.full)
        return max(even, self.mean_wait + held_up)

    def survival(self, t: float) -> float:
        """Return P(wait + service > t seconds)."""
        even = super().survival(t)
        if self.decay <= 0.0 or even >= 1.0:
            return even
        p, (shape, pace, blur) = self.queue.p_wait, self._curves
        late = (1.0 - p) * float(self.shares @ gammaincc(shape, max(t, 0.0) * pace))
        if late + p <= even:
            return even
        beyond = (t - self.full) / self.full_sd
        # a normal service after an exponential wait
        tail = np.minimum(blur * (0.5 * blur - beyond) + log_ndtr(beyond - blur), 0.0)
        waited = np.minimum(ndtr(-beyond) + np.exp(tail), 1.0)
        return max(even, late + p * float(self.shares @ waited))

    @cached_property
    def _curves(self) -> tuple[Array, Array, Array]:
        """Shape of the gamma distribution of each size and shape over mean; decay times the deviation of a full one."""
        shape = (self.served / self.served_sd) ** 2
        return shape, shape / self.served, self.decay * self.full_sd


@dataclass(frozen=True, slots=True)
class _Spectra:
    """Of a mixture, over frequencies (f,): what does not depend on the load."""

    kernels: Kernels
    seats: Complex  # mean of the indicator that a request is in the batch
    seats_power: Array  # its mean square
    both: Complex  # mean of its conjugate times what the request adds to the steps
    renewed: Array  # of a batch that stays as full, for each request per step


def unevenness(work: BatchWork) -> float:
    """Return how much prompts that are read in one step each can matter to percentiles, for any load; no unit.

    By how much the deviation of a full service over its mean grows in the batch in which prompts that others read at
    random times vary most, times the share of prompts in the work of a full replica. `rows_of` has it for many.
    Like prompts of 1,000 tokens with answers of 300 have 0.01 to 0.03, code completion 0.05 to 0.4, chat 0.005 or less.
    """
    prompts = (work.profile.beta + work.profile.gamma) * np.array([size[1] for size in work.sizes])
    square, full_s = float(work.shares @ (prompts * prompts)), work.full_s
    each = (full_s - work.alone_s) / max(work.slots - 1, 1)
    own = work.alone_s - each
    batch = max(own / each if each * work.slots > own else float(work.slots), 1.0)
    spread = float(work.shares @ (work.full - full_s) ** 2) / (full_s * full_s)
    grown = math.sqrt(spread + batch * square / (own + batch * each) ** 2) - math.sqrt(spread)
    return grown * work.slots * float(work.shares @ prompts) / full_s


@lru_cache(maxsize=64)
def _spectra(work: BatchWork) -> _Spectra:
    kernels = kernels_of(work)
    steps, prompt, decode = kernels.steps, kernels.prompt, kernels.decode
    typical = float(work.shares @ (prompt + decode * (steps - 1.0))) / float(work.shares @ steps)
    seats, both, ends, marks, ended = np.zeros((5, kernels.mean.size), dtype=np.complex128)
    seats_power, marks_power = np.zeros((2, kernels.mean.size))
    for many in np.unique(steps):
        mine = steps == many
        share, b, d = work.shares[mine], prompt[mine], decode[mine]
        total, b_mean, d_mean = float(share.sum()), float(share @ b), float(share @ d)
        end, later = later_steps(int(many), kernels.length)
        seat = 1.0 + later
        seats += total * seat
        seats_power += total * np.abs(seat) ** 2
        both += np.conj(seat) * (b_mean + d_mean * later)
        mark = b_mean - typical * total + (d_mean - typical * total) * later
        marks += mark
        marks_power += (share @ (b - typical) ** 2) + (share @ (d - typical) ** 2) * np.abs(later) ** 2
        marks_power += 2.0 * (share @ ((b - typical) * (d - typical))) * later.real
        ends += total * end
        ended += np.conj(mark) * end
    again = REFILLED * ended * marks / (1.0 - REFILLED * ends)
    return _Spectra(kernels, seats, seats_power, both, np.maximum(marks_power + 2.0 * again.real, 0.0))


@lru_cache(maxsize=2048)
def prompt_response(lam: float, replicas: int, work: BatchWork) -> PromptResponse:
    """Return the response times of `replicas` replicas behind one queue, Poisson arrivals, prompts read in one step.

    Errors beside a simulation token by token: docs/benchmarks/long-prompts.md.

    Args:
        lam: arrivals per second, >= 0.
        replicas: R, >= 1.
        work: the replica and the sizes of the requests.

    Raises:
        ValueError: an argument is out of its range.
    """
    calm = batch_response(lam, replicas, work)
    each = calm.queue.arrival_rate / replicas
    if calm.decay <= 0.0 or each <= 0.0 or work.profile.alpha <= 0.0:
        return _held_up(calm, calm.free, calm.free_sd, np.zeros_like(calm.full))
    spectra = _spectra(work)
    kernels = spectra.kernels
    own = kernels.prompt + kernels.decode * (kernels.steps - 1.0)
    rho = each * float(work.shares @ own)
    if rho >= 1.0:
        return _held_up(calm, calm.free, calm.free_sd, np.zeros_like(calm.full))
    step = work.profile.alpha / (1.0 - rho)
    flow = _Flow(each, step, replicas, min(each * step * float(work.shares @ kernels.steps), float(work.slots)))
    entering = _entering(spectra, flow, work.slots)
    grown = 1.0 / (1.0 - entering * each * kernels.mean)
    power = entering * kernels.power + (1.0 - entering) * spectra.renewed
    pooled = np.fft.irfft(each * step * power * np.abs(grown) ** 2, kernels.length)
    local = np.fft.irfft(each * step * spectra.renewed, kernels.length)
    extra = longer_at_one(kernels, work, rho, pooled, np.fft.irfft(grown, kernels.length))
    mean = np.maximum(calm.free + extra / replicas, work.services(work.alone_s))
    longer = np.maximum(mean / (kernels.steps * step), 1.0)  # as many arrivals as come in the time that it takes
    inside = sum_variance(kernels.steps, local) * longer
    found = 0.5 * (step + float(pooled[0]) / step)
    whole = inside * (1.0 - 1.0 / replicas) + (sum_variance(kernels.steps, pooled) * longer + found**2) / replicas
    return _held_up(calm, mean, np.sqrt(whole), np.sqrt(inside * np.maximum(calm.full / mean, 1.0)))


class _Flow(NamedTuple):
    """Arrivals per second of each replica, the mean step in seconds, the replicas, and the mean of their batches."""

    each: float
    step: float
    replicas: int
    batch: float


def _entering(spectra: _Spectra, flow: _Flow, slots: int) -> float:
    """Return phi, the part of more arrivals that finds a slot."""
    kernels, each, entering = spectra.kernels, flow.each, 1.0
    for _ in range(_ROUNDS):
        gain = entering * each * spectra.seats / (1.0 - entering * each * kernels.mean)
        spectrum = spectra.seats_power + 2.0 * (spectra.both * gain).real + kernels.power * np.abs(gain) ** 2
        variance = each * flow.step * _at_zero(spectrum, kernels.length) / flow.replicas
        scale = variance / flow.batch
        found = float(gammainc(flow.batch / scale + 1.0, (slots + 0.5) / scale))
        if abs(found - entering) < _CLOSE:
            break
        entering = 0.5 * (entering + found)
    return entering


def _at_zero(spectrum: Array, length: int) -> float:
    """The first term of the inverse transform of a real spectrum."""
    return float(2.0 * spectrum.sum() - spectrum[0] - spectrum[-1]) / length


def _held_up(calm: BatchResponse, served: Array, served_sd: Array, full_sd: Array) -> PromptResponse:
    return PromptResponse(
        queue=calm.queue,
        mean_wait=calm.mean_wait,
        decay=calm.decay,
        shares=calm.shares,
        free=calm.free,
        free_sd=calm.free_sd,
        full=calm.full,
        served=served,
        served_sd=np.maximum(served_sd, _SURE * served),
        full_sd=np.maximum(full_sd, 1e-3 * calm.full),
    )
