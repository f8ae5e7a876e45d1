"""Batching profile measured in operation, from the step counters of the replicas.

The difference of two reports of a replica gives means over the requests that finished in between: the prefill, the time
between two tokens, and the batch of each. Both times are linear in alpha, beta and gamma, so each is one row of a
least-squares fit whose unknowns are the ratios r of the coefficients to the configured ones:

    a . r = t,   a_j = share of coefficient j in the time by the configured profile,   t = time seen / that time.

Older rows weigh exponentially less, and only the moments of the rows are kept. What the rows leave open stays in
proportion to the configured profile (a ridge around the mean of t). Outliers are left out; if most of the last rows are
outliers, the machine has changed: the moments are rescaled to its new speed and weigh little from then on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from tierserve.autoscale.types import Calibrated, Observation, Settings, StepCounts
from tierserve.queueing.batching.profile import BatchProfile

FOLLOWED = 4
"""Replicas sampled at a time, each until it gives a sample: bounds the time of a decision over thousands."""
REQUESTS, LONGEST_S = 16, 60.0
"""Requests of a sample: fewer have noisy means. A replica that takes longer gives what it has finished by then."""
PRIOR_SD, NOISE = 0.5, 0.1
"""Relative standard deviations assumed at first: of a coefficient, since machines differ so, and of one row."""
MEMORY = 200
"""Rows after which a row weighs 1 / e, and for which a change of the machine is reported."""
RECENT = 9
"""Rows that a change is judged by: with 5% outliers, five of nine are on one side once in 30,000. The assumed noise
weighs as much, and after a change what was learned before; sizes are medians of as many samples."""
OUTLIER = 3.0
"""Standard deviations from which a row is an outlier: one of 400 that are none is lost."""
ENOUGH, MAX_RELATIVE_STD = 20, 0.1
"""Rows, and relative standard deviation of the service time of a full batch, from which the estimate is used: a tenth
is one replica of ten, and among fewer rows one that is wrong counts too much."""
STILL = 0.02
"""Relative change of a service time that updates the profile in use: less would move the target without need."""
_LARGEST, _FURTHEST = 1e15, 1e6  # of a counter, in whose sum one request is still seen; of t and 1 / t
_V = PRIOR_SD**2

Vector = tuple[float, float, float]
Row = tuple[float, float, float, float]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CalibrationState:
    """What is known of the step times of a pool.

    Attributes:
        configured: profile of the settings.
        moments: sums of the products of (a, t), each row weighted by its age and 1 / the t predicted.
        ratio, covariance: the ratios r and their covariance.
        noise: relative standard deviation of a row around the fit.
        relative_std: that of the service time of a full batch.
        used: the profile that decisions are made with, None for the configured one.
        samples: rows learned from.
        changed_at: `samples` when the machine last became slower or faster.
        recent: the last rows, (a, t), outliers among them.
        sizes: mean input and output tokens of the last samples.
        followed: replicas being sampled: Unix seconds and counters at the start of the sample.
        cursor: position of the next replica to follow.
    """

    configured: BatchProfile
    moments: tuple[Row, Row, Row, Row] = ((0.0,) * 4,) * 4
    ratio: Vector = (1.0, 1.0, 1.0)
    covariance: tuple[Vector, Vector, Vector] = ((_V, 0.0, 0.0), (0.0, _V, 0.0), (0.0, 0.0, _V))
    noise: float = NOISE
    relative_std: float = PRIOR_SD
    used: BatchProfile | None = None
    samples: int = 0
    changed_at: int | None = None
    recent: tuple[Row, ...] = ()
    sizes: tuple[tuple[float, float], ...] = ()
    followed: Mapping[str, tuple[float, StepCounts]] = field(default_factory=dict)
    cursor: int = 0

    @property
    def profile(self) -> BatchProfile:
        """The profile as estimated now."""
        (a, b, c), known = self.ratio, self.configured
        return BatchProfile(known.alpha * a, known.beta * b, known.gamma * c)


def update_calibration(state: CalibrationState | None, obs: Observation, settings: Settings) -> CalibrationState | None:
    """Return the estimate after one more observation; None without a configured profile."""
    if settings.profile is None or settings.output_tokens <= 0:
        return None
    if state is None or state.configured != settings.profile:
        state = CalibrationState(settings.profile)
    state, samples = _sampled(state, obs)
    sizes = [(s.input_tokens / s.completions, s.output_tokens / s.completions) for s in samples]
    state = replace(state, sizes=(*state.sizes, *sizes)[-RECENT:])
    rows = [row for sample in samples for row in _rows(state, sample, settings)]
    return _used(_learned(state, rows), settings) if rows else state


def _sampled(state: CalibrationState, obs: Observation) -> tuple[CalibrationState, list[StepCounts]]:
    """Return the state with the replicas to follow next, and the samples that are complete."""
    followed, samples = dict[str, tuple[float, StepCounts]](), list[StepCounts]()
    for name, (since, before) in state.followed.items():
        now, late = obs.steps.get(name, before), not obs.t - since < LONGEST_S  # missing is not zero
        finished = now.completions - before.completions
        if finished >= (1.0 if late else REQUESTS):
            new = StepCounts(*(b - a for a, b in zip(before, now, strict=True)))
            samples += [new] if all(0.0 <= v <= _LARGEST for v in new) else []
        elif finished >= 0.0 and not late and name in obs.replicas:  # else restarted, idle, or gone
            followed[name] = (since, before)
    cursor, free = state.cursor if state.cursor < len(obs.replicas) else 0, FOLLOWED - len(followed)
    for name in islice(obs.replicas, cursor, cursor + free):
        counts = obs.steps.get(name)
        if counts and name not in followed and all(0.0 <= v <= _LARGEST for v in counts):
            followed[name] = (obs.t, counts)
    return replace(state, followed=followed, cursor=cursor + free), samples


def _parts(profile: BatchProfile, n: float, i: float, o: float) -> tuple[Vector, Vector]:
    """Return the seconds of a prefill and of a step after it that are due to alpha, beta and gamma."""
    computed, read = (n - 1.0) * (i + o) / (o + 1.0), (n - 1.0) * (i + o / 2.0)
    a, b, c = profile.alpha, profile.beta, profile.gamma
    return (a, b * (computed + i), c * (read + i)), (a, b * (computed + 1.0), c * (read + i + o / 2.0))


def _rows(state: CalibrationState, new: StepCounts, settings: Settings) -> list[Row]:
    """Return (a, t) of the mean prefill and of the mean time between two tokens, as far as they were timed."""
    i, o = (median(sizes) for sizes in zip(*state.sizes, strict=True))  # of more requests: some in the batch still run
    rows = list[Row]()
    for k, (count, seconds, batch) in enumerate((new[3:6], new[6:9])):  # prefill, decode
        if count > 0.0 and 0.99 <= batch / count <= 1.01 * settings.slots:  # but for rounding, 1 ... slots
            a, b, c = _parts(state.configured, max(batch / count, 1.0), i, o)[k]
            predicted = a + b + c
            if 0.0 < predicted < math.inf and 1.0 / _FURTHEST < seconds / count / predicted < _FURTHEST:
                rows.append((a / predicted, b / predicted, c / predicted, seconds / count / predicted))
    return rows


def _learned(state: CalibrationState, rows: list[Row]) -> CalibrationState:
    """Return the state with rows added, save outliers, and adapted to a change of the machine."""
    z = np.array((*state.recent, *rows))
    predicted = z[:, :3] @ state.ratio
    z_weighted = z / predicted[:, None]  # the noise is relative: so each row has the same
    off, a = np.log(z_weighted[:, 3]), z_weighted[:, :3]
    score = off / np.sqrt(min(state.noise, PRIOR_SD) ** 2 + ((a @ state.covariance) * a).sum(axis=1))
    new = z_weighted[-len(rows) :][abs(score[-len(rows) :]) <= OUTLIER]
    recent, off, score = _tuples(z[-RECENT:]), off[-RECENT:], score[-RECENT:]
    moments, changed_at = np.array(state.moments), state.changed_at
    beyond = score * math.copysign(1.0, np.sort(score)[len(score) // 2]) > OUTLIER
    if len(score) == RECENT and 2 * beyond.sum() > RECENT:
        # most changes are of the speed: the proportions learned before are kept until the new rows outweigh them
        slower = math.exp(np.median(off[beyond]))
        scale = np.array((1.0 / slower, 1.0 / slower, 1.0 / slower, 1.0))
        moments *= np.outer(scale, scale) * (RECENT / max(moments[3, 3], RECENT))
        new, recent = z_weighted[-RECENT:][beyond] / slower, ()
        changed_at = state.samples if state.samples >= ENOUGH else None  # else the configured profile is off
    moments = moments * (1.0 - 1.0 / MEMORY) ** len(new) + new.T @ new
    state = replace(state, recent=recent, changed_at=changed_at, samples=state.samples + len(new))
    return _fitted(state, moments) if len(new) else state


def _fitted(state: CalibrationState, moments: Floats) -> CalibrationState:
    """Return the state with the least-squares fit of the moments, each ratio at least a hundredth of their mean."""
    m, v, weight = moments[:3, :3], moments[:3, 3], float(moments[3, 3])  # weighted, t is about 1
    speed = float(v.sum() / m.sum())  # the ratio if all three were one
    least, ridge = 0.01 * speed, (state.noise / PRIOR_SD / speed) ** 2
    m = m + ridge * np.eye(3)
    ratio = least + nnls(m, v + ridge * speed - least * m.sum(axis=1))[0]
    u = np.array((*-ratio, 1.0))
    variance = (max(float(u @ moments @ u), 0.0) + RECENT * NOISE**2) / (weight + RECENT)
    covariance = _tuples(variance * np.linalg.inv(m))
    a, b, c = ratio.tolist()
    return replace(state, moments=_tuples(moments), ratio=(a, b, c), covariance=covariance, noise=math.sqrt(variance))


def _tuples(rows: NDArray[Any]) -> Any:
    return tuple(map(tuple, rows.tolist()))


def _used(state: CalibrationState, settings: Settings) -> CalibrationState:
    """Return the state with the profile to use: the estimate once it is good and when it has changed by `STILL`."""
    i, o = settings.input_tokens, settings.output_tokens
    prefill, decode = _parts(state.configured, settings.slots, i, o)
    parts = np.array(prefill) + o * np.array(decode)
    std = math.sqrt(parts @ np.array(state.covariance) @ parts) / float(parts @ state.ratio)
    used, now = state.used, state.profile
    if state.samples >= ENOUGH and std <= MAX_RELATIVE_STD:
        pairs = zip(_times(used or now, settings), _times(now, settings), strict=True)
        used = now if used is None or any(abs(a / b - 1.0) > STILL for a, b in pairs) else used
    return replace(state, relative_std=std, used=used)


def _times(profile: BatchProfile, settings: Settings) -> tuple[float, float]:
    """Return the service times alone and in a full batch, seconds."""
    i, o = settings.input_tokens, settings.output_tokens
    return profile.service_time(1.0, i, o), profile.service_time(settings.slots, i, o)


def apply_calibration(settings: Settings, state: CalibrationState | None) -> Settings:
    """Return the settings with the profile in use, and the prior of the service time in proportion."""
    if state is None or state.used is None:
        return settings
    ratio = _times(state.used, settings)[1] / _times(state.configured, settings)[1]
    return replace(settings, profile=state.used, service_s=settings.service_s * ratio)


def report(state: CalibrationState | None, settings: Settings) -> Calibrated | None:
    """Return the figures for `Decision.calibration`; None before the first sample."""
    if state is None or not state.samples:
        return None
    profile = state.profile
    return Calibrated(
        alpha=profile.alpha,
        beta=profile.beta,
        gamma=profile.gamma,
        samples=state.samples,
        error=state.noise,
        relative_std=state.relative_std,
        drift=state.changed_at is not None and state.samples - state.changed_at < MEMORY,
        used=state.used is not None,
        profile_error=_times(state.configured, settings)[1] / _times(profile, settings)[1] - 1.0,
    )
