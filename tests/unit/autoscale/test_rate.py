"""The forecast of the arrival rate: which window is used, and how uncertain it is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tierserve.autoscale.rate import WINDOWS, Rate, RateState, forecast, restarted

STARTUP_S, HORIZON_S, TICK_S = 60.0, 70.0, 1.0


def after(arrivals: list[float], state: RateState | None = None) -> tuple[Rate, RateState]:
    """The forecast after arrivals second by second."""
    state, total = state or RateState(), 0.0
    rate, state = forecast(state, 0.0, total, STARTUP_S, HORIZON_S)
    for k, n in enumerate(arrivals):
        total += n
        rate, state = forecast(state, (k + 1) * TICK_S, total, STARTUP_S, HORIZON_S)
    return rate, state


def poisson(rates: np.ndarray, seed: int = 3) -> list[float]:
    return np.random.default_rng(seed).poisson(rates).astype(float).tolist()


def test_a_constant_rate_is_forecast_with_the_error_of_chance():
    rate, _ = after(poisson(np.full(3600, 20.0)))
    assert rate.mean == pytest.approx(20.0, rel=0.05)
    assert rate.error < 0.06 * 20.0


def test_after_steps_a_short_window_is_used_and_after_clumps_a_long_one():
    steps = np.repeat(np.tile([5.0, 50.0], 6), 600)
    clumps = np.where(np.arange(7200) % 20 < 2, 100.0, 0.0)
    _, of_steps = after(poisson(steps))
    _, of_clumps = after(poisson(clumps))
    assert of_steps.used % len(WINDOWS) < of_clumps.used % len(WINDOWS)


def test_a_ramp_is_continued_and_named():
    rate, _ = after(poisson(np.linspace(10.0, 200.0, 1200)))
    then = 200.0 + 190.0 / 1200 * STARTUP_S
    assert rate.kind != "mean"
    assert rate.mean == pytest.approx(then, rel=0.08)


def test_growth_by_a_share_is_continued():
    rate, _ = after(poisson(5.0 * 1.15 ** (np.arange(1200) / 60.0)))
    assert rate.mean == pytest.approx(5.0 * 1.15 ** ((1200 + STARTUP_S) / 60.0), rel=0.12)


def test_the_guarded_rate_covers_what_comes():
    rates = np.repeat(np.random.default_rng(5).uniform(5.0, 15.0, 60), 120)
    arrivals, state, total, covered = poisson(rates), RateState(), 0.0, []
    for k, n in enumerate(arrivals):
        total += n
        rate, state = forecast(state, float(k), total, STARTUP_S, HORIZON_S)
        if k > 600 and k + 60 < len(arrivals):
            covered.append(sum(arrivals[k + 1 : k + 61]) / 60.0 <= rate.guarded)
    assert np.mean(covered) > 0.7


def test_a_gap_says_nothing_of_the_rate():
    _, known = after(poisson(np.full(3600, 20.0)))
    fresh = restarted(known, 10_000.0, 500_000.0)
    rate, _ = forecast(fresh, 10_010.0, 500_200.0, STARTUP_S, HORIZON_S)
    assert rate.mean == pytest.approx(20.0)
    assert (fresh.errors, fresh.used) == (known.errors, known.used)


def test_no_arrivals_are_no_rate():
    rate, _ = after([0.0] * 300)
    assert rate == Rate(0.0, 0.0, rate.window_s, rate.kind)


def test_the_state_is_bounded():
    _, state = after(poisson(np.full(7200, 3.0)))
    assert len(state.times) < 200
    assert len(state.pending) < 50
    assert all(math.isfinite(e) for e in state.errors)
