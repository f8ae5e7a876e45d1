"""The stabilization window: what was needed within it is kept, and it grows with regretted removals."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tierserve.autoscale.decide import GatewaySample, Observation, Settings, State, decide
from tierserve.autoscale.stabilization import (
    HORIZONS,
    LEAST_S,
    LONGEST_S,
    Stabilization,
    block_s,
    longest_s,
    stabilized,
    window_s,
)

SETTINGS = Settings(target_s=2.0, startup_s=20.0)
BLOCK_S = 20.0


def at(t: float, target: int) -> Observation:
    return Observation(t, target, target, 1, 100)


def test_the_largest_recommendation_of_the_window_is_kept():
    state, highest = Stabilization(), 0
    for t, n in ((0.0, 3), (10.0, 9), (20.0, 4), (100.0, 5)):
        highest, state = stabilized(state, at(t, 9), n, 120.0)
    assert highest == 9
    highest, state = stabilized(state, at(131.0, 9), 2, 120.0)
    assert highest == 5


def test_the_window_is_some_start_up_times_and_at_least_half_a_minute():
    assert window_s(20.0, SETTINGS, 1.0, Stabilization()) == HORIZONS * 20.0
    assert window_s(1.0, SETTINGS, 1.0, Stabilization()) == LEAST_S


@pytest.mark.parametrize("given", [0.0, 60.0, 3600.0])
def test_a_window_that_is_given_is_kept_to_whatever_happens(given):
    settings = replace(SETTINGS, stabilization_window_s=given)
    assert window_s(20.0, settings, 5.0, Stabilization(factor=8.0)) == given
    assert longest_s(20.0, settings) >= given
    assert block_s(20.0, settings) <= max(given, 1.0)


def test_a_surplus_is_removed_when_it_has_stood_for_the_window_that_is_given():
    settings = replace(SETTINGS, stabilization_window_s=60.0)
    state, target, lowered = State(), 4, math.nan
    for k in range(200):
        arrivals = min(k, 20) * 4.0  # four a second for twenty seconds, then none
        busy = 4.0 if k <= 20 else 0.0
        gateway = GatewaySample(float(k), arrivals, 0.0, busy, answered=arrivals, late=0.0, bypassed=0.0)
        obs = Observation(float(k), 4, target, 1, 100, {}, gateway)
        decision, state = decide(obs, state, settings)
        if decision.replicas < target and math.isnan(lowered):
            lowered = float(k)
        target = decision.replicas
    assert target == 1
    assert 60.0 <= lowered <= 90.0


def test_late_responses_lengthen_the_window():
    assert window_s(20.0, SETTINGS, 5.0, Stabilization()) == 5.0 * HORIZONS * 20.0
    assert longest_s(20.0, SETTINGS) >= 30.0 * HORIZONS * 20.0


def test_a_regretted_removal_lengthens_the_window_and_one_that_stands_shortens_it():
    lowered = Stabilization().after(at(0.0, 5), 4, 120.0, BLOCK_S)
    regretted = lowered.after(at(60.0, 4), 5, 120.0, BLOCK_S)
    assert regretted.factor > 1.0
    assert window_s(20.0, SETTINGS, 1.0, regretted) > window_s(20.0, SETTINGS, 1.0, lowered)
    again = regretted.after(at(1000.0, 5), 4, 480.0, BLOCK_S)
    stood = again.after(at(1500.0, 4), 4, 480.0, BLOCK_S)
    assert stood.factor < regretted.factor
    assert stood.lowered is None


def test_a_rise_long_after_a_removal_is_no_regret():
    lowered = Stabilization().after(at(0.0, 5), 4, 120.0, BLOCK_S)
    assert lowered.after(at(500.0, 4), 5, 120.0, BLOCK_S).factor == 1.0


def test_regret_is_bounded():
    state = Stabilization()
    for k in range(50):
        held = window_s(20.0, SETTINGS, 1.0, state)
        state = state.after(at(k * 10.0, 5), 4, held, BLOCK_S).after(at(k * 10.0 + 5.0, 4), 5, held, BLOCK_S)
    assert window_s(20.0, SETTINGS, 1.0, state) == LONGEST_S
    assert state.factor * HORIZONS * 20.0 <= 4.0 * LONGEST_S
