"""From step counters of replicas to the profile that decisions are made with."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from tierserve.autoscale.calibration.profile import (
    FOLLOWED,
    STILL,
    CalibrationState,
    apply_calibration,
    report,
    update_calibration,
)
from tierserve.autoscale.decide import Observation, ReplicaSample, Settings, State, decide
from tierserve.autoscale.types import StepCounts
from tierserve.queueing.batching.profile import BatchProfile

TRUE = BatchProfile(alpha=0.01, beta=5e-4, gamma=5e-6)
GIVEN = BatchProfile(TRUE.alpha * 0.6, TRUE.beta * 0.6, TRUE.gamma * 0.6)
SLOTS, INPUT, OUTPUT = 16, 100.0, 50.0
NAN, INF = math.nan, math.inf
SETTINGS = Settings(
    4.0, service_s=GIVEN.service_time(SLOTS, INPUT, OUTPUT), slots=SLOTS, profile=GIVEN, input_tokens=INPUT,
    output_tokens=OUTPUT,
)  # fmt: skip
ZERO = StepCounts(*([0.0] * len(StepCounts._fields)))


def after(counts: StepCounts, requests: float, batch: float, profile: BatchProfile = TRUE) -> StepCounts:
    """Return the counters after so many requests more in such a batch."""
    steps = requests * OUTPUT
    new = (
        requests, requests * INPUT, requests * OUTPUT,
        requests, requests * profile.prefill(batch, INPUT, OUTPUT), requests * batch,
        steps, steps * profile.decode(batch, INPUT, OUTPUT), steps * batch,
    )  # fmt: skip
    return StepCounts(*(a + b for a, b in zip(counts, new, strict=True)))


def seen(t: float, steps: Mapping[str, StepCounts]) -> Observation:
    n = len(steps)
    return Observation(t, n, n, 1, 10 * n, {name: ReplicaSample(t, t) for name in steps}, steps=steps)


def batch_at(tick: int) -> float:
    return 1.0 + (tick * 7) % (SLOTS - 1)


def learn(
    ticks: int,
    steps: CalibrationState | None = None,
    counts: StepCounts = ZERO,
    profile: BatchProfile = TRUE,
    batch: float | None = None,
    settings: Settings = SETTINGS,
) -> tuple[CalibrationState | None, StepCounts]:
    """One replica that finishes twenty requests between two decisions."""
    for k in range(ticks):
        t = counts.completions / 20.0
        steps = update_calibration(steps, seen(t, {"a": counts}), settings)
        counts = after(counts, 20.0, batch or batch_at(k), profile)
    return steps, counts


def used(steps: CalibrationState | None) -> bool:
    return apply_calibration(SETTINGS, steps) is not SETTINGS


def test_the_measured_profile_takes_the_place_of_the_one_given_once_it_is_sure():
    early, counts = learn(5)
    assert not used(early)
    late, _ = learn(60, early, counts)
    assert used(late)
    settings = apply_calibration(SETTINGS, late)
    measured, true = (p.service_time(SLOTS, INPUT, OUTPUT) for p in (settings.profile, TRUE))
    assert measured == pytest.approx(true, rel=0.03)
    assert settings.service_s == pytest.approx(true, rel=0.03)
    assert replace(settings, profile=GIVEN, service_s=SETTINGS.service_s) == SETTINGS
    figures = report(late, settings)
    assert figures.profile_error == pytest.approx(-0.4, abs=0.02)
    assert (figures.used, figures.drift) == (True, False)


def test_without_a_profile_nothing_is_learned_and_no_decision_differs():
    bare = replace(SETTINGS, profile=None)
    assert learn(60, settings=bare)[0] is None
    states, counts = [State(), State()], ZERO
    for k in range(100):
        t = float(k)
        decisions = []
        for j, tells in enumerate((True, False)):
            obs = seen(t, {"a": counts})
            decision, states[j] = decide(obs if tells else replace(obs, steps={}), states[j], bare)
            decisions.append(decision)
        assert decisions[0] == decisions[1]
        counts = after(counts, 20.0, batch_at(k))


def test_replicas_that_do_not_tell_leave_the_profile_as_given():
    steps = None
    for k in range(100):
        steps = update_calibration(steps, replace(seen(float(k), {"a": ZERO}), steps={}), SETTINGS)
    assert not used(steps)
    assert report(steps, SETTINGS) is None


def test_answers_that_the_engine_did_not_time_are_not_taken_for_times_of_zero():
    steps, counts = learn(50)
    steps = update_calibration(steps, seen(50.0, {"a": counts}), SETTINGS)
    untimed = counts._replace(completions=counts.completions + 100.0, input_tokens=counts.input_tokens + 1e4)
    later = update_calibration(steps, seen(51.0, {"a": untimed}), SETTINGS)
    assert later.followed != steps.followed  # it was looked at
    assert later.calibration == steps.calibration


def test_one_request_at_a_time_does_not_tell_what_a_full_batch_costs():
    steps, counts = None, ZERO
    for k in range(400):
        steps = update_calibration(steps, seen(float(k), {"a": counts}), SETTINGS)
        counts = after(counts, 20.0, 1.0)._replace(prefills=0.0, prefill_seconds=0.0, prefill_batch=0.0)
    figures = report(steps, SETTINGS)
    assert figures.error < 0.01
    assert figures.relative_std > 0.2
    assert not used(steps)


@pytest.mark.parametrize(
    "bad",
    [
        *(lambda c, v=v, f=f: c._replace(**{f: v}) for f in StepCounts._fields for v in (NAN, INF, -1.0, 1e300)),
        lambda c: c._replace(decode_seconds="soon"),
        lambda c: c._replace(prefill_batch=None),
        lambda c: c._replace(decode_seconds=c.decode_seconds + 1e9),
        lambda c: c._replace(decode_batch=c.decode_batch + 1e9),
        lambda c: c._replace(prefill_seconds=c.prefill_seconds + 1e9),
        lambda c: c._replace(completions=c.completions + 1e9),
        lambda c: ZERO,
        lambda c: StepCounts(*(v / 2.0 for v in c)),
    ],
)
def test_nonsense_leaves_what_is_known_unharmed(bad):
    """Every fifth report is broken."""
    steps, counts = learn(100)
    for k in range(200):
        t = 100.0 + k
        told_counts = bad(counts) if k % 5 == 0 else counts
        steps = update_calibration(steps, seen(t, {"a": told_counts}), SETTINGS)
        counts = after(counts, 20.0, batch_at(k))
    profile = apply_calibration(SETTINGS, steps).profile
    for n in (1, 4, SLOTS):
        assert profile.service_time(n, INPUT, OUTPUT) == pytest.approx(TRUE.service_time(n, INPUT, OUTPUT), rel=0.05)


def test_a_restart_is_gone_on_from():
    steps, _ = learn(3)
    again, _ = learn(60, steps)
    assert used(again)
    assert report(again, SETTINGS).profile_error == pytest.approx(-0.4, abs=0.02)


def test_a_machine_that_becomes_slower_is_told_of_and_followed():
    slow = BatchProfile(TRUE.alpha * 2, TRUE.beta * 2, TRUE.gamma * 2)
    steps, counts = learn(300)
    soon, counts = learn(10, steps, counts, slow)
    assert report(soon, SETTINGS).drift
    later, _ = learn(200, soon, counts, slow)
    profile = apply_calibration(SETTINGS, later).profile
    assert profile.service_time(SLOTS, INPUT, OUTPUT) == pytest.approx(
        2 * TRUE.service_time(SLOTS, INPUT, OUTPUT), rel=0.05
    )


@pytest.mark.parametrize(("configured", "expected"), [(0.3, True), (1.0, False)])
def test_where_times_waver_the_measured_profile_is_used_if_it_is_much_better_than_the_one_given(configured, expected):
    """Each request takes up to half as long again, or half as long, as on a machine that others use too."""
    prior = BatchProfile(*(configured * v for v in (TRUE.alpha, TRUE.beta, TRUE.gamma)))
    settings = replace(SETTINGS, profile=prior)
    steps, counts, seeds = None, ZERO, random.Random(4)
    for k in range(300):
        steps = update_calibration(steps, seen(float(k), {"a": counts}), settings)
        speed = math.exp(seeds.gauss(0.0, 0.3))
        profile = BatchProfile(*(speed * v for v in (TRUE.alpha, TRUE.beta, TRUE.gamma)))
        counts = after(counts, 20.0, batch_at(k), profile)
    figures = report(steps, settings)
    assert 0.1 < figures.error < 0.4
    assert figures.used == expected
    assert figures.profile_error == pytest.approx(configured - 1.0, abs=0.15)


def test_another_profile_given_is_a_new_beginning():
    steps, counts = learn(100)
    other = replace(SETTINGS, profile=TRUE)
    begun = update_calibration(steps, seen(100.0, {"a": counts}), other)
    assert report(begun, other) is None
    assert apply_calibration(other, begun) is other


def test_the_profile_in_use_stays_still_while_the_measured_one_wavers():
    steps, counts = learn(200)
    steps = replace(steps, used=steps.calibration.profile)
    before = apply_calibration(SETTINGS, steps).profile
    slower = BatchProfile(*(v * (1.0 + STILL / 3.0) for v in (TRUE.alpha, TRUE.beta, TRUE.gamma)))
    steps, _ = learn(100, steps, counts, slower)
    assert steps.calibration.profile != before
    assert apply_calibration(SETTINGS, steps).profile == before


class Asked(Mapping[str, StepCounts]):
    """Counts who is asked for."""

    def __init__(self, counts: dict[str, StepCounts]) -> None:
        self.counts, self.asked = counts, list[str]()

    def __getitem__(self, name: str) -> StepCounts:
        self.asked.append(name)
        return self.counts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.counts)

    def __len__(self) -> int:
        return len(self.counts)


def test_of_many_replicas_a_few_are_asked_in_a_decision_and_all_in_turn():
    counts = dict.fromkeys((f"r{k}" for k in range(100)), ZERO)
    steps, names = None, set()
    for k in range(200):
        asked = Asked(counts)
        steps = update_calibration(steps, seen(float(k), asked), SETTINGS)
        assert len(asked.asked) <= 2 * FOLLOWED
        names.update(asked.asked)
        counts = {name: after(one, 20.0, batch_at(k)) for name, one in counts.items()}
    assert names == set(counts)
    assert len(steps.followed) == FOLLOWED
    assert used(steps)


def test_idle_replicas_make_room_for_those_that_work():
    counts = dict.fromkeys((f"r{k}" for k in range(40)), ZERO)
    steps = None
    for k in range(1000):
        steps = update_calibration(steps, seen(2.0 * k, counts), SETTINGS)
        counts = counts | {"r39": after(counts["r39"], 20.0, batch_at(k))}
    assert report(steps, SETTINGS) is not None


def test_replicas_that_go_are_forgotten():
    steps, _ = learn(3)
    gone = update_calibration(steps, seen(4.0, {"b": ZERO}), SETTINGS)
    assert set(gone.followed) == {"b"}


def test_a_decision_tells_the_measured_profile_and_a_held_one_the_last():
    state, counts = State(), ZERO
    for k in range(100):
        decision, state = decide(seen(float(k), {"a": counts}), state, SETTINGS)
        counts = after(counts, 20.0, batch_at(k))
    assert decision.calibration.used
    assert decision.to_dict()["calibration"]["alpha"] == decision.calibration.alpha
    held, _ = decide(Observation(101.0, 1, 1, 1, 10), state, SETTINGS)
    assert held.stale
    assert held.calibration == decision.calibration
