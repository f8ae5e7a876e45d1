"""The arrival rate when a replica that is asked for now will serve, by the window that has predicted it best.

A short mean follows a step at once and takes every clump of requests for one; a long mean does neither; a line through
the recent past sees a ramp, and one in any noise. Which of them is right depends on the load, and what was right so far
is the best that is known: each window forecasts the rate at the end of a start-up time, each forecast is compared with
what then came, and the one with the least mean error is used (follow the leader: Cesa-Bianchi and Lugosi, "Prediction,
Learning, and Games", 2006, ch. 2). Its mean error is the uncertainty that replicas are sized for besides.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import NamedTuple

WINDOWS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Windows, in horizons: a rise shorter than a quarter is over before a replica that it calls for serves."""
KINDS = ("mean", "line", "growth")
FORECASTS = len(KINDS) * len(WINDOWS)
"""Of each window the mean, the line and the growth by a constant share through it."""
_BEYOND_CHANCE = 2.0
"""Standard errors by which the halves of a window must differ for a line or a growth through them."""
_EACH_QUARTER = 0.1
"""Least share of a rise that lies between two quarters of the window: a step lies between one pair or two."""
_MOST_GROWTH = 4.0
"""Largest growth within a start-up time that is forecast."""
_PARTS = 40
"""Counts kept per horizon: ten in the shortest window."""
_HALF_LIFE = 4.0
"""Half-life of the errors, in horizons: some scores outweigh one surprise, and what was right an hour ago at a
tenth of the load does not count."""
_ADVANTAGE = 0.95
"""Error relative to that of the window in use from which another replaces it, so that two alike do not alternate."""
_AROUND = 0.5
"""Part of a horizon, around the end of the start-up time, whose mean rate a forecast is compared with: what comes in
less time than that is in service, or waits, together."""
_FIRST = 2  # the window in use until there are scores: one horizon
_SURE = 6.0
"""Mean errors (five standard deviations) that a rate is beyond chance."""
_MAE = 0.8  # mean absolute error over the standard error of a normal variable


class _Forecasts(NamedTuple):
    t: float
    rates: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class RateState:
    """Arrivals counted so far and scores of the windows. Start with `RateState()`.

    Attributes:
        times, totals: moments, and the arrivals until then; some forty per horizon.
        pending: forecasts whose time has not come.
        errors, weight: discounted absolute errors of each forecast, and seconds that they are of.
        used: index of the forecast in use.
    """

    times: tuple[float, ...] = ()
    totals: tuple[float, ...] = ()
    pending: tuple[_Forecasts, ...] = ()
    errors: tuple[float, ...] = (0.0,) * FORECASTS
    weight: float = 0.0
    used: int = _FIRST


class Rate(NamedTuple):
    """A forecast, in arrivals per second.

    Attributes:
        mean: expected one start-up time from now.
        error: mean absolute error of such forecasts so far, without what chance makes of the arrivals to come, and at
            least what it makes of the mean.
        window_s: seconds of the past that it rests on.
        kind: mean, line or growth.
    """

    mean: float
    error: float
    window_s: float
    kind: str

    @property
    def least(self) -> float:
        """The rate that is believed even if another forecast is lower: a step of the load is not waited out."""
        return self.mean - _SURE * self.error

    @property
    def guarded(self) -> float:
        """The rate to have capacity for: the mean and its error."""
        return self.mean + self.error


def forecast(state: RateState, t: float, total: float, startup_s: float, horizon_s: float) -> tuple[Rate, RateState]:
    """Return the rate one start-up time from now, and the state after this observation.

    Args:
        state: what the last call returned.
        t: seconds.
        total: arrivals until then, a counter that never falls.
        startup_s: until a replica that is asked for now serves.
        horizon_s: start-up time and the time over which load is averaged anyway (the wait that is allowed, a service).
    """
    if not state.times:
        return Rate(0.0, 0.0, 0.0, kind=KINDS[0]), replace(state, times=(t,), totals=(total,))
    rates = _rates(state, t, total, startup_s, horizon_s)
    if t - state.times[-1] >= horizon_s / _PARTS:
        state = _counted(state, _Forecasts(t, rates), total, startup_s, horizon_s)
    sure = max((_rate(state, rates, k, t, horizon_s) for k in range(len(WINDOWS))), key=lambda one: one.least)
    used = _rate(state, rates, state.used, t, horizon_s)
    return (sure._replace(mean=sure.least) if sure.least > used.mean else used), state


def _rate(state: RateState, rates: tuple[float, ...], k: int, t: float, horizon_s: float) -> Rate:
    rate, window_s = max(rates[k], 0.0), min(WINDOWS[k % len(WINDOWS)] * horizon_s, max(t - state.times[0], 1e-9))
    seen = state.errors[k] / state.weight if state.weight > horizon_s else 0.0
    chance = _MAE * math.sqrt(rate / (_AROUND * horizon_s))  # of what came: Erlang C has it already
    error = max(math.sqrt(max(seen * seen - chance * chance, 0.0)), _MAE * math.sqrt(rate / window_s))
    return Rate(rate, error, window_s, KINDS[k // len(WINDOWS)])


def restarted(state: RateState, t: float, total: float) -> RateState:
    """Return the state with the scores only: what came before a gap says nothing of the rate after it."""
    return RateState((t,), (total,), (), state.errors, state.weight, state.used)


def _rates(state: RateState, t: float, total: float, startup_s: float, horizon_s: float) -> tuple[float, ...]:
    """Return the forecasts: of each window the mean, then the line, then the growth."""
    known_s = max(t - state.times[0], 1e-9)
    means, lines, growths = [], [], []
    for share in WINDOWS:
        window_s = min(share * horizon_s, known_s)
        before, early, middle, late = (_total_at(state, t - window_s * part) for part in (1.0, 0.75, 0.5, 0.25))
        mean = (total - before) / window_s
        means.append(mean)
        half_s = window_s / 2.0
        first, second = (middle - before) / half_s, (total - middle) / half_s
        halves = (window_s / 4.0 + min(startup_s, window_s)) / half_s  # from the middle of the second half, in halves
        differs = abs(second - first) * half_s > _BEYOND_CHANCE * math.sqrt(total - before)
        differs = differs and share * horizon_s <= known_s
        quarters = (early - before, middle - early, late - middle, total - late)
        whole = quarters[3] - quarters[0]
        steady = all((b - a) * whole > _EACH_QUARTER * whole * whole for a, b in itertools.pairwise(quarters))
        differs = differs and steady
        lines.append(second + (second - first) * halves if differs else mean)
        growing = differs and second > first > 0.0
        growths.append(second * min((second / first) ** halves, _MOST_GROWTH) if growing else mean)
    return (*means, *lines, *growths)


def _total_at(state: RateState, t: float) -> float:
    times, totals = state.times, state.totals
    j = bisect_right(times, t)
    if j <= 0:
        return totals[0]
    if j >= len(times):
        return totals[-1]
    share = (t - times[j - 1]) / (times[j] - times[j - 1])
    return totals[j - 1] + share * (totals[j] - totals[j - 1])


def _counted(state: RateState, now: _Forecasts, total: float, startup_s: float, horizon_s: float) -> RateState:
    """Keep a count and the forecasts, and score those whose time has come."""
    t, pending = now.t, (*state.pending, now)
    errors, weight, used = state.errors, state.weight, state.used
    seconds = t - state.times[-1]
    around_s = horizon_s * _AROUND
    due = next((k for k, one in enumerate(pending) if one.t > t - startup_s - around_s / 2.0), len(pending))
    if due:
        first = pending[due - 1]
        came = (total - _total_at(state, t - around_s)) / around_s
        keep = 0.5 ** (seconds / max(_HALF_LIFE * horizon_s, seconds))
        errors = tuple(e * keep + abs(rate - came) * seconds for e, rate in zip(errors, first.rates, strict=True))
        weight = weight * keep + seconds
        best = min(range(len(errors)), key=errors.__getitem__)
        used = best if weight > horizon_s and errors[best] < _ADVANTAGE * errors[used] else used
        pending = pending[due:]
    old = bisect_right(state.times, t - WINDOWS[-1] * horizon_s) - 1  # one before the longest window stays
    first_kept = max(old, 0)
    return RateState((*state.times[first_kept:], t), (*state.totals[first_kept:], total), pending, errors, weight, used)
