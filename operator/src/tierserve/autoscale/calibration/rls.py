"""Online calibration: the step-time coefficients of a replica, learned from what it is seen to do.

A measured profile may be of another machine, and the roofline is only a guess. Both times of `BatchProfile` are linear
in (alpha, beta, gamma), so each mean time seen is one row of a regression with three unknowns:

    time between tokens   x = (1, (n - 1) (i + o) / (o + 1) + 1, n (i + o / 2))
    prefill               x = (1, (n - 1) (i + o) / (o + 1) + i, (n - 1) (i + o / 2) + i)

The regression is recursive least squares with a forgetting factor (Ljung, System Identification, ch. 11), written as a
Kalman filter whose unknowns are the ratios of the coefficients to the prior and whose errors are relative to what was
predicted, so one noise level serves short and long steps. What is added to the textbook form:

* a gate: a time further from its prediction than `GATE` standard deviations is rejected. The noise is estimated
  from absolute, clipped innovations, so that outliers widen it little (Huber, Robust Statistics, ch. 4).
* drift: rejections that persist on one side are no outliers but a machine that changed (throttled, say). The
  covariance is then opened again, mostly along the line on which all three coefficients change by one factor.
* no wind-up: forgetting never lifts a variance over that of the prior, however long nothing new is seen.
* bounds: a ratio stays within `SPAN` of the prior; at a bound the other ratios move according to their covariance.

Unknowns are three, so tuples of floats are used: numpy took twice as long, for the arithmetic alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from tierserve.autoscale.calibration.matrix import (
    SPAN,
    Matrix,
    Vector,
    forgotten,
    into_bounds,
    minus_square,
    opened,
    quadratic,
)
from tierserve.queueing._validation import above_zero
from tierserve.queueing.batching.profile import BatchProfile

GATE = 4.0
"""Standard deviations from which a time is held for an outlier."""
FORGETTING = 0.995
"""Weight that a sample keeps with each one that follows."""
DRIFT_RUN = 5.0
"""Rejections in one direction, less acceptances, from which they are a drift: 5% of outliers get there once in 1e6."""
DRIFT_SHOWN = 100
"""Sound samples for which a drift is shown after it was found."""
_NOISE, _LEAST_NOISE, _MOST_NOISE = 0.1, 0.005, 1.0  # relative standard deviation: at first, and its bounds
_NOISE_GAIN, _ERROR_GAIN, _CLIP = 0.02, 0.05, 3.0
_ABS_TO_SD = 1.2533  # of a normal distribution: standard deviation over mean absolute deviation
_FURTHEST = SPAN * SPAN  # no innovation larger than this can be reached within the bounds
_MOST_BATCH, _MOST_TOKENS, _MOST_SECONDS = 1e6, 1e9, 1e6
_LEAST_PRIOR, _MOST_PRIOR = 1e-15, 1e4


class StepSample(NamedTuple):
    """Mean figures of one replica over some time.

    Attributes:
        batch: mean number of requests in the batch, as those in it see it, themselves among them: at least 1.
        input_tokens, output_tokens: means of these requests.
        ttft_s: mean seconds of prefill without queueing, None if none was seen.
        itl_s: mean seconds between two tokens of a request, None if none was seen.
    """

    batch: float
    input_tokens: float
    output_tokens: float
    ttft_s: float | None = None
    itl_s: float | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """What is known of the coefficients.

    Attributes:
        base: the prior's alpha, beta, gamma in seconds; one that is 0 stays 0.
        ratio: the estimates over the prior, each within 1 / SPAN ... SPAN.
        covariance: of the ratios.
        prior_sd: relative standard deviation of the prior; also the most that forgetting leads back to.
        forgetting: weight that a sample keeps with each one that follows.
        noise: relative standard deviation of one time around the model.
        error: smoothed relative error of the predictions, |seen / predicted - 1|, outliers clipped at the gate.
        accepted, rejected, ignored: times learned from, times held for outliers, samples or times that are no sound
            figures.
        drift_scores: of prefill and of the time between tokens: rejections in a row, less acceptances; the sign shows
            whether the machine is slower (+) or faster (-) than estimated.
        drifts: how often a drift was found.
        since_drift: sound samples since the last one.
    """

    base: Vector
    ratio: Vector
    covariance: Matrix
    prior_sd: float
    forgetting: float = FORGETTING
    noise: float = _NOISE
    error: float = 0.0
    accepted: int = 0
    rejected: int = 0
    ignored: int = 0
    drift_scores: tuple[float, float] = (0.0, 0.0)
    drifts: int = 0
    since_drift: int = 0

    @property
    def profile(self) -> BatchProfile:
        """The profile as estimated now."""
        a, b, c = (base * ratio for base, ratio in zip(self.base, self.ratio, strict=True))
        return BatchProfile(a, b, c)

    @property
    def drift(self) -> bool:
        """Whether the machine changed lately, within the last `DRIFT_SHOWN` sound samples."""
        return self.drifts > 0 and self.since_drift < DRIFT_SHOWN

    @property
    def drift_score(self) -> float:
        """The larger of the two scores by size; a drift is found when it reaches +/- `DRIFT_RUN`."""
        return max(self.drift_scores, key=abs)


def prior(profile: BatchProfile, sd: float = 0.5, forgetting: float = FORGETTING) -> Calibration:
    """Return what is known before anything is seen: `profile`, each coefficient off by a share of about `sd`."""
    above_zero("sd", sd, "give the relative standard deviation of the prior, for instance 0.5")
    if not 0.9 <= forgetting <= 1.0:
        raise ValueError(f"forgetting must be within 0.9 ... 1, got {forgetting!r}: below 0.9 three samples are all")
    base = (profile.alpha, profile.beta, profile.gamma)
    for name, value in zip(("alpha", "beta", "gamma"), base, strict=True):
        if value and not _LEAST_PRIOR <= value <= _MOST_PRIOR:
            raise ValueError(f"{name} must be 0 or within {_LEAST_PRIOR:g} ... {_MOST_PRIOR:g} s, got {value!r}")
    a, b, c = (sd * sd if value else 0.0 for value in base)
    covariance = ((a, 0.0, 0.0), (0.0, b, 0.0), (0.0, 0.0, c))
    return Calibration(base, (1.0, 1.0, 1.0), covariance, sd, forgetting, error=sd)


def calibrate(state: Calibration, sample: StepSample) -> Calibration:
    """Return the state with one sample more; figures that cannot be are counted and change nothing."""
    n, i, o = sample.batch, sample.input_tokens, sample.output_tokens
    if not (_within(n, 1.0, _MOST_BATCH) and _within(i, 0.0, _MOST_TOKENS) and _within(o, 0.0, _MOST_TOKENS)):
        return replace(state, ignored=state.ignored + 1)
    computed, read = (n - 1.0) * (i + o) / (o + 1.0), (n - 1.0) * (i + o / 2.0)
    rows = (
        (0, sample.ttft_s, (1.0, computed + i, read + i)),
        (1, sample.itl_s, (1.0, computed + 1.0, read + i + o / 2.0)),
    )
    sound = [(k, y, x) for k, y, x in rows if y is not None and _within(y, 0.0, _MOST_SECONDS) and y > 0.0]
    ignored = sum(y is not None for _, y, _ in rows) - len(sound)
    if not sound:
        return replace(state, ignored=state.ignored + max(ignored, 1))
    work = _Work(state, ignored)
    for channel, seen, x in sound:
        work.learn(channel, seen, x)
    return work.result()


class _Work:
    """One update in the making: what changes of a `Calibration`, as plain variables."""

    def __init__(self, state: Calibration, ignored: int) -> None:
        self.state = state
        self.ignored = state.ignored + ignored
        self.ratio, self.covariance = state.ratio, state.covariance
        self.noise, self.error = state.noise, state.error
        self.scores = list(state.drift_scores)
        self.accepted, self.rejected, self.drifts = state.accepted, state.rejected, state.drifts
        self.since_drift = state.since_drift + 1

    def learn(self, channel: int, seen: float, x: Vector) -> None:
        """Take in one time of one kind: gate it, then learn from it or count it towards a drift."""
        base, t = self.state.base, self.ratio
        parts = (x[0] * base[0], x[1] * base[1], x[2] * base[2])
        predicted = parts[0] * t[0] + parts[1] * t[1] + parts[2] * t[2]
        if not 0.0 < predicted < math.inf:  # all that this time depends on costs nothing
            self.ignored += 1
            return
        row = (parts[0] / predicted, parts[1] / predicted, parts[2] / predicted)
        off = min(seen / predicted - 1.0, _FURTHEST)
        sd = math.sqrt(quadratic(self.covariance, row) + self.noise * self.noise)
        if abs(off) <= GATE * sd:
            self._accept(channel, row, off, sd)
        else:
            self._reject(channel, off)
        self._assess(off, sd)

    def _accept(self, channel: int, row: Vector, off: float, sd: float) -> None:
        self.accepted += 1
        score = self.scores[channel]
        self.scores[channel] = math.copysign(max(abs(score) - 1.0, 0.0), score)
        p0, p1, p2 = self.covariance
        d = tuple(p[0] * row[0] + p[1] * row[1] + p[2] * row[2] for p in (p0, p1, p2))
        variance, t = sd * sd, self.ratio
        self.covariance = minus_square(self.covariance, (d[0], d[1], d[2]), variance)
        pull = off / variance
        self.ratio = (t[0] + d[0] * pull, t[1] + d[1] * pull, t[2] + d[2] * pull)
        if not all(1.0 / SPAN <= v <= SPAN for v in self.ratio):
            self.ratio = into_bounds(self.ratio, self.covariance)

    def _reject(self, channel: int, off: float) -> None:
        self.rejected += 1
        score = self.scores[channel]
        self.scores[channel] = score + math.copysign(1.0, off) if score * off >= 0.0 else math.copysign(1.0, off)
        if abs(self.scores[channel]) < DRIFT_RUN:
            return
        self.scores = [0.0, 0.0]
        self.drifts, self.since_drift = self.drifts + 1, 0
        self.covariance = opened(self.covariance, self.ratio, self.state.base, max(abs(off), self.state.prior_sd))

    def _assess(self, off: float, sd: float) -> None:
        size = min(abs(off), GATE * sd)
        self.error += _ERROR_GAIN * (size - self.error)
        # sd holds the doubt of the coefficients too: their part is taken off by the ratio, not by a difference
        grown = self.noise * (1.0 + _NOISE_GAIN * (_ABS_TO_SD * min(size / sd, _CLIP) - 1.0))
        self.noise = min(max(grown, _LEAST_NOISE), _MOST_NOISE)

    def result(self) -> Calibration:
        """Return the new state, with the old samples weighing a little less."""
        s = self.state
        kept = self.covariance
        if self.accepted > s.accepted and s.forgetting < 1.0:
            kept = forgotten(kept, self.ratio, s.prior_sd, s.forgetting)
        return Calibration(
            s.base,
            self.ratio,
            kept,
            s.prior_sd,
            s.forgetting,
            self.noise,
            self.error,
            self.accepted,
            self.rejected,
            self.ignored,
            (self.scores[0], self.scores[1]),
            self.drifts,
            self.since_drift,
        )


def _within(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
