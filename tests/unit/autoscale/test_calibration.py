"""From step counters of replicas to the profile that decisions are made with."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from pydantic import TypeAdapter

from tierserve.autoscale.calibration import (
    ENOUGH,
    FOLLOWED,
    LONGEST_S,
    MAX_RELATIVE_STD,
    MEMORY,
    PRIOR_SD,
    RECENT,
    STILL,
    CalibrationState,
    apply_calibration,
    report,
    update_calibration,
)
from tierserve.autoscale.decide import Observation, ReplicaSample, Settings, State, decide
from tierserve.autoscale.types import Calibrated, StepCounts
from tierserve.queueing.batching.profile import BatchProfile

TRUE = BatchProfile(alpha=0.01, beta=5e-4, gamma=5e-6)
SLOTS, INPUT, OUTPUT = 16, 100.0, 50.0
NAN, INF = math.nan, math.inf
ZERO = StepCounts(*([0.0] * len(StepCounts._fields)))


def times(factor: float, profile: BatchProfile = TRUE) -> BatchProfile:
    return BatchProfile(*(factor * v for v in (profile.alpha, profile.beta, profile.gamma)))


def full_s(profile: BatchProfile) -> float:
    return profile.service_time(SLOTS, INPUT, OUTPUT)


def configured(profile: BatchProfile) -> Settings:
    return Settings(
        4.0, service_s=full_s(profile), slots=SLOTS, profile=profile, input_tokens=INPUT, output_tokens=OUTPUT
    )


SETTINGS = configured(times(0.6))


def after(
    counts: StepCounts, batch: float, profile: BatchProfile = TRUE, slower: tuple[float, float] = (1.0, 1.0)
) -> StepCounts:
    """Return the counters after twenty requests more in such a batch; prefill and steps may be slower by factors."""
    requests, steps = 20.0, 20.0 * OUTPUT
    new = (
        requests, requests * INPUT, requests * OUTPUT,
        requests, requests * profile.prefill(batch, INPUT, OUTPUT) * slower[0], requests * batch,
        steps, steps * profile.decode(batch, INPUT, OUTPUT) * slower[1], steps * batch,
    )  # fmt: skip
    return StepCounts(*(a + b for a, b in zip(counts, new, strict=True)))


def seen(t: float, steps: Mapping[str, StepCounts]) -> Observation:
    n = len(steps)
    return Observation(t, n, n, 1, 10 * n, {name: ReplicaSample(t, t) for name in steps}, steps=steps)


@dataclass
class Replica:
    """One replica that finishes twenty requests between two decisions, in batches of all sizes."""

    settings: Settings = SETTINGS
    noise: float = 0.0
    outliers: float = 0.0
    seed: int = 0
    state: CalibrationState | None = None
    counts: StepCounts = ZERO
    t: float = 0.0
    chance: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self.chance.seed(self.seed)

    def run(self, ticks: int, profile: BatchProfile = TRUE, batch: float | None = None) -> Replica:
        for _ in range(ticks):
            n = batch or self.chance.uniform(1.0, SLOTS)
            self.counts = after(self.counts, n, profile, (self._error(), self._error()))
            self.look(self.counts)
        return self

    def look(self, counts: StepCounts) -> None:
        self.t += 1.0
        self.state = update_calibration(self.state, seen(self.t, {"a": counts}), self.settings)

    def _error(self) -> float:
        return math.exp(self.chance.gauss(0.0, self.noise)) * (10.0 if self.chance.random() < self.outliers else 1.0)

    @property
    def used(self) -> BatchProfile | None:
        """The profile that is used in place of the configured one."""
        applied = apply_calibration(self.settings, self.state)
        return applied.profile if applied is not self.settings else None

    @property
    def figures(self) -> Calibrated:
        figures = report(self.state, self.settings)
        assert figures
        return figures

    @property
    def error(self) -> float:
        """Relative error of the service time of a full batch as estimated, at the speed of TRUE."""
        return full_s(self.settings.profile) / (1.0 + self.figures.profile_error) / full_s(TRUE) - 1.0


MIXED = BatchProfile(1.4 * TRUE.alpha, 0.5 * TRUE.beta, 0.7 * TRUE.gamma)
WRONG = {"40% too fast": times(0.6), "30% too fast": times(0.7), "40% too slow": times(1.4), "mixed": MIXED,
         "a tenth": times(0.1), "tenfold": times(10.0), "right": TRUE}  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_profile_is_found_within_forty_samples_and_known_better_later(wrong, seed):
    replica = Replica(configured(wrong), noise=0.1, seed=seed).run(20)
    assert abs(replica.error) < 0.08
    assert replica.used
    replica.run(180)
    assert abs(replica.error) < 0.04
    assert replica.figures.error == pytest.approx(0.1, rel=0.4)
    assert not replica.figures.drift


def test_without_noise_all_three_coefficients_are_found():
    replica = Replica(configured(MIXED)).run(200)
    figures = replica.figures
    assert (figures.alpha, figures.beta, figures.gamma) == pytest.approx((TRUE.alpha, TRUE.beta, TRUE.gamma), rel=0.02)


def test_the_measured_profile_takes_the_place_of_the_configured_one_once_it_is_sure():
    replica = Replica().run(5)
    assert replica.figures.samples < ENOUGH
    assert replica.used is None
    replica.run(60)
    assert replica.used
    settings = apply_calibration(SETTINGS, replica.state)
    assert full_s(settings.profile) == pytest.approx(full_s(TRUE), rel=0.03)
    assert settings.service_s == pytest.approx(full_s(TRUE), rel=0.03)
    assert replace(settings, profile=SETTINGS.profile, service_s=SETTINGS.service_s) == SETTINGS
    figures = report(replica.state, settings)
    assert figures
    assert figures.profile_error == pytest.approx(-0.4, abs=0.02)
    assert (figures.used, figures.drift) == (True, False)
    assert figures.relative_std < 0.01


def test_without_a_profile_nothing_is_learned_and_no_decision_differs():
    bare = replace(SETTINGS, profile=None)
    assert Replica(bare).run(60).state is None
    states, counts = [State(), State()], ZERO
    for k in range(100):
        decisions = []
        for j, reports in enumerate((True, False)):
            obs = seen(float(k), {"a": counts})
            decision, states[j] = decide(obs if reports else replace(obs, steps={}), states[j], bare)
            decisions.append(decision)
        assert decisions[0] == decisions[1]
        counts = after(counts, 1.0 + k % SLOTS)


def test_replicas_that_do_not_report_steps_leave_the_profile_as_configured():
    state = None
    for k in range(100):
        state = update_calibration(state, replace(seen(float(k), {"a": ZERO}), steps={}), SETTINGS)
    assert apply_calibration(SETTINGS, state) is SETTINGS
    assert report(state, SETTINGS) is None


def test_answers_that_the_engine_did_not_time_are_not_taken_for_times_of_zero():
    replica = Replica().run(50)
    before, counts = replica.state, replica.counts
    replica.look(counts._replace(completions=counts.completions + 100.0, input_tokens=counts.input_tokens + 1e4))
    assert replica.state.sizes != before.sizes  # the sample was read
    assert replica.state.moments == before.moments


def test_one_request_at_a_time_does_not_show_what_a_full_batch_costs():
    replica = Replica()
    for _ in range(400):
        replica.counts = after(replica.counts, 1.0)
        replica.counts = replica.counts._replace(prefills=0.0, prefill_seconds=0.0, prefill_batch=0.0)
        replica.look(replica.counts)
    assert replica.figures.error < 0.03
    assert MAX_RELATIVE_STD < replica.figures.relative_std < PRIOR_SD
    assert replica.used is None


def test_one_batch_only_is_predicted_well_and_other_batches_teach_the_rest_later():
    replica = Replica(configured(MIXED), noise=0.05).run(1000, batch=6.0)
    measured = replica.state.profile
    assert measured.service_time(6.0, INPUT, OUTPUT) == pytest.approx(TRUE.service_time(6.0, INPUT, OUTPUT), rel=0.02)
    assert not replica.figures.drift
    assert abs(replica.run(100).error) < 0.03


@pytest.mark.parametrize("seed", range(3))
def test_outliers_are_left_out(seed):
    """One time in twenty is ten times as long."""
    replica = Replica(noise=0.1, outliers=0.05, seed=seed).run(500)
    assert abs(replica.error) < 0.05
    assert replica.figures.error == pytest.approx(0.1, rel=0.4)
    assert 0.9 * 1000 < replica.figures.samples < 0.98 * 1000
    assert not replica.figures.drift


BROKEN: list[Any] = [
    *(lambda c, v=v, f=f: c._replace(**{f: v}) for f in StepCounts._fields for v in (NAN, INF, -1.0, 1e300)),
    lambda c: c._replace(decode_seconds=c.decode_seconds + 1e9),
    lambda c: c._replace(decode_batch=c.decode_batch + 1e9),
    lambda c: c._replace(prefill_seconds=c.prefill_seconds + 1e9),
    lambda c: c._replace(completions=c.completions + 1e9),
    lambda c: ZERO,
    lambda c: StepCounts(*(v / 2.0 for v in c)),
]


@pytest.mark.parametrize("broken", BROKEN)
def test_broken_counters_do_no_harm(broken):
    """Every fifth report is broken."""
    replica = Replica().run(100)
    for k in range(200):
        replica.counts = after(replica.counts, replica.chance.uniform(1.0, SLOTS))
        replica.look(broken(replica.counts) if k % 5 == 0 else replica.counts)
    for n in (1, 4, SLOTS):
        time = replica.used.service_time(n, INPUT, OUTPUT)
        assert time == pytest.approx(TRUE.service_time(n, INPUT, OUTPUT), rel=0.05)


def test_counters_that_begin_again_after_a_restart_are_learned_from_too():
    replica = Replica().run(3)
    replica.counts = ZERO
    replica.run(60)
    assert replica.used
    assert replica.figures.profile_error == pytest.approx(-0.4, abs=0.02)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("factor", [0.5, 1 / 1.5, 1.5, 2.0])
def test_a_machine_that_becomes_slower_or_faster_is_reported_and_followed(factor, seed):
    replica = Replica(noise=0.05, seed=seed).run(200)
    assert not replica.figures.drift
    replica.run(20, times(factor))
    assert replica.figures.drift
    assert replica.error == pytest.approx(factor - 1.0, rel=0.1, abs=0.05)
    replica.run(MEMORY, times(factor))
    assert full_s(replica.used) == pytest.approx(factor * full_s(TRUE), rel=0.04)
    assert not replica.figures.drift  # not lately


def test_a_change_of_one_coefficient_is_followed():
    slower = replace(TRUE, beta=3.0 * TRUE.beta)
    replica = Replica(noise=0.05).run(200).run(100, slower)
    assert full_s(replica.used) == pytest.approx(full_s(slower), rel=0.05)


def test_a_slow_change_within_the_noise_is_followed_without_a_report():
    replica = Replica(noise=0.1).run(200)
    for k in range(100):
        replica.run(2, times(1.0 + 0.005 * k))
    replica.run(200, times(1.5))
    assert full_s(replica.used) == pytest.approx(1.5 * full_s(TRUE), rel=0.06)


def test_a_coefficient_that_costs_much_less_than_configured_leaves_the_others_right():
    replica = Replica(configured(replace(TRUE, gamma=20.0 * TRUE.gamma)), noise=0.05).run(500)
    assert replica.figures.gamma < 2.0 * TRUE.gamma
    assert abs(replica.error) < 0.05


def test_a_coefficient_that_is_zero_stays_zero():
    replica = Replica(configured(replace(TRUE, gamma=0.0)), noise=0.05).run(200)
    assert replica.figures.gamma == 0.0
    assert abs(replica.error) < 0.15


@pytest.mark.parametrize("factor", [0.3, 1.0])
def test_where_times_vary_much_the_estimate_is_still_close(factor):
    replica = Replica(configured(times(factor)), noise=0.3).run(300)
    assert 0.2 < replica.figures.error < 0.4
    assert replica.figures.profile_error == pytest.approx(factor - 1.0, abs=0.12)


def test_another_profile_configured_is_a_new_beginning():
    replica = Replica().run(100)
    other = configured(TRUE)
    begun = update_calibration(replica.state, seen(101.0, {"a": replica.counts}), other)
    assert report(begun, other) is None
    assert apply_calibration(other, begun) is other


def test_the_profile_in_use_stays_still_while_the_measured_one_varies_a_little():
    replica = Replica().run(200)
    replica.state = replace(replica.state, used=replica.state.profile)
    before = replica.used
    replica.run(100, times(1.0 + STILL / 3.0))
    assert replica.state.profile != before
    assert replica.used == before


class Asked(Mapping[str, StepCounts]):
    """Records which replicas are read."""

    def __init__(self, counts: dict[str, StepCounts]) -> None:
        self.counts, self.asked = counts, list[str]()

    def __getitem__(self, name: str) -> StepCounts:
        self.asked.append(name)
        return self.counts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.counts)

    def __len__(self) -> int:
        return len(self.counts)


def test_of_many_replicas_a_few_are_read_in_a_decision_and_all_in_turn():
    counts = dict.fromkeys((f"r{k}" for k in range(100)), ZERO)
    state, names = None, set()
    for k in range(200):
        asked = Asked(counts)
        state = update_calibration(state, seen(float(k), asked), SETTINGS)
        assert len(asked.asked) <= 2 * FOLLOWED
        names.update(asked.asked)
        counts = {name: after(one, 1.0 + k % SLOTS) for name, one in counts.items()}
    assert names == set(counts)
    assert len(state.followed) == FOLLOWED
    assert state.used


def test_idle_replicas_make_room_for_those_that_work():
    counts = dict.fromkeys((f"r{k}" for k in range(40)), ZERO)
    state = None
    for k in range(1000):
        state = update_calibration(state, seen(2.0 * k, counts), SETTINGS)
        counts = counts | {"r39": after(counts["r39"], 1.0 + k % SLOTS)}
    assert report(state, SETTINGS) is not None


def test_a_replica_that_finishes_few_requests_gives_them_after_a_while():
    counts, state = ZERO, None
    for t in (0.0, 1.0):
        state = update_calibration(state, seen(t, {"a": counts}), SETTINGS)
        counts = StepCounts(*(v / 10.0 for v in after(ZERO, 4.0)))  # two requests
    assert report(state, SETTINGS) is None
    state = update_calibration(state, seen(LONGEST_S, {"a": counts}), SETTINGS)
    assert report(state, SETTINGS).samples == 2


def test_replicas_that_go_are_forgotten():
    gone = update_calibration(Replica().run(3).state, seen(4.0, {"b": ZERO}), SETTINGS)
    assert set(gone.followed) == {"b"}


def test_the_state_comes_back_from_json_and_has_a_bounded_size():
    adapter, replica = TypeAdapter(CalibrationState), Replica(noise=0.1).run(300)
    text = adapter.dump_json(replica.state)
    assert adapter.validate_json(text) == replica.state
    assert len(text) < 4000
    assert len(replica.state.recent) <= RECENT


def test_a_decision_reports_the_measured_profile_and_a_held_one_the_last():
    state, counts = State(), ZERO
    for k in range(100):
        decision, state = decide(seen(float(k), {"a": counts}), state, SETTINGS)
        counts = after(counts, 1.0 + k % SLOTS)
    assert decision.calibration.used
    assert decision.to_dict()["calibration"]["alpha"] == decision.calibration.alpha
    held, _ = decide(Observation(101.0, 1, 1, 1, 10), state, SETTINGS)
    assert held.stale
    assert held.calibration == decision.calibration
