"""Measured batching profile of a pool: from the step counters of replicas to the settings of a decision.

A replica reports sums over its finished requests, each from entering the engine to its end (`StepCounts`). The
difference of two reports gives means over the requests that finished in between: prefill, inter-token latency, and the
batch sizes of these requests. So idle time is excluded, and a counter that fell was reset. `calibration.rls` estimates
the profile from these means; it replaces `Settings.profile` once its standard error is small enough.

Of thousands of replicas `FOLLOWED` are sampled at a time, each until it has given one sample; then others follow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import NamedTuple

from tierserve.autoscale.calibration.matrix import quadratic
from tierserve.autoscale.calibration.rls import Calibration, StepSample, calibrate, prior
from tierserve.autoscale.types import Calibrated, Observation, Settings, StepCounts
from tierserve.queueing.batching.profile import BatchProfile

FOLLOWED = 8
"""Replicas sampled in a decision: bounds its time, whatever the size of the pool."""
_REQUESTS, _LONG_S, _FEW_REQUESTS, _LONGEST_S = 16, 60.0, 4, 300.0
"""Requests of one sample; fewer after a long time, and another replica after the longest time."""
_LARGEST = 1e15
_MEMORY = 128.0
"""Finished requests over which token counts are averaged: sixteen say little about the requests batched with them."""
_OTHER_SIZES = 2.0
"""Ratio of a sample's tokens to the average from which the workload has changed: the average is reset."""
ENOUGH, GOOD_ERROR, BAD_ERROR, MAX_RELATIVE_STD = 20, 0.1, 0.2, 0.2
"""Samples, error and relative standard deviation for using the measured profile; error for leaving it."""
BETTER = 0.5
"""Share of the configured profile's error that is accepted too: no profile predicts very noisy times to 10%."""
_GAIN = 0.05
STILL = 0.02
"""Relative change of a service time that updates the profile in use: less would move the target without need."""


class _Follow(NamedTuple):
    since: float
    counts: StepCounts


class _Sizes(NamedTuple):
    """Mean tokens of recently finished requests, and the number averaged over."""

    requests: float = 0.0
    input_tokens: float = 0.0
    output_tokens: float = 0.0


_UNKNOWN = _Sizes()


@dataclass(frozen=True, slots=True)
class CalibrationState:
    """Estimate of the step times of a pool.

    Attributes:
        configured: the profile of the settings, which is the prior.
        calibration: the estimator.
        used: the profile that decisions are made with, None for the configured one.
        configured_error: smoothed relative error of the configured profile on the samples.
        sizes: mean tokens of requests.
        followed: for each sampled replica, the report at its last sample and its time.
        cursor: number of replicas, in the order of the observation, sampled so far.
    """

    configured: BatchProfile
    calibration: Calibration
    used: BatchProfile | None = None
    configured_error: float = 0.0
    sizes: _Sizes = _UNKNOWN
    followed: Mapping[str, _Follow] = field(default_factory=dict)
    cursor: int = 0


def update_calibration(steps: CalibrationState | None, obs: Observation, settings: Settings) -> CalibrationState | None:
    """Return the estimate after one more observation; None without a configured profile."""
    if settings.profile is None or settings.output_tokens <= 0:
        return None
    if steps is None or steps.configured != settings.profile:
        try:
            steps = CalibrationState(settings.profile, prior(settings.profile))
        except ValueError:  # profile out of range: no usable prior
            return None
    if not obs.steps:
        return steps
    followed, new = _look(steps.followed, obs)
    cursor = _fill(followed, steps.cursor, obs)
    known = replace(steps, followed=followed, cursor=cursor)
    return _learned(known, new, settings) if new else known


def _learned(steps: CalibrationState, new: list[StepCounts], settings: Settings) -> CalibrationState:
    """Update the estimate with new differences."""
    known, sizes, error = steps.calibration, steps.sizes, steps.configured_error
    for one in new:
        sizes = _averaged(sizes, one)
        for sample in _samples(one, sizes, settings.slots):
            after = calibrate(known, sample)
            if after.accepted > known.accepted:
                error += max(_GAIN, 1.0 / after.accepted) * (_error_of(steps.configured, sample) - error)
            known = after
    learned = replace(steps, calibration=known, configured_error=error, sizes=sizes)
    return replace(learned, used=_to_use(learned, settings))


def _error_of(profile: BatchProfile, seen: StepSample) -> float:
    """Return the relative error of a profile's prediction of a sample."""
    n, i, o = seen.batch, seen.input_tokens, seen.output_tokens
    if seen.itl_s is not None:
        return abs(seen.itl_s / profile.decode(n, i, o) - 1.0)
    return abs((seen.ttft_s or 0.0) / profile.prefill(n, i, o) - 1.0)


def _look(before: Mapping[str, _Follow], obs: Observation) -> tuple[dict[str, _Follow], list[StepCounts]]:
    """Return the replicas to keep sampling, and the counter differences of those with a complete sample."""
    followed, enough = dict[str, _Follow](), list[StepCounts]()
    for name, follow in before.items():
        age = obs.t - follow.since
        if name not in obs.replicas or not age <= _LONGEST_S:
            continue
        counts = _sound(obs.steps.get(name))
        if counts is None:  # missing is not zero
            followed[name] = follow
            continue
        new = _since(follow.counts, counts)
        if new is None:
            followed[name] = _Follow(obs.t, counts)
        elif _is_enough(new.completions, age):
            enough.append(new)
        else:
            followed[name] = follow
    return followed, enough


def _fill(followed: dict[str, _Follow], cursor: int, obs: Observation) -> int:
    """Fill free places with the next replicas; return the new cursor."""
    free = FOLLOWED - len(followed)
    if free <= 0:
        return cursor
    cursor = cursor if cursor < len(obs.replicas) else 0
    for name in islice(obs.replicas, cursor, cursor + free):
        counts = _sound(obs.steps.get(name))
        if counts is not None and name not in followed:
            followed[name] = _Follow(obs.t, counts)
    return cursor + free


def _sound(counts: StepCounts | None) -> StepCounts | None:
    """Return the counters if all are finite, not negative and plausible."""
    try:
        return counts if counts is not None and all(0.0 <= v <= _LARGEST for v in counts) else None
    except TypeError:
        return None


def _since(before: StepCounts, now: StepCounts) -> StepCounts | None:
    """Return the differences of counters; None if one fell, as after a restart."""
    if any(b > n for b, n in zip(before, now, strict=True)):
        return None
    return StepCounts(*(n - b for b, n in zip(before, now, strict=True)))


def _is_enough(completions: float, seconds: float) -> bool:
    return completions >= _REQUESTS or (seconds >= _LONG_S and completions >= _FEW_REQUESTS)


def _averaged(sizes: _Sizes, new: StepCounts) -> _Sizes:
    n = new.completions
    i, o = new.input_tokens / n, new.output_tokens / n
    if sizes.requests and not (_alike(i, sizes.input_tokens) and _alike(o, sizes.output_tokens)):
        sizes = _UNKNOWN
    share = n / min(sizes.requests + n, max(_MEMORY, n))
    return _Sizes(
        sizes.requests + n,
        sizes.input_tokens + share * (i - sizes.input_tokens),
        sizes.output_tokens + share * (o - sizes.output_tokens),
    )


def _alike(a: float, b: float) -> bool:
    return 1.0 / _OTHER_SIZES <= (a + 1.0) / (b + 1.0) <= _OTHER_SIZES


def _samples(new: StepCounts, sizes: _Sizes, slots: int) -> list[StepSample]:
    """Return samples of the mean prefill and the mean inter-token latency, each with its mean batch size."""
    i, o = sizes.input_tokens, sizes.output_tokens
    found = []
    if new.prefills > 0:
        batch = new.prefill_batch / new.prefills
        found.append(StepSample(batch, i, o, ttft_s=new.prefill_seconds / new.prefills))
    if new.decode_steps > 0:
        batch = new.decode_batch / new.decode_steps
        found.append(StepSample(batch, i, o, itl_s=new.decode_seconds / new.decode_steps))
    most = slots * 1.01  # no batch is larger than its slots
    return [one._replace(batch=max(one.batch, 1.0)) for one in found if 0.99 <= one.batch <= most]


def _times(profile: BatchProfile, settings: Settings) -> tuple[float, float]:
    """Return the service times alone and in a full batch, for the tokens of the settings, seconds."""
    i, o = settings.input_tokens, settings.output_tokens
    return profile.service_time(1.0, i, o), profile.service_time(settings.slots, i, o)


def _relative_std(known: Calibration, settings: Settings) -> float:
    """Return the relative standard deviation of the service time in a full batch."""
    i, o, n = settings.input_tokens, settings.output_tokens, float(settings.slots)
    units = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    a, b, c = (base * BatchProfile(*u).service_time(n, i, o) for base, u in zip(known.base, units, strict=True))
    whole = a * known.ratio[0] + b * known.ratio[1] + c * known.ratio[2]
    return math.sqrt(quadratic(known.covariance, (a, b, c))) / whole


def _to_use(steps: CalibrationState, settings: Settings) -> BatchProfile | None:
    """Return the profile in use: the measured one once it is accurate, updated when it has changed by `STILL`."""
    known, used = steps.calibration, steps.used
    if used is None:
        good = known.error <= max(GOOD_ERROR, BETTER * steps.configured_error)
        sure = good and known.accepted >= ENOUGH and _relative_std(known, settings) <= MAX_RELATIVE_STD
        return known.profile if sure else None
    if known.error > max(BAD_ERROR, steps.configured_error):
        return None
    pairs = zip(_times(used, settings), _times(known.profile, settings), strict=True)
    moved = any(abs(before / now - 1.0) > STILL for before, now in pairs)
    return known.profile if moved else used


def apply_calibration(settings: Settings, steps: CalibrationState | None) -> Settings:
    """Return the settings with the measured profile in use, and the prior of the service time in proportion."""
    if steps is None or steps.used is None:
        return settings
    ratio = _times(steps.used, settings)[1] / _times(steps.configured, settings)[1]
    return replace(settings, profile=steps.used, service_s=settings.service_s * ratio)


def report(steps: CalibrationState | None, settings: Settings) -> Calibrated | None:
    """Return the figures for `Decision.calibration`; None before the first sample."""
    if steps is None or not steps.calibration.accepted:
        return None
    known, profile = steps.calibration, steps.calibration.profile
    return Calibrated(
        alpha=profile.alpha,
        beta=profile.beta,
        gamma=profile.gamma,
        samples=known.accepted,
        error=known.error,
        relative_std=_relative_std(known, settings),
        drift=known.drift,
        used=steps.used is not None,
        profile_error=_times(steps.configured, settings)[1] / _times(profile, settings)[1] - 1.0,
    )
