"""A carbon intensity over time is read, and a gap in it is not zero."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tierserve.api.carbon_series import HOLDS_S, carbon_series

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()


def test_a_day_repeats_and_its_last_value_holds_over_midnight() -> None:
    day = carbon_series("time,gCO2e/kWh\n06:00,300\n12:00,90\n\n# evening\n18:30,420\n")
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


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "no line"),
        ("00:00,", "line 1"),
        ("00:00,nan", "line 1"),
        ("00:00,-3", "line 1"),
        ("00:00,9000", "line 1"),
        ("25:00,3", "line 1"),
        ("06:00,3\n06:00,4", "line 2"),
        ("06:00,3\n2026-06-01T12:00:00Z,4", "line 2"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(text: str, where: str) -> None:
    with pytest.raises(ValueError, match=where):
        carbon_series(text)
