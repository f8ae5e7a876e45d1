"""A climb of the arrivals is met ahead, chance and steps are not."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from tierserve.autoscale.history import History, Mark
from tierserve.autoscale.trend import around_growth, line, ramp_rate

AHEAD_S = 104.0
GROWTH = math.log(1.1) / 60.0


def seen(rate: Callable[[float], float], seconds: float = 330.0, seed: int | None = None) -> History:
    """Arrivals of a rate, by the second; as expected, or by chance."""
    dice = np.random.default_rng(seed)
    marks, total = [Mark(0.0)], 0.0
    for k in range(int(seconds)):
        expected = rate(k + 0.5)
        total += float(dice.poisson(expected)) if seed is not None else expected
        marks.append(Mark(k + 1.0, total))
    return History(marks=tuple(marks))


def growing(rate: float) -> Callable[[float], float]:
    return lambda t: rate * math.exp(GROWTH * t)


def test_growth_by_a_share_arrives_where_it_will_be() -> None:
    assert ramp_rate(seen(growing(100.0)), AHEAD_S) == pytest.approx(growing(100.0)(330.0 + AHEAD_S), rel=0.01)


def test_a_climb_by_a_number_arrives_where_it_will_be() -> None:
    assert ramp_rate(seen(lambda t: 20.0 + t), AHEAD_S) == pytest.approx(20.0 + 330.0 + AHEAD_S, rel=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_growth_of_a_tenth_a_minute_is_seen_at_ten_requests_a_second(seed: int) -> None:
    found = ramp_rate(seen(growing(10.0), seed=seed), AHEAD_S)
    assert found == pytest.approx(growing(10.0)(330.0 + AHEAD_S), rel=0.15)


@pytest.mark.parametrize("rate", [0.5, 5.0, 500.0])
def test_a_constant_load_is_no_climb(rate: float) -> None:
    assert all(ramp_rate(seen(lambda _: rate, seed=seed), AHEAD_S, 1.5) is None for seed in range(200))


def test_a_step_is_no_climb() -> None:
    assert ramp_rate(seen(lambda t: 50.0 if t < 200.0 else 80.0, seed=1), AHEAD_S) is None


@pytest.mark.parametrize("seed", range(5))
def test_a_climb_that_has_ended_is_not_followed(seed: int) -> None:
    ended = seen(lambda t: growing(100.0)(min(t, 230.0)), seed=seed)
    assert ramp_rate(ended, AHEAD_S) is None


def test_what_is_not_known_of_a_climb_is_staffed_for_on_top() -> None:
    history = seen(growing(10.0), seed=1)
    least, guarded = ramp_rate(history, AHEAD_S), ramp_rate(history, AHEAD_S, 1.5)
    many = seen(growing(10_000.0), seed=1)
    assert least is not None and guarded is not None and guarded > 1.03 * least
    assert ramp_rate(many, AHEAD_S, 1.5) == pytest.approx(ramp_rate(many, AHEAD_S), rel=0.01)


def test_a_climb_is_followed_no_further_than_it_was_seen() -> None:
    history = seen(lambda t: 1000.0 + 10.0 * t)
    assert ramp_rate(history, 5000.0) == ramp_rate(history, 500.0)


def test_too_short_a_past_is_no_climb() -> None:
    assert ramp_rate(seen(growing(100.0), seconds=60.0), AHEAD_S) is None


def test_a_line_through_points_of_a_line_leaves_nothing() -> None:
    fit = line([3.0, 5.0, 7.0, 9.0])
    assert (fit.slope, fit.at(4.0), fit.residual) == pytest.approx((2.0, 11.0, 0.0))


def test_growth_is_no_burst() -> None:
    grown = [1000.0 * 1.02**k for k in range(40)]
    assert around_growth(grown) == pytest.approx(0.0, abs=1e-6)
    assert around_growth([1000.0 + 20.0 * k for k in range(40)]) == pytest.approx(0.0, abs=1e-6)
    assert around_growth([1000.0, 3000.0] * 20) > 38 * 1000.0
