"""The arrival rate ahead: what will be offered when a replica that is ordered now is ready, with an interval.

Several models (`autoscale.forecast.models`) run side by side. At the end of each block of steps each makes its forecast
one horizon ahead; when that time comes it is scored on the mean rate of the block, old errors weighing less, and the
model with the least error of its own is used. A change needs a clear advantage, so that noise does not flip it. The
interval is conformal (`autoscale.forecast.intervals`): from the ratios of what was seen to what this procedure,
whichever model it used, had predicted. So it covers the errors of the choice too, and needs no distribution of the
arrivals.

Libraries that fit such models (statsmodels, statsforecast) were left out: they refit a whole history in milliseconds to
seconds, while this runs each second in each pool, keeps no history and takes tens of microseconds.

States are frozen. A block is a step where the horizon is short, else a 16th or so of the horizon, so that the state is
small and the ratios in the window reach back over many horizons. The horizon is rounded up to whole blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from tierserve.autoscale.forecast.intervals import Band, Residuals
from tierserve.autoscale.forecast.models import Level, Season, Trend
from tierserve.autoscale.forecast.settings import Forecaster

__all__ = ["MODELS", "Forecast", "Forecaster", "State", "observe", "predict"]

MODELS = ("last", "level", "trend", "season", "season-level", "blend")
"""Names of the models, in the order of every tuple of forecasts."""
_KEEP = 0.99  # weight of a score with each block that follows
_TRIED = 16.0  # weight of scores from which a model may be chosen
_ADVANTAGE = 0.93  # the error of another model over that of the one in use, from which it takes over
_PEAK_SEEN = 0.9  # share of the steps of a horizon that must be seen for its largest to count
_MOST = 1e12  # no count of arrivals is larger


class Prediction(NamedTuple):
    """A forecast to be scored later: of each model, of the one in use, and the base of the peak rate."""

    models: tuple[float | None, ...]
    used: float
    peak: float


class Block(NamedTuple):
    """Steps seen in a block, the sum of their rates and the largest."""

    seen: int = 0
    total: float = 0.0
    largest: float = 0.0


class Score(NamedTuple):
    """Discounted absolute errors and their weight."""

    total: float = 0.0
    weight: float = 0.0

    @property
    def mean(self) -> float:
        """The mean absolute error, arrivals per second."""
        return self.total / self.weight if self.weight > 0.0 else math.inf


class State(NamedTuple):
    """Forecast state between steps; start with `State()`."""

    step: int = 0
    last: Level = Level()
    level: Level = Level()
    trend: Trend = Trend()
    season: Season | None = None
    block: Block = Block()
    blocks: tuple[Block, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    scores: tuple[Score, ...] = (Score(),) * len(MODELS)
    used: Score = Score()
    scale: Score = Score()
    chosen: int = 0
    rates: Residuals = Residuals()
    peaks: Residuals = Residuals()


@dataclass(frozen=True, slots=True)
class Forecast:
    """Forecast one horizon ahead, in arrivals per second.

    Attributes:
        mean: mean rate of the step that is one horizon ahead.
        model: the model in use.
        error: its mean absolute error at this horizon over the mean rate; None before any was scored.
        seen: forecasts that the interval rests on; below 32 it is a prior.
        rate_band, peak_band: of the rate of that step; of the largest rate of a step until then.
    """

    mean: float
    model: str
    error: float | None
    seen: int
    rate_band: Band
    peak_band: Band

    def quantile(self, q: float) -> float:
        """Return the rate that the step one horizon ahead does not exceed with probability `q`."""
        return self.rate_band.quantile(q)

    def peak_quantile(self, q: float) -> float:
        """Return the rate that no step until the horizon exceeds with probability `q`."""
        return self.peak_band.quantile(q)

    @property
    def peak(self) -> float:
        """The median of the largest rate of a step until the horizon."""
        return self.peak_band.quantile(0.5)


def observe(state: State, settings: Forecaster, count: float | None) -> State:
    """Return the state after one step with `count` arrivals.

    None, and all that is no count, means missing: the step counts, but nothing is learned or scored.
    """
    rate = _rate(count, settings)
    fast, slow = settings.gains
    block = state.block
    if rate is not None:
        block = Block(block.seen + 1, block.total + rate, max(block.largest, rate))
    new = state._replace(
        step=state.step + 1,
        last=state.last.after(rate, fast),
        level=state.level.after(rate, slow),
        trend=state.trend.after(rate, settings.keep, settings.damping),
        season=_season(state, settings, rate),
        block=block,
    )
    return new if new.step % settings.block else _block_end(new, settings, rate)


def predict(state: State, settings: Forecaster) -> Forecast:
    """Return the forecast one horizon after the last step observed."""
    predictions = _predict(state, settings)
    one = 1.0 / settings.step_s
    known = state.used.weight > 0.0 and state.scale.total > 0.0
    return Forecast(
        mean=predictions.used,
        model=MODELS[state.chosen],
        error=state.used.total / state.scale.total if known else None,
        seen=len(state.rates.recent),
        rate_band=Band(predictions.used, one, state.rates),
        peak_band=Band(predictions.peak, one, state.peaks, settings.steps),
    )


def _rate(count: object, settings: Forecaster) -> float | None:
    if isinstance(count, int | float) and not isinstance(count, bool) and 0.0 <= count <= _MOST:
        return float(count) / settings.step_s
    return None


def _season(state: State, settings: Forecaster, rate: float | None) -> Season | None:
    if not settings.seasonal:
        return None
    season = state.season or Season.of(settings.bins)
    return season.after(rate, settings.phase(state.step + 0.5), settings.steps_per_bin, settings.season_gains)


def _predict(state: State, settings: Forecaster) -> Prediction:
    """Return the prediction of each model for the step one horizon ahead."""
    one = other = None
    if state.season is not None:
        one, other = state.season.ahead(settings.phase(state.step + settings.steps - 0.5))
    trend = state.trend.ahead(settings.steps, settings.damping)
    # Errors of the last value and of a steady season are hardly alike: their mean often beats both (Bates and Granger).
    blend = None if other is None else 0.5 * (state.last.rate + other)
    models = (state.last.rate, state.level.rate, trend, one, other, blend)
    used = models[state.chosen]
    if used is None:
        used = state.last.rate
    return Prediction(models, used, max(used, min(state.last.rate, state.level.rate)))


def _block_end(state: State, settings: Forecaster, rate: float | None) -> State:
    """Score the prediction of one horizon ago, choose the model, and predict one horizon ahead."""
    blocks = (*state.blocks, state.block)[-settings.blocks :]
    if len(state.predictions) == settings.blocks:
        state = _scored(state, settings, blocks, rate)
    predictions = (*state.predictions, _predict(state, settings))[-settings.blocks :]
    return state._replace(blocks=blocks, block=Block(), predictions=predictions)


def _scored(state: State, settings: Forecaster, blocks: tuple[Block, ...], rate: float | None) -> State:
    predictions, block, one = state.predictions[0], blocks[-1], 1.0 / settings.step_s
    rates, peaks, chosen = state.rates, state.peaks, state.chosen
    scores, used, scale = state.scores, state.used, state.scale
    if block.seen:
        mean = block.total / block.seen
        scores = tuple(_score(s, f, mean) for s, f in zip(scores, predictions.models, strict=True))
        used, scale = _score(used, predictions.used, mean), _score(scale, 0.0, mean)
        chosen = _choose(scores, chosen)
    if rate is not None:
        rates = rates.after(Band(predictions.used, one, rates).ratio(rate))
    if sum(b.seen for b in blocks) >= _PEAK_SEEN * settings.steps:
        peaks = peaks.after(Band(predictions.peak, one, peaks).ratio(max(b.largest for b in blocks)))
    return state._replace(rates=rates, peaks=peaks, chosen=chosen, scores=scores, used=used, scale=scale)


def _score(score: Score, forecast: float | None, seen: float) -> Score:
    if forecast is None:
        return score
    return Score(score.total * _KEEP + abs(forecast - seen), score.weight * _KEEP + 1.0)


def _choose(scores: tuple[Score, ...], chosen: int) -> int:
    """The model in use stays unless another that was tried often enough is clearly better."""
    tried = [k for k, s in enumerate(scores) if s.weight >= _TRIED]
    if not tried:
        return chosen
    best = min(tried, key=lambda k: scores[k].mean)
    return best if scores[best].mean < _ADVANTAGE * scores[chosen].mean else chosen
