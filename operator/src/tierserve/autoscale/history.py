"""From counters and gauges of replicas and gateway to one history of a pool: arrivals, requests in the system, service
times.

Counters may restart, replicas come and go, samples may be late, missing or not a number. Each pair of samples gives a
difference; the differences are summed into cumulative marks, so that any window is one subtraction.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from tierserve.autoscale.replica_metrics import (
    COUNTERS,
    GAUGES,
    NONE,
    STARTED_AND_DONE,
    STARTUP,
    TIME,
    Bools,
    Floats,
    ReplicaMetrics,
    reindexed,
)
from tierserve.autoscale.types import GatewaySample, Observation, Settings

KEEP_S = 330.0
_FORGET_REPLICA_S = 600.0
_LARGEST = 1e12  # no counter of requests or seconds is larger
_HIDDEN_WINDOW_S, _HIDDEN_RATE_WINDOW_S = 3.0, 10.0


class Mark(NamedTuple):
    """Cumulative figures of the pool at time `t`: each a sum since the history began."""

    t: float
    arrivals: float = 0.0
    in_system_s: float = 0.0  # integral of the number in the system, request-seconds
    in_system_sq_s: float = 0.0  # integral of its square
    completions: float = 0.0
    service_s: float = 0.0
    service_sq_s2: float = 0.0
    gateway_wait_s: float = 0.0
    in_service_s: float = 0.0  # integral of the requests in slots
    batch_s: float = 0.0  # integral of the same times the batch that each of them is in


class Span(NamedTuple):
    """Figures of the time between two marks."""

    seconds: float
    arrivals: float
    in_system: float  # time mean
    in_system_variance: float
    completions: float
    service_s: float
    service_sq_s2: float
    batch: float  # mean batch that a request in service was in, at least 1


@dataclass(frozen=True, slots=True)
class History:
    """What was seen so far. `exact`: the number in the system is one consistent count, made by the gateway."""

    marks: tuple[Mark, ...] = ()
    replicas: ReplicaMetrics = field(
        default_factory=lambda: NONE
    )  # the last believed of each replica, `EMPTY` if none was
    left: Mapping[str, Floats] = field(default_factory=dict)  # those of replicas that are observed no more
    gateway: GatewaySample | None = None
    began: float = 0.0
    in_system: float = 0.0
    in_system_before: float = 0.0
    reporting: int = 1
    exact: bool = False
    source: str = ""
    resumed: float = 0.0  # end of the last gap in the data

    @property
    def now(self) -> float:
        """Time of the last mark, Unix seconds."""
        return self.marks[-1].t

    def mark_at(self, t: float) -> Mark:
        """Return the last mark at or before `t` (the first one if there is none)."""
        return self.marks[max(bisect_right(self.marks, (t, math.inf)) - 1, 0)]

    def since(self, t: float, until: float | None = None) -> Span:
        """Return the figures between the marks at `t` and `until` (default: now)."""
        return span(self.mark_at(t), self.marks[-1] if until is None else self.mark_at(until))


def span(a: Mark, b: Mark) -> Span:
    """Return the figures between two marks."""
    seconds = b.t - a.t
    mean = (b.in_system_s - a.in_system_s) / seconds if seconds > 0 else 0.0
    square = (b.in_system_sq_s - a.in_system_sq_s) / seconds if seconds > 0 else 0.0
    return Span(
        seconds,
        b.arrivals - a.arrivals,
        mean,
        max(square - mean * mean, 0.0),
        b.completions - a.completions,
        b.service_s - a.service_s,
        b.service_sq_s2 - a.service_sq_s2,
        max((b.batch_s - a.batch_s) / max(b.in_service_s - a.in_service_s, 1e-9), 1.0),
    )


def _sound(*values: float) -> bool:
    return all(isinstance(v, int | float) and 0 <= v <= _LARGEST for v in values)


def _fresh(t: float, now: float, settings: Settings) -> bool:
    return now - t <= settings.stale_after_s


class _Sums(NamedTuple):
    arrivals: float = 0.0
    completions: float = 0.0
    service_s: float = 0.0
    service_sq_s2: float = 0.0
    gateway_wait_s: float = 0.0


def _late_share(gap_s: float, tick_s: float, settings: Settings) -> float:
    """Return the share of a difference over a long gap that belongs to this tick; the rest was estimated meanwhile."""
    return min(1.0, tick_s / gap_s) if gap_s > settings.stale_after_s else 1.0


class _Replicas(NamedTuple):
    """What is known of the replicas that are seen, column by column: before, and now, alike where none is believed."""

    before: Floats
    now: ReplicaMetrics
    left: Mapping[str, Floats]
    believed: Bools
    reporting: int

    @property
    def missing(self) -> float:
        """The factor from those that report to all."""
        return len(self.now) / self.reporting if self.reporting else 1.0

    def in_system(self) -> float:
        """Return the requests in those that report."""
        return float(np.add.reduce(self.now.columns[GAUGES], axis=0)[self.believed].sum())


def _replicas(h: History, seen: ReplicaMetrics, now: float, settings: Settings) -> _Replicas:
    """Return the replicas, of which those are believed whose figures are finite, not negative and fresh."""
    reported = seen.columns[:STARTUP]
    lowest, largest = np.minimum.reduce(reported, axis=0), np.maximum.reduce(reported, axis=0)  # NaN if one is
    believed = (lowest >= 0.0) & (largest <= _LARGEST) & (now - reported[TIME] <= settings.stale_after_s)
    reporting = int(np.count_nonzero(believed))
    before, left = h.replicas.columns, h.left
    if not seen.replica_index.same(h.replicas.replica_index):
        before, left = reindexed(h.replicas, h.left, seen.replica_index)
        left = {name: figures for name, figures in left.items() if now - figures[TIME] < _FORGET_REPLICA_S}
    if reporting < len(seen):
        seen = ReplicaMetrics.from_columns(seen.replica_index, np.where(believed, seen.columns, before))
    return _Replicas(before, seen, left, believed, reporting)


def _replica_sums(h: History, replicas: _Replicas, now: float, settings: Settings) -> _Sums:
    """Return what happened since the samples before; a counter that fell began again at 0."""
    before, after = replicas.before, replicas.now.columns
    known = h.now - before[TIME] < _FORGET_REPLICA_S
    goes_on = known & (after[STARTED_AND_DONE] >= before[STARTED_AND_DONE]).all(axis=0) | ~replicas.believed
    start = before[COUNTERS] if goes_on.all() else np.where(goes_on, before[COUNTERS], 0.0)
    new = np.maximum(after[COUNTERS] - start, 0.0)
    gap_s = after[TIME] - before[TIME]
    late = known & (gap_s > settings.stale_after_s)
    if late.any():  # as `_late_share`
        new[:, late] *= np.minimum((now - h.now) / gap_s[late], 1.0)
    if now - h.began <= settings.stale_after_s:  # reports come one by one: what they counted before is not ours
        new = new[:, known]
    return _Sums(*np.add.reduce(new, axis=1).tolist())


def _gateway_arrivals(h: History, sample: GatewaySample, now: float, settings: Settings) -> float | None:
    before = h.gateway
    if before is None:
        return None
    if sample.arrivals < before.arrivals:
        return sample.arrivals
    return (sample.arrivals - before.arrivals) * _late_share(sample.t - before.t, now - h.now, settings)


def _hidden(h: History) -> float:
    """Return the requests held before the replicas: Little's law with the waits that replicas saw in their requests.

    The rate is taken over a longer time than the waits, for a queue that is let in at once comes as a spike of both.
    """
    if not h.marks:
        return 0.0
    a, b = h.mark_at(h.now - _HIDDEN_WINDOW_S), h.marks[-1]
    rate = h.since(h.now - _HIDDEN_RATE_WINDOW_S)
    if b.arrivals <= a.arrivals or rate.seconds <= 0:
        return 0.0
    wait_s = (b.gateway_wait_s - a.gateway_wait_s) / (b.arrivals - a.arrivals)
    return wait_s * rate.arrivals / rate.seconds


def extend(h: History, seen: ReplicaMetrics, obs: Observation, settings: Settings, service_s: float) -> History | None:
    """Return the history with one observation more, or None if it holds nothing to be believed.

    Arrivals are those that the gateway offered, else those that the replicas counted, else (Little's law) the requests
    in the system over the service time. The requests in the system are found in the same order. `seen` are the samples
    of the observation.
    """
    replicas = _replicas(h, seen, obs.t, settings)
    reporting = replicas.reporting
    gateway = obs.gateway
    if gateway and not _sound(*(getattr(gateway, name) for name in GatewaySample.__slots__)):
        gateway = None
    if gateway and not _fresh(gateway.t, obs.t, settings):
        gateway = None
    ongoing = obs.ongoing if obs.ongoing is not None and _sound(obs.ongoing) else None
    if len(seen) and not reporting:
        ongoing = None  # replicas that used to report have gone silent: Ray's sum of them is no better
    if gateway is None and not reporting and ongoing is None:
        return None
    queued = obs.queued if obs.queued is not None and _sound(obs.queued) else 0.0
    if gateway:
        in_system = gateway.queued + gateway.in_flight
    elif reporting:
        in_system = replicas.in_system() * replicas.missing + queued + _hidden(h)
    else:
        in_system = ongoing or 0.0
    source = "gateway" if gateway else "replicas" if reporting else "in system"
    base = replace(
        h,
        replicas=replicas.now,
        left=replicas.left,
        gateway=gateway or h.gateway,
        in_system=in_system,
        in_system_before=h.in_system,
        reporting=max(reporting, 1),
        exact=gateway is not None,
        source=source,
    )
    if not h.marks:
        return replace(base, marks=(Mark(obs.t),), began=obs.t)
    dt = obs.t - h.now
    if dt <= 0:
        return h
    if dt > settings.stale_after_s:
        base = replace(base, resumed=obs.t)
    sums = _replica_sums(h, replicas, obs.t, settings)
    arrivals = _gateway_arrivals(h, gateway, obs.t, settings) if gateway else None
    if arrivals is None:
        arrivals = sums.arrivals * replicas.missing if reporting else in_system * dt / service_s
    last = h.marks[-1]
    in_service = min(in_system, float(obs.running * settings.slots))
    mark = Mark(
        obs.t,
        last.arrivals + arrivals,
        last.in_system_s + in_system * dt,
        last.in_system_sq_s + in_system * in_system * dt,
        last.completions + sums.completions,
        last.service_s + sums.service_s,
        last.service_sq_s2 + sums.service_sq_s2,
        last.gateway_wait_s + sums.gateway_wait_s,
        last.in_service_s + in_service * dt,
        last.batch_s + in_service * in_service / max(obs.running, 1) * dt,
    )
    first = bisect_right(h.marks, (obs.t - KEEP_S, math.inf))
    return replace(base, marks=(*h.marks[max(first - 1, 0) :], mark))
