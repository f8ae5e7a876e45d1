"""How long requests take in a pool of batching replicas while arrivals come as they were counted, second by second.

Where the rate rises above what a pool can bear, for a few seconds or for minutes, what matters is how long that lasts
and how soon it comes again, which no mean, variance or peakedness shows. The counts themselves do. Requests are taken
as a fluid (Newell, "Applications of queueing theory", 1982) of three parts: those that wait for a slot, those whose
prompt is not read yet, x, and those that are answered, y. Prompts go first, one after another at each replica,

    read = min(x, R) / B,      finished = y (1 - f) / [(alpha + d y / R) (1 + o)],      f = read B / R,

so that a burst that fills empty replicas is first read as a whole, and no request completes meanwhile. In a steady
state it is the chain of `batch_queue` without chance. Chance is added from `queueing.batching.steps`.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np

from tierserve.queueing._arrays import Array, Real, array_of
from tierserve.queueing._validation import above_zero, complain
from tierserve.queueing.batching.bursts import BurstResponse
from tierserve.queueing.batching.response import BatchResponse, BatchWork, batch_response
from tierserve.queueing.batching.steps import StepNoise, step_noise

_FINE = 0.05
"""Strides of the fluid, of the time that a request takes alone."""
_KINDS = 300
"""Moments of arrival that are distinguished, at most."""
_TAIL = 20.0
"""The fluid continues after the last arrival for at most so many times what all of them and one more service take."""
_GONE = 1e-3
_TINY = 1e-9
_DEPARTURES = 0.5
"""Part of the chance in a pool that is in its departures; that of the arrivals is in their counts."""


class _Path(NamedTuple):
    """The fluid over time, shape (t,): requests that came, were let in and were read so far, and steps done."""

    at: Array
    came: Array
    entered: Array
    read: Array
    steps: Array


def replay_response(counts: Real, window_s: float, replicas: int, work: BatchWork) -> BurstResponse:
    """Return the response times of those who arrive as counted, at a pool that is empty before.

    The pool may be overloaded at times or all the time: those who are still there at the end are answered too.
    Errors on real traces: docs/benchmarks/trace-prediction.md.

    Args:
        counts: arrivals in consecutive windows, >= 0, shape (t,).
        window_s: seconds of each; as long as a service without others, or shorter.
        replicas: R, >= 1.
        work: the replica and the sizes of the requests.

    Raises:
        ValueError: an argument is out of its range, or there is no arrival.
    """
    seen = array_of("counts", counts, "give the arrivals in each window").ravel()
    above_zero("window_s", window_s, "give the seconds of a window")
    if not seen.sum() > 0.0:
        raise complain("counts", 0, "given with at least one arrival", "without arrivals there is no response time")
    rate = float(seen.sum()) / (window_s * seen.size)
    calm = batch_response(min(rate, 0.95 * replicas * float(work.rates[-1])), replicas, work)
    noise = step_noise(calm, replicas, work)
    path = _fluid(seen, window_s, replicas, work)
    return _answered(path, calm, noise, work)


def _fluid(counts: Array, window_s: float, replicas: int, work: BatchWork) -> _Path:
    parts = max(1, round(window_s * float(work.rates[0]) / _FINE))
    stride, servers, alpha = window_s / parts, float(replicas * work.slots), work.profile.alpha
    prompt, each, many = _means(work)
    asked, everyone = (counts / parts).repeat(parts).tolist(), float(counts.sum())
    after = round(_TAIL * (work.full_s + everyone / float(work.rates[-1]) / replicas) / stride)
    x = y = waiting = read_now = came = entered = read = steps = 0.0
    rows = [(came, entered, read, steps)]
    for arriving in itertools.chain(asked, itertools.repeat(0.0, after)):
        beside = _beside((x + y) / replicas, replicas)
        free_s = max(stride - beside * read_now * prompt / replicas, 0.0)  # of a stride, for those who are answered
        pace = free_s / (alpha + each * (1.0 + y / replicas * beside))
        finished = -math.expm1(-pace / many) * y
        let_in = min(waiting + arriving, servers - x - y + finished)
        read_now = min(x + let_in, min(x + let_in, float(replicas)) * stride / prompt)
        waiting, x, y = waiting + arriving - let_in, x + let_in - read_now, y + read_now - finished
        came, entered, read, steps = came + arriving, entered + let_in, read + read_now, steps + pace
        rows.append((came, entered, read, steps))
        if len(rows) > len(asked) and x + y + waiting < _GONE:
            break
    table: Array = np.array(rows, dtype=np.float64)
    at: Array = np.arange(len(rows), dtype=np.float64) * stride
    return _Path(at, table[:, 0], table[:, 1], table[:, 2], table[:, 3])


def _means(work: BatchWork) -> tuple[float, float, float]:
    """Return seconds to read a prompt, seconds that a request adds to a step besides, and its steps; means."""
    p, (share, i, o) = work.profile, np.array(work.sizes).T
    steps = 1.0 + float(share @ o)
    decoding = float(share @ (o * (p.beta + p.gamma * (i + o / 2.0))))
    return max((p.beta + p.gamma) * float(share @ i), _TINY), decoding / steps, steps


def _beside(batch: float, replicas: int) -> float:
    """Part of the others that a request meets at its replica: the emptiest of several has fewer than the mean."""
    return 1.0 / replicas + (1.0 - 1.0 / replicas) * max(batch - 1.0, 0.0) / max(batch, 1.0)


def _answered(path: _Path, calm: BatchResponse, noise: StepNoise, work: BatchWork) -> BurstResponse:
    p, (_, i, o) = work.profile, np.array(work.sizes).T
    prompt, each, _ = _means(work)
    own_prompt, own_later = (p.beta + p.gamma) * i, o * (p.beta + p.gamma * (i + o / 2.0))
    moments = (np.arange(_KINDS) + 0.5) / _KINDS * path.came[-1]
    arrive = np.interp(moments, path.came, path.at)
    enter = np.maximum(np.interp(moments, path.entered, path.at), arrive)
    read = np.maximum(np.interp(moments, path.read, path.at), enter) - prompt
    begin = np.maximum(read, enter)[:, None] + own_prompt
    # the path has the tokens of a mean request in each step: its own may take longer
    before = np.interp(begin, path.at, path.steps)
    end = np.interp(before + 1.0 + o, path.steps, path.at) + own_later - (1.0 + o) * each
    alone = work.services(1.0 / float(work.rates[0]))
    mean = np.maximum(end - enter[:, None], 0.5 * alone)
    variance = noise.variance_in(mean, calm, work, _DEPARTURES)
    mean = mean + np.maximum(noise.mean - calm.free + _by_chance(calm, work), 0.0)
    wait = enter - arrive
    share = np.full(_KINDS, 1.0 / _KINDS)
    waits = wait > 1e-3 * alone.mean()
    response = float(wait.mean()) + float(share @ mean @ work.shares)
    return BurstResponse(
        calm.queue, float(waits.mean()), float(wait.mean()), response, share, wait, work.shares, mean, variance
    )


def _by_chance(calm: BatchResponse, work: BatchWork) -> Array:
    """Return by how much each size takes longer as departures come by chance, shape (m,)."""
    queue, mu = calm.queue, np.concatenate([[0.0], work.rates])
    replicas = queue.servers / work.slots
    level = replicas * float(np.interp(queue.arrival_rate / replicas, mu, np.arange(mu.size)))
    longer = max(queue.mean_service - level / queue.arrival_rate, 0.0)
    out: Array = _DEPARTURES * longer * work.steps / float(work.shares @ work.steps)
    return out
