"""The table of the decision's constants: all of them are in it, and a change of one reaches all that use it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from bench.robust.judge import Row
from bench.robust.sensitivity import CONSTANTS, FACTORS, NOT_VARIED, Constant, Effect, changed, line, modules, numbers

from tierserve.autoscale import budget, calibration, stabilization

ROW = Row("steps-1", "steps", "", "ours", 0.97, True, 10.0, 1.0, 0.9, 1.0, stationary=False, daily=False)
NAMES = [f"{one.module}.{one.name}" for one in CONSTANTS]
FIXED = [name for _, names in NOT_VARIED for name in names]


def test_every_number_of_the_decision_is_in_one_of_the_lists() -> None:
    # a new one belongs into CONSTANTS, with its reason, or into NOT_VARIED
    assert sorted(numbers()) == sorted(NAMES + FIXED)
    assert max(Counter(NAMES + FIXED).values()) == 1


@pytest.mark.parametrize("constant", CONSTANTS, ids=NAMES)
def test_a_constant_is_changed_wherever_it_is_bound_and_restored(constant: Constant) -> None:
    shipped = constant.value
    before = {one.__name__: getattr(one, constant.name, None) for one in modules()}
    for factor in FACTORS:
        value = constant.times(factor)
        assert value != shipped
        assert type(value) is type(shipped)
        with changed(constant, value) as bound:
            assert constant.owner in bound
            assert constant.value == value
            assert not any(getattr(one, constant.name, None) is shipped for one in modules())
    assert {one.__name__: getattr(one, constant.name, None) for one in modules()} == before


def test_an_imported_constant_is_changed_too_and_one_of_the_same_name_is_not() -> None:
    with changed(_named("budget", "MOST"), 7.0):
        assert budget.MOST == stabilization.MOST == 7.0
    with changed(_named("stabilization", "LONGEST_S"), 7.0):
        assert stabilization.LONGEST_S == 7.0 != calibration.LONGEST_S


def test_a_constant_is_restored_after_an_error() -> None:
    constant = _named("budget", "MOST")
    shipped = constant.value
    with pytest.raises(ValueError, match="in the run"), changed(constant, 7.0):
        raise ValueError("in the run")
    assert budget.MOST == stabilization.MOST == shipped


def test_of_a_factor_near_one_the_distance_is_halved_and_doubled() -> None:
    down = _named("budget", "_DOWN")
    assert [down.times(factor) for factor in FACTORS] == pytest.approx([0.975, 0.9])


def test_a_row_shows_what_differs_from_the_shipped_value() -> None:
    same = Effect.of([ROW], [ROW])
    worse = Effect.of([replace(ROW, share=0.9, met=False, gpu_hours=9.0)], [ROW])
    text = line(_named("budget", "_CALM"), [same, worse], met=1)
    assert text.startswith("| `budget._CALM` | 0.5 | ")
    assert text.endswith("| 0.25 | same |  |  | 1 | **0** | **0.900** | 1.00 |")


def _named(module: str, name: str) -> Constant:
    return next(one for one in CONSTANTS if (one.module, one.name) == (module, name))
