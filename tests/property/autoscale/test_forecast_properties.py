"""What holds for every forecast, whatever was counted."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from tierserve.autoscale.forecast.state import Forecast, Forecaster, State, observe, predict

anything = st.none() | st.floats(allow_nan=True, allow_infinity=True) | st.integers(-5, 10**14)
counts = st.none() | st.integers(0, 1000) | st.floats(0, 1e4) | anything
forecasters = st.builds(
    Forecaster,
    st.sampled_from([0.5, 1.0, 7.0, 600.0]),
    st.sampled_from([0.5, 3.0, 60.0, 1000.0]),
    st.sampled_from([5.0, 40.0, 86400.0]),
)
QS = (0.001, 0.05, 0.3, 0.5, 0.9, 0.95, 0.99, 0.9999)


def check(forecast: Forecast) -> None:
    assert 0.0 <= forecast.mean < math.inf
    assert forecast.error is None or 0.0 <= forecast.error < math.inf
    for quantile in (forecast.quantile, forecast.peak_quantile):
        values = [quantile(q) for q in QS]
        assert values == sorted(values)
        assert values[0] >= 0.0
        assert values[-1] < math.inf
    assert forecast.peak >= 0.0


@given(forecasters, st.lists(counts, max_size=120))
@settings(max_examples=150, deadline=None)
def test_whatever_is_counted_the_forecast_is_finite_not_negative_and_its_quantiles_rise(forecaster, seen):
    state = State()
    for count in seen:
        state = observe(state, forecaster, count)
        assert state.step <= len(seen)
    check(predict(state, forecaster))
    assert sorted(state.rates.recent) == list(state.rates.ordered)


@given(forecasters, st.lists(st.integers(0, 50), min_size=1, max_size=20))
@settings(max_examples=40, deadline=None)
def test_a_long_repeated_pattern_keeps_the_forecast_within_four_times_what_was_seen(forecaster, pattern):
    state = State()
    for k in range(600):
        state = observe(state, forecaster, pattern[k % len(pattern)])
    forecast = predict(state, forecaster)
    check(forecast)
    assert forecast.mean <= 4 * max(pattern) / forecaster.step_s


@given(forecasters, st.lists(st.integers(0, 500), min_size=1, max_size=80))
@settings(max_examples=60, deadline=None)
def test_the_same_counts_give_the_same_forecast_and_leave_earlier_states_alone(forecaster, seen):
    states = [State()]
    for count in seen:
        states.append(observe(states[-1], forecaster, count))
    again = State()
    for count, state in zip(seen, states, strict=False):
        assert again == state
        again = observe(again, forecaster, count)
    assert predict(again, forecaster) == predict(states[-1], forecaster)


@given(st.integers(1, 10_000), st.integers(200, 400))
@settings(max_examples=25, deadline=None)
def test_a_rate_without_noise_is_forecast_exactly(count, steps):
    forecaster = Forecaster(2.0, 20.0, 400.0)
    state = State()
    for _ in range(steps):
        state = observe(state, forecaster, count)
    forecast = predict(state, forecaster)
    assert math.isclose(forecast.mean, count / 2.0, rel_tol=1e-9)
    assert math.isclose(forecast.quantile(0.9), count / 2.0, rel_tol=1e-9)
    assert math.isclose(forecast.peak_quantile(0.9), count / 2.0, rel_tol=1e-9)
