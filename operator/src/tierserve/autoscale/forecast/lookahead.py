"""Look-ahead: replicas for the arrival rate forecast for when a replica started now is ready.

A forecast (autoscale/forecast/state.py) pays off for a load with a season or a trend and slow starts; elsewhere it
must cost nothing. So a model is used only when it predicts a ramp, and only if it is skilful: over the ramps that it
predicted before, its error must have been clearly less than that of the last value (persistence). On a load without a
pattern hardly any ramp is predicted, and those predictions are no better than the last value. Replicas are sized for a
quantile of the rate, from the ratios observed / predicted of past ramps (conformal, autoscale/forecast/intervals.py).

A daily load has one morning ramp a day, so scores are remembered for days. Steps are counted from the Unix epoch, so
that the time of day is known after a gap, and a change of the start-up time resets only what depends on it.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import NamedTuple

from tierserve.autoscale.demand import Inputs, Recommendation
from tierserve.autoscale.forecast.intervals import Band, Residuals
from tierserve.autoscale.forecast.settings import Forecaster
from tierserve.autoscale.forecast.state import MODELS, State, observe
from tierserve.autoscale.history import History

LOOKAHEAD_MODELS = ("trend", "season", "season-level", "blend")
"""The models other than persistence (the last value) and the slow level."""
_INDEX = tuple(MODELS.index(name) for name in LOOKAHEAD_MODELS)
_STEPS = 16  # in a horizon
_SHORTEST_STEP_S, _LONGEST_STEP_S = 1.0, 120.0  # the history remembers more than twice the longest
_SPARE = 1.1  # horizon over the required one, so that a varying start-up time does not change it
_OUTGROWN = 0.7  # share of the horizon in force below which a shorter one is used
_RISE = 0.1  # share above the last value from which a rate is a ramp
_EARNED = 0.75  # skill below which a model is used
_SEEN = 48.0  # minimum weight of predicted ramps, in blocks: three horizons
_REMEMBERED = 2.0  # half-life of a score, in periods


class RampScore(NamedTuple):
    """Score of a model over the ramps that it predicted.

    Attributes:
        error, last: discounted sums of the absolute errors of the model and of the last value, per second.
        weight: their weight, in blocks.
        ratios: observed / predicted.
    """

    error: float = 0.0
    last: float = 0.0
    weight: float = 0.0
    ratios: Residuals = Residuals()

    @property
    def skill(self) -> float:
        """Error relative to that of the last value (lower is better); inf until enough ramps were predicted."""
        return self.error / self.last if self.weight >= _SEEN and self.last > 0.0 else math.inf


class PendingScaleUp(NamedTuple):
    """Replicas for a forecast rate, and when they were requested."""

    t: float
    replicas: int
    rate: float
    reason: str


class ForecastSummary(NamedTuple):
    """Forecast figures of a decision.

    Attributes:
        rate: arrivals per second expected when a replica ordered now is ready.
        model: name of the model.
        error: its mean absolute error at that horizon over the mean rate.
    """

    rate: float | None = None
    model: str | None = None
    error: float | None = None


UNKNOWN = ForecastSummary()


@dataclass(frozen=True, slots=True)
class LookaheadState:
    """State of the look-ahead; start with None.

    Attributes:
        settings: step, horizon and season in force.
        state: of the models.
        rises: of each of `LOOKAHEAD_MODELS`.
        orders: of the last horizon, replicas falling: the first is the largest.
        outlook: what is shown.
    """

    settings: Forecaster
    state: State
    ramp_scores: tuple[RampScore, ...] = (RampScore(),) * len(LOOKAHEAD_MODELS)
    pending_scale_ups: tuple[PendingScaleUp, ...] = ()
    summary: ForecastSummary = UNKNOWN

    @property
    def selected_model(self) -> int | None:
        """Index (of `LOOKAHEAD_MODELS`) of the most skilful model; None if none is skilful enough."""
        best = min(range(len(self.ramp_scores)), key=lambda k: self.ramp_scores[k].skill)
        return best if self.ramp_scores[best].skill < _EARNED else None


def update_lookahead(lookahead: LookaheadState | None, v: Inputs) -> LookaheadState:
    """Return the state after one more observation; calls within a step change nothing.

    Args:
        ahead: what the last call returned, None at first.
        v: all that is known now.
    """
    settings = _settings(lookahead, v)
    now = int(v.obs.t // settings.step_s)
    if lookahead is None:
        return LookaheadState(settings, State(step=now))
    missed = now - lookahead.state.step
    if settings is not lookahead.settings or missed > settings.steps or missed < 0:
        return _restarted(lookahead, settings, now)
    if not missed:
        return lookahead
    for k in range(lookahead.state.step, now):
        lookahead = _with_step(
            lookahead, _count(v.history, k * settings.step_s, settings.step_s, v.settings.stale_after_s)
        )
    return _with_scale_up(replace(lookahead, summary=_summary(lookahead)), v)


def apply_forecast(recommendation: Recommendation, lookahead: LookaheadState, v: Inputs) -> Recommendation:
    """Return the recommendation, raised to the largest pending scale-up of the last horizon.

    A scale-up is held until the time that it was forecast for. It does not count longer: `down` is unchanged.
    """
    if not lookahead.pending_scale_ups or v.load.closed:  # in a closed loop the rate rises because replicas were added
        return recommendation
    largest = lookahead.pending_scale_ups[0]
    if largest.replicas <= recommendation.up:
        return recommendation
    return Recommendation(largest.replicas, recommendation.down, largest.reason)


def _settings(lookahead: LookaheadState | None, v: Inputs) -> Forecaster:
    """Return the settings in force, others only where the horizon no longer fits."""
    needed, period_s = v.startup_s + v.tick_s, v.settings.forecast_period_s
    if lookahead is not None and lookahead.settings.period_s == period_s:
        horizon_s = lookahead.settings.horizon_s
        if _OUTGROWN * horizon_s <= needed <= horizon_s:
            return lookahead.settings
    horizon_s = _SPARE * needed
    step_s = min(max(horizon_s / _STEPS, _SHORTEST_STEP_S), _LONGEST_STEP_S)
    return Forecaster(step_s, horizon_s, period_s)


def _restarted(lookahead: LookaheadState, settings: Forecaster, now: int) -> LookaheadState:
    """Return it at another step: what waits for its time is dropped, what is known of the season is kept.

    Errors belong to a horizon: with another one they are learned anew.
    """
    old, season = lookahead.state, lookahead.state.season
    if season is not None:
        known = len(season.bins) == settings.bins and lookahead.settings.period_s == settings.period_s
        season = season._replace(total=0.0, seen=0) if known else None
    if settings is lookahead.settings:
        state = old._replace(step=now, season=season, blocks=(), predictions=(), block=State().block)
        return replace(lookahead, state=state)
    return LookaheadState(settings, State(step=now, season=season, last=old.last, level=old.level))


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


def _with_step(lookahead: LookaheadState, count: float | None) -> LookaheadState:
    settings, predictions = lookahead.settings, lookahead.state.predictions
    state = observe(lookahead.state, settings, count)
    ramp_scores = lookahead.ramp_scores
    if state.step % settings.block == 0 and len(predictions) == settings.blocks and state.blocks[-1].seen:
        block, models = state.blocks[-1], predictions[0].models
        seen, last = block.total / block.seen, models[0] or 0.0
        ramp_scores = tuple(
            _scored(one, models[k], last, seen, settings) for one, k in zip(ramp_scores, _INDEX, strict=True)
        )
    return replace(lookahead, state=state, ramp_scores=ramp_scores)


def _scored(score: RampScore, predicted: float | None, last: float, seen: float, settings: Forecaster) -> RampScore:
    if predicted is None or not _is_ramp(predicted, last, settings):
        return score
    keep = 0.5 ** (1.0 / _blocks_remembered(settings))
    return RampScore(
        score.error * keep + abs(predicted - seen),
        score.last * keep + abs(last - seen),
        score.weight * keep + 1.0,
        score.ratios.after(Band(predicted, 1.0 / settings.step_s, score.ratios).ratio(seen)),
    )


def _blocks_remembered(settings: Forecaster) -> float:
    return max(_REMEMBERED * settings.period_s / (settings.block * settings.step_s), 2.0 * _SEEN)


def _is_ramp(rate: float, last: float, settings: Forecaster) -> bool:
    """Return whether a rate exceeds the last value by more than its Poisson noise over a quarter horizon."""
    return rate > last * (1.0 + _RISE) + math.sqrt(4.0 * last / settings.horizon_s)


def _summary(lookahead: LookaheadState) -> ForecastSummary:
    state, selected_model = lookahead.state, lookahead.selected_model
    k = state.chosen if selected_model is None else _INDEX[selected_model]
    if not state.predictions or state.scale.total <= 0.0 or state.scores[k].weight <= 0.0:
        return UNKNOWN
    return ForecastSummary(state.predictions[-1].models[k], MODELS[k], state.scores[k].mean / state.scale.mean)


def _with_scale_up(lookahead: LookaheadState, v: Inputs) -> LookaheadState:
    """Return the state with a scale-up for the current forecast, without expired ones."""
    t, scale_up = v.obs.t, _scale_up(lookahead, v)
    pending_scale_ups = tuple(x for x in lookahead.pending_scale_ups if x.t >= t - lookahead.settings.horizon_s)
    if scale_up is not None:
        pending_scale_ups = (*(x for x in pending_scale_ups if x.replicas > scale_up.replicas), scale_up)
    return replace(lookahead, pending_scale_ups=pending_scale_ups)


def _scale_up(lookahead: LookaheadState, v: Inputs) -> PendingScaleUp | None:
    selected_model, settings = lookahead.selected_model, lookahead.settings
    predictions = lookahead.state.predictions[-1].models if lookahead.state.predictions else ()
    if selected_model is None or not predictions or v.load.closed:
        return None
    rate, last, q = predictions[_INDEX[selected_model]], predictions[0] or 0.0, v.settings.forecast_quantile
    if rate is None or not _is_ramp(rate, last, settings):
        return None
    most = Band(rate, 1.0 / settings.step_s, lookahead.ramp_scores[selected_model].ratios).quantile(q)
    reason = (
        f"forecast arrival rate {most:.1f}/s ({_pattern(LOOKAHEAD_MODELS[selected_model], settings)}, "
        f"{100.0 * q:g}% quantile) when a replica started now is ready"
    )
    return PendingScaleUp(v.obs.t, v.replicas(most * v.load.service_s), most, reason)


def _pattern(model: str, settings: Forecaster) -> str:
    if model == "trend":
        return "trend"
    return "daily season" if settings.period_s == 86400.0 else f"season of {settings.period_s / 3600.0:.3g} h"
