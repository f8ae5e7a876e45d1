"""The batching profile of a pool as its replicas show it: from their step counters to the settings of a decision.

A replica tells sums over its finished requests, each from entering the engine to its end (`StepCounts`). The difference
of two of its reports gives means of the requests that finished in between: the prefill, the time between tokens, and
the batches that these requests were in. So there are no idle spans to leave out, and a counter that fell began anew.
`calibration` learns from these means. What it knows takes the place of `Settings.profile` when it is sure of it.

Of thousands of replicas `FOLLOWED` are looked at, each until it has given one sample; then others take their places.
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
"""Replicas that are looked at in a decision."""
_REQUESTS, _LONG_S, _FEW_REQUESTS, _LONGEST_S = 16, 60.0, 4, 300.0
"""Requests of one sample; after a long time a few will do, and after the longest another replica is looked at."""
_LARGEST = 1e15
_MEMORY = 128.0
"""Finished requests over which their tokens are averaged: sixteen tell little of those that were beside them."""
_OTHER_SIZES = 2.0
"""Ratio of the tokens of a sample to the average from which the requests are others now: the average begins anew."""
ENOUGH, GOOD_ERROR, BAD_ERROR, MAX_RELATIVE_STD = 20, 0.1, 0.2, 0.2
"""Times learned from, error and doubt from which the measured profile is used; error from which no longer."""
BETTER = 0.5
"""Share of the given profile's own error that is good enough too: where times waver, none predicts them to 10%."""
_GAIN = 0.05
STILL = 0.02
"""Change of a service time from which the profile in use follows the measured one: the target is to stay still."""


class _Follow(NamedTuple):
    since: float
    counts: StepCounts


class _Sizes(NamedTuple):
    """Mean tokens of the requests that finished lately, and how many of them it was averaged over."""

    requests: float = 0.0
    input_tokens: float = 0.0
    output_tokens: float = 0.0


_UNKNOWN = _Sizes()


@dataclass(frozen=True, slots=True)
class CalibrationState:
    """What is known of the step times of a pool.

    Attributes:
        given: the profile of the settings, which was the prior.
        calibration: what was learned.
        used: the profile that decisions are made with, None while that is the given one.
        given_error: smoothed relative error with which the given profile predicts the times that were learned from.
        sizes: mean tokens of requests.
        followed: the report, and its time, that each replica looked at had its last sample at.
        cursor: how many replicas, in the order of the observation, had their turn.
    """

    configured: BatchProfile
    calibration: Calibration
    used: BatchProfile | None = None
    configured_error: float = 0.0
    sizes: _Sizes = _UNKNOWN
    followed: Mapping[str, _Follow] = field(default_factory=dict)
    cursor: int = 0


def update_calibration(steps: CalibrationState | None, obs: Observation, settings: Settings) -> CalibrationState | None:
    """Return what is known after one observation more; None without a profile in the settings."""
    if settings.profile is None or settings.output_tokens <= 0:
        return None
    if steps is None or steps.configured != settings.profile:
        try:
            steps = CalibrationState(settings.profile, prior(settings.profile))
        except ValueError:  # a profile beyond all measure: no prior to learn from
            return None
    if not obs.steps:
        return steps
    followed, new = _look(steps.followed, obs)
    cursor = _fill(followed, steps.cursor, obs)
    known = replace(steps, followed=followed, cursor=cursor)
    return _learned(known, new, settings) if new else known


def _learned(steps: CalibrationState, new: list[StepCounts], settings: Settings) -> CalibrationState:
    """Learn from each of some differences."""
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
    """Return the relative error with which a profile predicts the one time of a sample that was learned from."""
    n, i, o = seen.batch, seen.input_tokens, seen.output_tokens
    if seen.itl_s is not None:
        return abs(seen.itl_s / profile.decode(n, i, o) - 1.0)
    return abs((seen.ttft_s or 0.0) / profile.prefill(n, i, o) - 1.0)


def _look(before: Mapping[str, _Follow], obs: Observation) -> tuple[dict[str, _Follow], list[StepCounts]]:
    """Return the replicas to go on with, and what was counted of those that have enough for a sample."""
    followed, enough = dict[str, _Follow](), list[StepCounts]()
    for name, follow in before.items():
        age = obs.t - follow.since
        if name not in obs.replicas or not age <= _LONGEST_S:
            continue
        counts = _sound(obs.steps.get(name))
        if counts is None:  # missing is not nothing
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
    """Give free places to the replicas whose turn it is; return the cursor behind them."""
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
    """Return the counters if all are numbers that can be."""
    try:
        return counts if counts is not None and all(0.0 <= v <= _LARGEST for v in counts) else None
    except TypeError:
        return None


def _since(before: StepCounts, now: StepCounts) -> StepCounts | None:
    """Return what was counted in between; None if a counter fell, as after a restart."""
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
    """Return the mean prefill and the mean time between tokens, each with the batch it was seen in."""
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
    """Return the service time alone and in a full batch, of the requests that the settings speak of."""
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
    """Return the profile to decide with: the measured one once it is sure, as it is until that has moved."""
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
    """Return the settings with the profile as measured, and the service time in proportion, once it is trusted."""
    if steps is None or steps.used is None:
        return settings
    ratio = _times(steps.used, settings)[1] / _times(steps.configured, settings)[1]
    return replace(settings, profile=steps.used, service_s=settings.service_s * ratio)


def report(steps: CalibrationState | None, settings: Settings) -> Calibrated | None:
    """Return what a decision says of it; None before anything was learned."""
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
