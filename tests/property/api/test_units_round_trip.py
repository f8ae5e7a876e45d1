"""Any text of a unit's pattern is read, kept, and worth what its parts say."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierserve.api.schema import cel
from tierserve.api.units import Amount, BitRate, Duration, Mass, Power, Quantity, Unit

KINDS = [Quantity, Amount, Duration, BitRate, Power, Mass]


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_a_text_of_the_pattern_is_kept_and_worth_a_finite_amount(kind: type[Unit], data: st.DataObject) -> None:
    text = data.draw(st.from_regex(kind.pattern.replace("[0-9]+", "[0-9]{1,8}"), fullmatch=True))
    if len(text) > kind.max_length:
        with pytest.raises(ValueError, match="such as"):
            kind(text)
        return
    unit = kind(text)
    assert str(unit) == text
    assert unit == kind(unit)
    assert math.isfinite(unit.value)
    assert unit.value >= 0


@given(st.integers(0, 10**9), st.sampled_from(sorted(Quantity.factors)))
def test_a_quantity_is_its_number_times_its_suffix(number: int, suffix: str) -> None:
    assert Quantity(f"{number}{suffix}").value == pytest.approx(number * Quantity.factors[suffix], rel=1e-15)


@given(st.integers(0, 10**6), st.integers(0, 59), st.integers(0, 999))
def test_a_duration_is_the_sum_of_its_parts(hours: int, minutes: int, millis: int) -> None:
    if hours < 10**6:
        expected = hours * 3600 + minutes * 60 + millis / 1000
        assert Duration(f"{hours}h{minutes}m{millis}ms").value == pytest.approx(expected, rel=1e-14)


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_cel_orders_durations_down_to_nanoseconds(one: int, other: int) -> None:
    verdict = cel.evaluate(f"duration('{one % 10**9}ns') < duration('{other % 10**9}ns')", {})
    assert bool(verdict) == (one % 10**9 < other % 10**9)


@given(st.text(max_size=40))
def test_any_other_text_is_a_value_error_and_nothing_else(text: str) -> None:
    for kind in KINDS:
        try:
            assert str(kind(text)) == text
        except ValueError:
            continue
