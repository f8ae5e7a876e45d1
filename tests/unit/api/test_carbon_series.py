"""A carbon intensity over time is read, and a gap in it is not zero."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierserve.api.carbon_series import HOLDS_S, SERIES_PATTERN, carbon_series

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()


def test_a_day_repeats_and_its_last_value_holds_over_midnight() -> None:
    day = carbon_series("time,gCO2e/kWh\n06:00,300\n12:00,90\n18:30,420\n")
    assert [day.at(NOON + hours * 3600) for hours in (0, 6, 7, 13, 18, 24)] == [90, 90, 420, 420, 300, 90]


def test_a_dated_series_is_known_from_its_first_value_until_six_hours_after_its_last() -> None:
    series = carbon_series("2026-06-01T12:00:00Z,100\n2026-06-01T15:00:00+02:00,200")
    assert series.at(NOON - 1) is None
    assert series.at(NOON) == 100
    assert series.at(NOON + 3600) == 200
    assert series.at(NOON + 3600 + HOLDS_S) == 200
    assert series.at(NOON + 3601 + HOLDS_S) is None


def test_the_mean_weighs_values_by_how_long_they_hold() -> None:
    assert carbon_series("00:00,100\n06:00,200").mean == pytest.approx(175.0)
    assert carbon_series("2026-06-01T00:00:00Z,100\n2026-06-01T06:00:00Z,200\n2026-06-01T08:00:00Z,5").mean == 125.0


def test_lines_may_be_in_any_order_and_the_later_of_two_with_one_time_holds() -> None:
    assert carbon_series("12:00,90\n06:00,300\n12:00,80\n").values == (300.0, 80.0)


@pytest.mark.parametrize(
    "text",
    ["06:00,300", "time,gCO2e/kWh\n06:00,300.5\n12:00,90\n", "2026-06-01T12:00:00Z,1\n2026-06-01T12:30+02:00,2"],
)
def test_what_the_schema_takes_is_read(text: str) -> None:
    assert re.fullmatch(SERIES_PATTERN, text)
    assert carbon_series(text).values


@pytest.mark.parametrize(
    "text",
    ["", "a", "00:00,", "00:00,nan", "00:00,-3", "00:00,90000", "25:00,3", "06:00,3\n2026-06-01T12:00:00Z,4", "6:00,3"],
)
def test_what_is_no_series_is_refused_by_the_schema(text: str) -> None:
    assert not re.fullmatch(SERIES_PATTERN, text)


@given(st.from_regex(SERIES_PATTERN, fullmatch=True))
def test_everything_that_the_schema_takes_is_read(text: str) -> None:
    series = carbon_series(text)
    assert list(series.times) == sorted(set(series.times))
    assert series.at(series.times[0]) is not None
