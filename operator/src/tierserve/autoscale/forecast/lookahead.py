"""Replicas for the arrivals that are forecast when a replica ordered now will be ready.

A forecast (autoscale/forecast/state.py) pays where the load has a shape that comes again, or a trend, and starts are
slow; nowhere else may it cost anything. So a model is only heard where it says that arrivals rise, and only if it has
earned it: each time that it said so before it was compared with the last value, which says that all stays as it is.
Over the rises that it forecast its error must have been clearly less. On a load without a shape hardly any rise is
forecast, and those that are turn out no better than the last value. What is staffed for is a quantile of the rate at
that time, from the ratios of what was seen to what the model had said of rises (conformal, as in
autoscale/forecast/intervals.py).

A day has one morning: how good a model was at it must be remembered for days, while nights add nothing. Steps are
counted from the Unix epoch, so that the time of day is known whatever was missed, and a change of the start-up time
costs only what depended on it.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import NamedTuple

from tierserve.autoscale.demand import Need, View
from tierserve.autoscale.forecast.intervals import Band, Residuals
from tierserve.autoscale.forecast.settings import Forecaster
from tierserve.autoscale.forecast.state import MODELS, State, observe
from tierserve.autoscale.history import History

LOOKING_AHEAD = ("trend", "season", "season-level", "blend")
"""The models that can say something else than that all stays as it is."""
_INDEX = tuple(MODELS.index(name) for name in LOOKING_AHEAD)
_STEPS = 16  # in a horizon
_SHORTEST_STEP_S, _LONGEST_STEP_S = 1.0, 120.0  # the history remembers more than twice the longest
_SPARE = 1.1  # of a horizon over the one that is needed, so that a start-up time that wavers leaves it alone
_OUTGROWN = 0.7  # share of the horizon in force under which a shorter one is taken
_RISE = 0.1  # share by which a rate must be above the last value to be called a rise
_EARNED = 0.75  # error over that of the last value, under which a model is heard
_SEEN = 48.0  # weight of forecast rises, in blocks: three horizons
_REMEMBERED = 2.0  # periods after which a rise counts half


class Rises(NamedTuple):
    """How right a model was where it forecast a rise.

    Attributes:
        error, last: discounted sums of the absolute errors of the model and of the last value, per second.
        weight: their weight, in blocks.
        ratios: of what was seen to what the model said.
    """

    error: float = 0.0
    last: float = 0.0
    weight: float = 0.0
    ratios: Residuals = Residuals()

    @property
    def merit(self) -> float:
        """Error over that of the last value, infinite until enough rises were seen."""
        return self.error / self.last if self.weight >= _SEEN and self.last > 0.0 else math.inf


class Order(NamedTuple):
    """Replicas that a forecast rate wants, and when they were asked for."""

    t: float
    replicas: int
    rate: float
    why: str


class Outlook(NamedTuple):
    """What is shown of a forecast.

    Attributes:
        rate: arrivals per second expected when a replica ordered now is ready.
        model: which model says so.
        error: its mean absolute error at that horizon over the mean rate.
    """

    rate: float | None = None
    model: str | None = None
    error: float | None = None


UNKNOWN = Outlook()


@dataclass(frozen=True, slots=True)
class Ahead:
    """What is remembered for the forecast; begin with None.

    Attributes:
        settings: step, horizon and season in force.
        state: of the models.
        rises: of each of `LOOKING_AHEAD`.
        orders: of the last horizon, replicas falling: the first is the largest.
        outlook: what is shown.
    """

    settings: Forecaster
    state: State
    rises: tuple[Rises, ...] = (Rises(),) * len(LOOKING_AHEAD)
    orders: tuple[Order, ...] = ()
    outlook: Outlook = UNKNOWN

    @property
    def heard(self) -> int | None:
        """Index (of `LOOKING_AHEAD`) of the model that is heard; None where none has earned it."""
        best = min(range(len(self.rises)), key=lambda k: self.rises[k].merit)
        return best if self.rises[best].merit < _EARNED else None


def look_ahead(ahead: Ahead | None, v: View) -> Ahead:
    """Return what is known after one more observation; most calls end within a step and change nothing.

    Args:
        ahead: what the last call returned, None at first.
        v: all that is known now.
    """
    settings = _settings(ahead, v)
    now = int(v.obs.t // settings.step_s)
    if ahead is None:
        return Ahead(settings, State(step=now))
    missed = now - ahead.state.step
    if settings is not ahead.settings or missed > settings.steps or missed < 0:
        return _begun_anew(ahead, settings, now)
    if not missed:
        return ahead
    for k in range(ahead.state.step, now):
        ahead = _with_step(ahead, _count(v.history, k * settings.step_s, settings.step_s, v.settings.stale_after_s))
    return _with_order(replace(ahead, outlook=_outlook(ahead)), v)


def with_forecast(found: Need, ahead: Ahead, v: View) -> Need:
    """Return the need, raised to what the forecast of the last horizon wants.

    What is ordered is held until the time for which it was ordered. It does not count for longer: `down` stays.
    """
    if not ahead.orders or v.load.closed:  # connections that wait for answers ask more as replicas come
        return found
    largest = ahead.orders[0]
    if largest.replicas <= found.up:
        return found
    return Need(largest.replicas, found.down, largest.why)


def _settings(ahead: Ahead | None, v: View) -> Forecaster:
    """Return the settings in force, others only where the horizon no longer fits."""
    needed, period_s = v.startup_s + v.tick_s, v.settings.forecast_period_s
    if ahead is not None and ahead.settings.period_s == period_s:
        horizon_s = ahead.settings.horizon_s
        if _OUTGROWN * horizon_s <= needed <= horizon_s:
            return ahead.settings
    horizon_s = _SPARE * needed
    step_s = min(max(horizon_s / _STEPS, _SHORTEST_STEP_S), _LONGEST_STEP_S)
    return Forecaster(step_s, horizon_s, period_s)


def _begun_anew(ahead: Ahead, settings: Forecaster, now: int) -> Ahead:
    """Return it at another step: what waits for its time is dropped, what is known of the season is kept.

    Errors belong to a horizon: with another one they are learned anew.
    """
    old, season = ahead.state, ahead.state.season
    if season is not None:
        known = len(season.bins) == settings.bins and ahead.settings.period_s == settings.period_s
        season = season._replace(total=0.0, seen=0) if known else None
    if settings is ahead.settings:
        state = old._replace(step=now, season=season, blocks=(), said=(), block=State().block)
        return replace(ahead, state=state)
    return Ahead(settings, State(step=now, season=season, last=old.last, level=old.level))


def _count(h: History, begin: float, length: float, longest_s: float) -> float | None:
    """Return the arrivals from `begin` on for `length` seconds, None where a part of them was not seen."""
    marks, end = h.marks, begin + length
    first = bisect_right(marks, begin, key=lambda m: m.t) - 1
    after = bisect_right(marks, end, key=lambda m: m.t)
    if first < 0 or (after == len(marks) and marks[-1].t < end):
        return None
    within = marks[first : after + 1]
    if any(b.t - a.t > longest_s for a, b in itertools.pairwise(within)):
        return None
    return _arrivals_at(h, end, after) - _arrivals_at(h, begin, first + 1)


def _arrivals_at(h: History, t: float, after: int) -> float:
    """Return the arrivals until `t`, which lies between the mark `after` and the one before it."""
    a = h.marks[after - 1]
    if after >= len(h.marks):
        return a.arrivals
    b = h.marks[after]
    return a.arrivals + (b.arrivals - a.arrivals) * (t - a.t) / (b.t - a.t)


def _with_step(ahead: Ahead, count: float | None) -> Ahead:
    settings, said = ahead.settings, ahead.state.said
    state = observe(ahead.state, settings, count)
    rises = ahead.rises
    if state.step % settings.block == 0 and len(said) == settings.blocks and state.blocks[-1].seen:
        block, models = state.blocks[-1], said[0].models
        seen, last = block.total / block.seen, models[0] or 0.0
        rises = tuple(_scored(one, models[k], last, seen, settings) for one, k in zip(rises, _INDEX, strict=True))
    return replace(ahead, state=state, rises=rises)


def _scored(rises: Rises, said: float | None, last: float, seen: float, settings: Forecaster) -> Rises:
    if said is None or not _is_rise(said, last, settings):
        return rises
    keep = 0.5 ** (1.0 / _blocks_remembered(settings))
    return Rises(
        rises.error * keep + abs(said - seen),
        rises.last * keep + abs(last - seen),
        rises.weight * keep + 1.0,
        rises.ratios.after(Band(said, 1.0 / settings.step_s, rises.ratios).ratio(seen)),
    )


def _blocks_remembered(settings: Forecaster) -> float:
    return max(_REMEMBERED * settings.period_s / (settings.block * settings.step_s), 2.0 * _SEEN)


def _is_rise(rate: float, last: float, settings: Forecaster) -> bool:
    """Tell whether a rate is above the last value by more than chance in the quarter horizon of that value."""
    return rate > last * (1.0 + _RISE) + math.sqrt(4.0 * last / settings.horizon_s)


def _outlook(ahead: Ahead) -> Outlook:
    state, heard = ahead.state, ahead.heard
    k = state.chosen if heard is None else _INDEX[heard]
    if not state.said or state.scale.total <= 0.0 or state.scores[k].weight <= 0.0:
        return UNKNOWN
    return Outlook(state.said[-1].models[k], MODELS[k], state.scores[k].mean / state.scale.mean)


def _with_order(ahead: Ahead, v: View) -> Ahead:
    """Return it with what the forecast of now wants, and without what has had its time."""
    t, order = v.obs.t, _order(ahead, v)
    orders = tuple(x for x in ahead.orders if x.t >= t - ahead.settings.horizon_s)
    if order is not None:
        orders = (*(x for x in orders if x.replicas > order.replicas), order)
    return replace(ahead, orders=orders)


def _order(ahead: Ahead, v: View) -> Order | None:
    heard, settings = ahead.heard, ahead.settings
    said = ahead.state.said[-1].models if ahead.state.said else ()
    if heard is None or not said or v.load.closed:
        return None
    rate, last, q = said[_INDEX[heard]], said[0] or 0.0, v.settings.forecast_quantile
    if rate is None or not _is_rise(rate, last, settings):
        return None
    most = Band(rate, 1.0 / settings.step_s, ahead.rises[heard].ratios).quantile(q)
    why = (
        f"arrivals are forecast at {most:.1f}/s ({_shape(LOOKING_AHEAD[heard], settings)}, {100.0 * q:g}% quantile) "
        "when a replica ordered now is ready"
    )
    return Order(v.obs.t, v.replicas(most * v.load.service_s), most, why)


def _shape(model: str, settings: Forecaster) -> str:
    if model == "trend":
        return "trend"
    return "daily shape" if settings.period_s == 86400.0 else f"shape of every {settings.period_s / 3600.0:.3g} h"
