"""What experience teaches of the replicas that must stand ready."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest

from tierserve.autoscale.standby.rules import (
    ALIKE,
    HEADROOM,
    HOLD_S,
    LOYALTY,
    MOST_STEPS,
    STANDING,
    Arrivals,
    ShadowPool,
    StandbySettings,
    StandbyState,
    learn,
)

pytestmark = pytest.mark.slow  # runs are simulated

SETTINGS = StandbySettings(startup_s=60.0, slack_s=5.0)


def played(load: list[float], settings: StandbySettings = SETTINGS, late: float = 0.0) -> StandbyState:
    """The state after so many replicas' worth of work in each second, ten requests a replica-second."""
    state = StandbyState()
    for work in load:
        requests = 10.0 * work
        state = learn(state, Arrivals(1.0, work, requests, requests, late * requests), settings)
    return state


def spiky(high: float, every: int, length: int = 7200) -> list[float]:
    """A replica's worth of work, and for ten seconds of every so many as much as `high`."""
    return [high if k % every < 10 else 1.0 for k in range(length)]


def test_nothing_is_wanted_before_anything_was_learned() -> None:
    assert StandbyState().replicas(0.0, SETTINGS) == 0
    assert StandbyState().reason == "no standby rule selected yet"


def test_a_constant_load_is_borne_by_what_just_bears_it() -> None:
    wanted = played([8.0] * 3600).replicas(0.0, SETTINGS)
    assert 8 <= wanted <= 10


def test_the_target_stands_still_while_the_load_does() -> None:
    rng, state, seen = random.Random(1), StandbyState(), set()
    for k in range(3 * 3600):
        work = sum(rng.expovariate(10.0) for _ in range(80))
        state = learn(state, Arrivals(1.0, work, 80.0, 80.0, 0.0), SETTINGS)
        if k > 2 * 3600:
            seen.add(state.replicas(0.0, SETTINGS))
    assert len(seen) == 1


def test_for_bursts_shorter_than_a_start_replicas_stand_ready() -> None:
    bursts = played(spiky(20.0, 300)).replicas(0.0, SETTINGS)
    # ten seconds of 20 replicas' work, of which five seconds' worth may wait
    assert 12 <= bursts <= 20
    assert played([1.0] * 7200).replicas(0.0, SETTINGS) <= 2


def test_bursts_so_rare_that_they_may_be_missed_are_not_paid_for() -> None:
    # 10 s of 3 replicas' work in an hour of 30: under a hundredth
    load = [3.0 if k % 3600 < 3 else 1.0 for k in range(3 * 3600)]
    assert played(load).replicas(0.0, SETTINGS) <= 3


def test_the_paper_replicas_serve_a_start_up_time_after_they_were_asked_for() -> None:
    state = played([1.0] * 600 + [30.0] * 59)
    grown = STANDING.index(1.0)  # stands on nothing: W = 0, h = 1
    rule = HEADROOM.index(1.0) * len(STANDING) + grown
    assert state.shadow.serving()[rule] <= 2
    assert state.shadow.asked[rule] >= 25
    state = played([1.0] * 600 + [30.0] * 180)
    assert state.shadow.serving()[rule] >= 25


def test_the_least_of_a_start_up_time_is_found_whatever_the_step() -> None:
    """Beside the same taken over the list itself."""
    rng = np.random.default_rng(3)
    state, asked = played([5.0] * 121), []
    state = replace(state, shadow=ShadowPool())
    for work in rng.uniform(0.0, 10.0, 3 * MOST_STEPS + 17):
        state = learn(state, Arrivals(SETTINGS.step_s, work, 1.0), SETTINGS)
        asked.append(state.shadow.asked)
        if len(asked) >= MOST_STEPS:
            assert np.array_equal(state.shadow.serving(), np.min(asked[-MOST_STEPS:], axis=0))


@pytest.mark.parametrize(
    ("startup_s", "steps", "step_s"), [(0.2, 1, 0.5), (3.0, 6, 0.5), (30.0, 60, 0.5), (120.0, 60, 2.0)]
)
def test_a_short_start_is_as_short_on_paper(startup_s: float, steps: int, step_s: float) -> None:
    settings = StandbySettings(startup_s, slack_s=5.0)
    assert (settings.steps, settings.step_s) == (steps, step_s)
    state = played([1.0] * 600 + [30.0] * int(5 + 2 * startup_s), settings)
    rule = HEADROOM.index(1.0) * len(STANDING)  # W = 0, h = 1, stands on nothing
    assert state.shadow.serving()[rule] >= 15


def test_late_answers_in_truth_make_it_stricter_and_their_absence_laxer() -> None:
    load = spiky(12.0, 300)
    strict, true, lax = (played(load, late=share) for share in (0.1, 0.01, 0.0))
    assert strict.trust < true.trust <= lax.trust  # type: ignore[operator]
    assert strict.replicas(0.0, SETTINGS) >= lax.replicas(0.0, SETTINGS)


def test_of_rules_that_cost_about_the_same_the_one_followed_is_followed_on() -> None:
    state = played([4.0] * 1800)
    cheapest, missed = float(state.shadow.cost.min()), np.zeros(state.shadow.cost.size)
    for dearer, followed in ((0.5 * LOYALTY, 7), (2.0 * LOYALTY, 0)):
        cost = np.full(state.shadow.cost.size, 2.0 * cheapest)
        cost[0], cost[7] = cheapest, cheapest * (1.0 + dearer)
        shadow = replace(state.shadow, cost=cost, missed=missed)
        later = learn(replace(state, shadow=shadow, rule=7), Arrivals(SETTINGS.step_s, 0.0, 0.0), SETTINGS)
        assert later.rule == followed


def test_of_rules_as_cheap_the_one_that_gives_up_replicas_the_least_often_is_followed() -> None:
    state = played([4.0] * 1800)
    cheapest, none = float(state.shadow.cost.min()), np.zeros(state.shadow.cost.size)
    cost, drops = np.full(none.size, 2.0 * cheapest), none + 50.0
    cost[[0, 7, 9]] = cheapest, cheapest * (1.0 + 0.5 * ALIKE), cheapest * (1.0 + 2.0 * LOYALTY)
    drops[[0, 7, 9]] = 20.0, 3.0, 0.0
    for followed in (None, 0, 9):  # a rule that is followed gives way to a steadier one too
        shadow = replace(state.shadow, cost=cost, missed=none, drops=drops)
        later = learn(replace(state, shadow=shadow, rule=followed), Arrivals(SETTINGS.step_s, 0.0, 0.0), SETTINGS)
        assert later.rule == 7


def test_of_rules_as_steady_and_with_as_few_late_the_cheapest_is_followed() -> None:
    state = played([4.0] * 1800)
    cheapest, none = float(state.shadow.cost.min()), np.zeros(state.shadow.cost.size)
    cost, missed = np.full(none.size, 2.0 * cheapest), none + 5.0
    for k, dearer, late in ((3, 0.0, 2.0), (7, 0.3, 1.0), (9, 0.6, 1.0)):
        cost[k], missed[k] = cheapest * (1.0 + dearer * ALIKE), late
    shadow = replace(state.shadow, cost=cost, missed=missed, drops=none)
    later = learn(replace(state, shadow=shadow, rule=None), Arrivals(SETTINGS.step_s, 0.0, 0.0), SETTINGS)
    assert later.rule == 7


def test_a_replica_given_up_counts_and_so_does_one_that_a_tenth_more_load_would_have_cost() -> None:
    rule = HEADROOM.index(1.0) * len(STANDING)  # W = 0, h = 1, stands on nothing
    level, near = played([1.5] * 1800), played([1.9 if k // 300 % 2 else 1.7 for k in range(1800)])
    assert level.shadow.drops[rule] == 0.0
    assert 1.0 < near.shadow.drops[rule] < 4.0  # two replicas all along; three and two in turns with a tenth more
    turns = played([2.5 if k // 300 % 2 else 1.5 for k in range(1800)])
    assert turns.shadow.drops[rule] > near.shadow.drops[rule]
    assert turns.shadow.cost[rule] > near.shadow.cost[rule] + SETTINGS.startup_s


def test_what_waits_on_paper_no_longer_than_it_may_asks_for_nobody() -> None:
    rule = STANDING.index(1.0)  # W = 0, the least headroom, stands on nothing
    state = played([1.0] * 600)
    for waits, helpers in ((0.9 * SETTINGS.slack_s, 0.0), (SETTINGS.slack_s + 1.5 * SETTINGS.drain_s, 2.0)):
        shadow = replace(state.shadow, backlog=np.full(state.shadow.backlog.size, waits))
        later = learn(replace(state, shadow=shadow), Arrivals(SETTINGS.step_s, 1.0, 10.0), SETTINGS)
        assert later.shadow.asked[rule] == 1.0 + helpers


def test_a_rise_that_is_forecast_is_met_by_a_rule_that_goes_by_it() -> None:
    """Six hours of a load that is fourfold for ten minutes of each: with the forecast nobody stands ready meanwhile."""
    load = [4.0 if k % 3600 < 600 else 1.0 for k in range(6 * 3600)]
    lead = int(SETTINGS.startup_s)
    told, untold = StandbyState(), StandbyState()
    stood = [0, 0]
    for k, work in enumerate(load):
        arrivals = Arrivals(1.0, work, 10.0 * work, 10.0 * work, 0.0)
        told = learn(told, arrivals, SETTINGS, load[min(k + lead, len(load) - 1)])
        untold = learn(untold, arrivals, SETTINGS)
        if k > 4 * 3600:
            stood[0] += told.replicas(0.0, SETTINGS)
            stood[1] += untold.replicas(0.0, SETTINGS)
    assert "forecast" in told.reason
    assert stood[0] < 0.6 * stood[1]


def test_what_waits_in_truth_is_worked_off_in_the_time_of_a_start() -> None:
    state = played([4.0] * 1800)
    assert state.replicas(600.0, SETTINGS) == state.replicas(0.0, SETTINGS) + 10


def test_seconds_may_come_in_any_portions() -> None:
    one = played([5.0] * 1200)
    state = StandbyState()
    for _ in range(600):
        state = learn(state, Arrivals(2.0, 10.0, 100.0, 100.0, 0.0), SETTINGS)
    assert state.replicas(0.0, SETTINGS) == one.replicas(0.0, SETTINGS)


def test_arrays_of_a_state_are_never_written_to() -> None:
    state = played(spiky(9.0, 100, 500))
    names = ("lowest", "asked", "with_margin", "backlog", "missed", "cost", "drops")
    kept = {name: getattr(state.shadow, name).copy() for name in names}
    learn(state, Arrivals(30.0, 300.0, 100.0, 50.0, 10.0), SETTINGS)
    for name, value in kept.items():
        assert np.array_equal(getattr(state.shadow, name), value), name


def test_the_rule_is_told_in_words() -> None:
    state = played(spiky(20.0, 300))
    assert state.reason.startswith(tuple(f"standby rule ({head:g} x" for head in HEADROOM))
    assert "of the last" in state.reason and "at least" in state.reason
    assert (len(HOLD_S) + 1) * len(HEADROOM) * len(STANDING) == state.shadow.cost.size
    assert "current or forecast load" in replace(state, rule=state.shadow.cost.size - 1).reason


@pytest.mark.parametrize(
    ("name", "value"), [("slack_s", 0.0), ("may_miss", 0.0), ("startup_s", -1.0), ("trust", math.nan)]
)
def test_a_setting_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be"):
        StandbySettings(**{"startup_s": 60.0, "slack_s": 5.0, name: value})
