"""How good the forecast of the arrival rate is, and how honest its interval."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pytest

from tierserve.autoscale.forecast.state import Forecast, Forecaster, State, observe, predict

SEEDS = (1, 2, 3)


def feed(counts: Iterable[float | None], settings: Forecaster, state: State | None = None) -> State:
    state = state or State()
    for count in counts:
        state = observe(state, settings, count)
    return state


def outcomes(counts: list[int], settings: Forecaster, warm: int) -> list[tuple[Forecast, float, float, float]]:
    """Return (forecast, last value then, rate that came, largest until then) for each step after `warm`."""
    state, out = State(), []
    for k in range(len(counts) - settings.steps):
        state = observe(state, settings, counts[k])
        if k >= warm:
            ahead = counts[k + 1 : k + 1 + settings.steps]
            came, largest = ahead[-1] / settings.step_s, max(ahead) / settings.step_s
            out.append((predict(state, settings), counts[k] / settings.step_s, came, largest))
    return out


def mean_error(pairs: Iterable[tuple[float, float]]) -> float:
    return float(np.mean([abs(a - b) for a, b in pairs]))


def share(hits: Iterable[bool]) -> float:
    return float(np.mean(list(hits)))


def daily(days: float, step_s: float, seed: int) -> list[int]:
    """Counts of a day that swings between 5 and 35 per second, each minute off by 3% more than Poisson noise."""
    rng = np.random.default_rng(seed)
    n = int(days * 86400 / step_s)
    rate = 20 + 15 * np.sin(2 * np.pi * np.arange(n) * step_s / 86400)
    return rng.poisson(rate * step_s * rng.lognormal(0, 0.03, n)).tolist()


def bursty(steps: int, seed: int) -> list[int]:
    """Counts of a Markov-modulated Poisson process: 5 per second, and 40 in bursts of half a minute on average."""
    rng = np.random.default_rng(seed)
    high, out = False, []
    for _ in range(steps):
        high = high != (rng.random() < (1 / 30 if high else 1 / 120))
        out.append(int(rng.poisson(40 if high else 5)))
    return out


@pytest.mark.parametrize("rate", [2, 20])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_constant_rate_is_met_and_its_quantiles_cover_what_they_say(rate, seed):
    settings = Forecaster(1, 30)
    counts = np.random.default_rng(seed).poisson(rate, 4000).tolist()
    seen = outcomes(counts, settings, 600)
    assert np.mean([f.mean for f, *_ in seen]) == pytest.approx(rate, rel=0.03)
    assert np.std([f.mean for f, *_ in seen]) < math.sqrt(rate / 6)  # a smoothed rate, far quieter than a count
    assert 0.85 <= share(came <= f.quantile(0.9) for f, _, came, _ in seen) <= 0.95
    assert 0.85 <= share(largest <= f.peak_quantile(0.9) for f, *_, largest in seen) <= 0.96
    assert share(largest <= f.peak for f, *_, largest in seen) == pytest.approx(0.55, abs=0.15)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_ramp_is_led_and_the_last_value_is_beaten(seed):
    rng = np.random.default_rng(seed)
    counts = [int(rng.poisson(20 * 1.1 ** (k / 60))) for k in range(1200)]  # 10% a minute
    seen = outcomes(counts, Forecaster(1, 60), 400)
    assert share(f.mean > last for f, last, *_ in seen) > 0.6  # a last value alone is noise around the level
    assert np.mean([f.mean / came for f, _, came, _ in seen]) == pytest.approx(1.0, abs=0.04)
    assert mean_error((f.mean, came) for f, _, came, _ in seen) < 0.9 * mean_error(
        (last, came) for _, last, came, _ in seen
    )
    assert {f.model for f, *_ in seen[200:]} == {"trend"}


@pytest.mark.parametrize("seed", SEEDS)
def test_after_three_days_the_season_is_known_and_more_than_halves_the_error_of_the_last_value(seed):
    settings = Forecaster(60, 3600)
    seen = outcomes(daily(4, 60, seed), settings, 3 * 1440)
    assert all(f.model in ("season", "season-level") for f, *_ in seen)
    assert mean_error((f.mean, came) for f, _, came, _ in seen) < 0.5 * mean_error(
        (last, came) for _, last, came, _ in seen
    )
    assert 0.85 <= share(came <= f.quantile(0.9) for f, _, came, _ in seen) <= 0.96


def test_a_day_that_is_half_as_busy_as_usual_is_forecast_by_its_own_level():
    settings = Forecaster(60, 3600)
    counts = daily(4, 60, 7)
    counts[3 * 1440 :] = [c // 2 for c in counts[3 * 1440 :]]
    seen = outcomes(counts, settings, 3 * 1440 + 480)
    assert np.mean([f.mean / came for f, _, came, _ in seen]) == pytest.approx(1.0, abs=0.08)


def test_bursts_are_covered_by_the_interval():
    for horizon_s in (10, 60):
        seen = outcomes(bursty(4500, 1), Forecaster(1, horizon_s), 1000)
        for q in (0.5, 0.8, 0.9):
            assert share(came <= f.quantile(q) for f, _, came, _ in seen) == pytest.approx(q, abs=0.05)
        assert share(largest <= f.peak_quantile(0.9) for f, *_, largest in seen) == pytest.approx(0.9, abs=0.05)


def test_after_a_step_the_new_rate_is_forecast_within_a_horizon():
    settings = Forecaster(1, 30)
    rng = np.random.default_rng(4)
    state = feed(rng.poisson(20, 1000).tolist(), settings)
    assert predict(state, settings).mean == pytest.approx(20, rel=0.25)
    state = feed(rng.poisson(80, 90).tolist(), settings, state)
    assert predict(state, settings).mean == pytest.approx(80, rel=0.2)
    state = feed(rng.poisson(5, 90).tolist(), settings, state)
    assert predict(state, settings).mean == pytest.approx(5, abs=3)


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf, -math.inf, -1, 1e300, "7", True])
def test_what_is_no_count_is_missing_and_missing_is_not_zero(nothing):
    settings = Forecaster(1, 10)
    state = feed([20] * 300, settings)
    before = predict(state, settings)
    after = feed([nothing] * 100, settings, state)
    assert after.step == state.step + 100
    assert after.scores == state.scores
    assert after.rates == state.rates
    forecast = predict(after, settings)
    assert forecast.mean == pytest.approx(20)
    assert forecast.quantile(0.9) == pytest.approx(before.quantile(0.9))


def test_gaps_do_not_bias_the_level_nor_the_season():
    settings = Forecaster(60, 3600)
    rng = np.random.default_rng(5)
    counts: list[int | None] = list(daily(4, 60, 5))
    full = feed(counts, settings)
    holes = feed([None if rng.random() < 0.3 else c for c in counts], settings)
    assert predict(holes, settings).mean == pytest.approx(predict(full, settings).mean, rel=0.05)
    assert predict(holes, settings).model in ("season", "season-level")


def test_while_little_was_seen_the_interval_is_that_of_poisson_noise_and_a_share_of_the_rate():
    settings = Forecaster(1, 10)
    forecast = predict(feed([100] * 12, settings), settings)
    assert forecast.seen < 32
    assert forecast.quantile(0.5) == pytest.approx(100)
    assert forecast.quantile(0.9) == pytest.approx(100 + 1.2816 * math.hypot(10, 20), rel=1e-3)
    assert forecast.peak_quantile(0.9) > forecast.quantile(0.9)


def test_before_anything_was_seen_nothing_is_expected_and_nothing_fails():
    forecast = predict(State(), Forecaster(1, 60))
    assert forecast.mean == 0.0
    assert forecast.error is None
    assert forecast.seen == 0
    assert 0.0 < forecast.quantile(0.99) < 5.0


def test_no_traffic_at_all_is_forecast_as_none_and_the_first_arrivals_are_believed():
    settings = Forecaster(1, 10)
    state = feed([0] * 200, settings)
    assert predict(state, settings).quantile(0.9) == 0.0
    assert predict(feed([10] * 20, settings, state), settings).mean == pytest.approx(10, rel=0.05)


def test_the_error_that_is_reported_is_the_error_that_is_made():
    settings = Forecaster(60, 600)
    counts = np.random.default_rng(6).poisson(10 * 60, 2000).tolist()
    seen = outcomes(counts, settings, 500)
    made = mean_error((f.mean, came) for f, _, came, _ in seen) / 10
    assert np.mean([f.error for f, *_ in seen]) == pytest.approx(made, rel=0.15)


def test_the_model_in_use_does_not_flip_with_noise():
    counts = np.random.default_rng(8).poisson(20, 4000).tolist()
    models = [f.model for f, *_ in outcomes(counts, Forecaster(1, 30), 100)]
    assert sum(a != b for a, b in pairwise(models)) <= 8


@pytest.mark.parametrize("horizon_s", [0.5, 1, 7, 16, 31, 33, 61, 600, 3601])
def test_the_horizon_is_rounded_up_to_whole_blocks_by_a_sixteenth_at_most(horizon_s):
    settings = Forecaster(1, horizon_s)
    steps = max(math.ceil(horizon_s), 1)
    assert steps <= settings.steps < steps * (1 + 1 / 16) + 1
    assert settings.blocks <= 32


def test_what_is_kept_does_not_grow():
    settings = Forecaster(1, 60)
    state = feed([3] * 3000, settings)
    assert len(state.rates.recent) == len(state.rates.ordered) == 512
    assert len(state.predictions) == len(state.blocks) == settings.blocks
    assert sorted(state.rates.recent) == list(state.rates.ordered)


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf])
def test_times_that_are_none_are_refused(bad):
    for times in ((bad, 60, 86400), (1, bad, 86400), (1, 60, bad)):
        with pytest.raises(ValueError, match="_s must be"):
            Forecaster(*times)


@pytest.mark.parametrize("q", [0.0, 1.0, -0.5, math.nan])
def test_a_quantile_outside_0_and_1_is_refused(q):
    with pytest.raises(ValueError, match="q must be"):
        predict(State(), Forecaster(1, 60)).quantile(q)
