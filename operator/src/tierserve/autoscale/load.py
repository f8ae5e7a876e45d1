"""Estimates of the load: service time and peakedness, which move only as far as their confidence intervals require.

The time since the last change of the load is a regime. It ends when a window of any length is implausible (4.5 standard
errors) under the rest of it. Peakedness is measured within a regime; it distinguishes a constant number of
connections, each with one request at a time, from a stream of arrivals.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy.special import chdtri

from tierserve.autoscale.history import History, Mark, span
from tierserve.autoscale.types import Observation, Settings

IMPLAUSIBLE = 4.5  # standard errors
_MODEL_ERROR = 0.02  # relative error of a rate below which no change is detected
_Z_MIN, _Z_MAX = 0.05, 25.0  # peakedness: near 0 in a closed loop; above 25 the estimate is noise
_Z_QUANTILE = 1e-3  # of its confidence interval, each side
_LONGEST_S = 1e8  # larger mean service times (3 years) are invalid data
_WIDEST_CV = 1e3  # bounds the spread, so that figures stay finite
_CLOSED = 0.2  # peakedness below which the load is a closed loop (constant number of connections)
_SERVICE_WINDOW_S = 120.0  # finished requests that the service time is estimated from
_SERVICE_ERRORS, _SERVICE_TOLERANCE, _SPREAD_TOLERANCE = 4.0, 0.02, 0.15
_UNKNOWN_CV, _WELL_KNOWN = 0.3, 100  # coefficient of variation assumed until so many requests have finished


@dataclass(frozen=True, slots=True)
class Load:
    """Load estimates for sizing; times in seconds, rates per second.

    Attributes:
        began: start of the regime.
        service_s, service_sd_s: mean and deviation of the service time at a full batch.
        peakedness: z of the requests in the system (Poisson 1, constant number of connections near 0).
    """

    began: float
    service_s: float
    service_sd_s: float = 0.0
    peakedness: float = 1.0

    @property
    def closed(self) -> bool:
        """Whether the load is a closed loop: a constant number of connections, each with one request at a time."""
        return self.peakedness < _CLOSED


def _root_step(count: float, expected: float, dispersion: float) -> float:
    """Return the deviation of a count from its expectation in standard errors (Anscombe's square root)."""
    return 2.0 * (math.sqrt(count + 0.375) - math.sqrt(expected)) / math.sqrt(dispersion)


def _arrival_change(h: History, load: Load, settings: Settings) -> float | None:
    """Return the time since which arrivals are implausible under the regime before, or None."""
    now, start = h.now, h.mark_at(load.began)
    z = max(load.peakedness, 0.5)
    # Replicas are sampled one by one, so arrivals may be counted in a neighbouring window.
    slip = 0.0 if h.exact else 2.0 * settings.sampling_jitter_s**2 / h.reporting
    window = max(1.0, load.service_s)
    while 1.5 * window < now - start.t:
        cut = h.mark_at(now - window)
        before, recent = span(start, cut), span(cut, h.marks[-1])
        window *= 2.0
        if before.seconds <= 0 or recent.seconds <= 0:
            continue
        ratio = recent.seconds / before.seconds
        expected = ratio * (before.arrivals + 0.375)
        dispersion = z * (1.0 + ratio) + _MODEL_ERROR**2 * expected + slip * expected / recent.seconds**2
        if abs(_root_step(recent.arrivals, expected, dispersion)) > IMPLAUSIBLE:
            return cut.t
    return None


def _level_change(h: History, load: Load, capacity: float) -> float | None:
    """Return the time since which the number in service is implausibly high under the regime before, or None.

    Only requests in service count: queues fluctuate widely at a constant load and are handled by `demand`. A fall is
    detected from the arrivals: without fewer arrivals it only means that a queue was drained.
    """
    recent_s = 0.0 if h.exact else 1.5
    cut = h.mark_at(h.now - recent_s) if recent_s else h.marks[-2]
    before = span(h.mark_at(load.began), cut)
    if before.seconds < max(2.0, load.service_s):
        return None
    level = h.in_system if h.exact else span(cut, h.marks[-1]).in_system
    step = _root_step(min(level, capacity), min(before.in_system, capacity) + 0.375, max(load.peakedness, 0.1))
    return cut.t if step > IMPLAUSIBLE else None


def change_point(h: History, load: Load, capacity: float, settings: Settings) -> float | None:
    """Return the time of a change of the load (Unix seconds), or None without one."""
    if len(h.marks) < 3:
        return None
    at = _level_change(h, load, capacity)
    return at if at is not None else _arrival_change(h, load, settings)


def _full_batch(batch: float, settings: Settings) -> float:
    """Return the factor from the service time in this batch to that in a full one; 1 without a profile."""
    profile, i, o = settings.profile, settings.input_tokens, settings.output_tokens
    if profile is None or o <= 0:
        return 1.0
    batch = min(max(batch, 1.0), float(settings.slots))
    return profile.service_time(settings.slots, i, o) / profile.service_time(batch, i, o)


def batch_factor(h: History, since: float, settings: Settings) -> float:
    """Return the service time in the batches seen since a time, as a share of that in a full batch."""
    return 1.0 / _full_batch(h.since(since).batch, settings)


def _with_service(h: History, load: Load, settings: Settings) -> Load:
    """Move the service time to that of finished requests if the current estimate is implausible.

    (The first to finish are the short ones, so those of the first three service times are left out.)
    """
    start = max(h.began + 3.0 * load.service_s, h.now - _SERVICE_WINDOW_S)
    seen = h.since(start) if start < h.now else None
    if seen is None or seen.completions < settings.prior_completions or seen.service_s <= 0:
        return load
    scale = _full_batch(seen.batch, settings)
    n, mean = seen.completions, scale * seen.service_s / seen.completions
    variance = scale * scale * seen.service_sq_s2 / n - mean * mean
    if not (mean < _LONGEST_S and math.isfinite(variance)):  # invalid data, which would make all later figures infinite
        return load
    sd = math.sqrt(min(max(variance, 0.0), (_WIDEST_CV * mean) ** 2))
    error = _SERVICE_ERRORS / math.sqrt(n)
    known_sd = max(sd, _UNKNOWN_CV * mean) if n < _WELL_KNOWN else sd
    if abs(mean - load.service_s) > error * known_sd + _SERVICE_TOLERANCE * mean:
        return replace(load, service_s=mean, service_sd_s=sd)
    if n >= _WELL_KNOWN and abs(sd - load.service_sd_s) > (error + _SPREAD_TOLERANCE) * sd + _SERVICE_TOLERANCE * mean:
        return replace(load, service_sd_s=sd)
    return load


def _interval(ratio: float, freedom: float) -> tuple[float, float]:
    """Return the confidence interval of a variance-to-mean ratio with so many degrees of freedom."""
    low = max(ratio, 0.02) * freedom / chdtri(freedom, _Z_QUANTILE)
    return float(low), float(max(ratio, 0.02) * freedom / chdtri(freedom, 1.0 - _Z_QUANTILE))


def _count_dispersion(h: History, first: Mark, window: float) -> tuple[float, int]:
    """Return the index of dispersion of arrival counts in windows of this length since a mark, and its degrees of
    freedom.

    It is that around a line: a load that climbs is not a bursty one.
    """
    n = min(int((h.now - first.t) / window), 40)
    cuts = [h.mark_at(h.now - k * window) for k in range(n, -1, -1)]
    counts = [(b.arrivals - a.arrivals) * window / max(b.t - a.t, 1e-9) for a, b in itertools.pairwise(cuts)]
    mean = sum(counts) / n if n else 0.0
    if n < 3 or mean <= 0:
        return 1.0, 0
    return _around_line(counts) / (n - 2) / mean, n - 2


def _around_line(y: Sequence[float]) -> float:
    """Return the sum of squares around the line through at least two values."""
    n, mean, centre = len(y), sum(y) / len(y), (len(y) - 1) / 2.0
    slope = sum((j - centre) * v for j, v in enumerate(y)) * 12.0 / (n * (n * n - 1))
    return sum((v - mean - slope * (j - centre)) ** 2 for j, v in enumerate(y))


def _with_peakedness(h: History, load: Load) -> Load:
    """Move z as far as two views demand: arrival counts may raise it, a steady number in the system lowers it.

    (A queue makes the number in the system vary more than its arrivals do, so that view only counts where it is
    steady.)
    """
    start = max(load.began + max(1.0, load.service_s), h.resumed)
    if h.now - start < 5.0 * load.service_s or h.source == "in system":
        low, high = 0.0, math.inf
    else:
        window = load.service_s if h.exact else max(2.0 * load.service_s, 4.0)
        ratio, n = _count_dispersion(h, h.mark_at(start), max(window, 1.0))
        low, high = _interval(ratio, n) if n >= 8 else (0.0, math.inf)
    seen = h.since(start)
    freedom = seen.seconds / load.service_s
    if freedom >= 5.0 and seen.in_system > 0.5:
        steady = _interval(seen.in_system_variance / seen.in_system, freedom)[1]
        if steady < 1.0:
            high, low = min(high, steady), min(low, steady)
    z = min(max(load.peakedness, low), high)
    return replace(load, peakedness=min(max(z, _Z_MIN), _Z_MAX))


def estimate(h: History, load: Load, obs: Observation, settings: Settings) -> Load:
    """Return the estimates after the last observation of the history."""
    capacity = float(max(obs.running, 1) * settings.slots)
    at = change_point(h, load, capacity, settings)
    if at is not None:
        load = replace(load, began=at)
    load = _with_service(h, load, settings)
    return _with_peakedness(h, load)
