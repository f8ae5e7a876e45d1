"""What was learned comes back from its bytes, and nothing else does."""

from __future__ import annotations

import dataclasses
import zlib
from dataclasses import replace

import numpy as np
import pytest

from tierserve.autoscale import snapshot as autoscale_memory
from tierserve.autoscale.budget import ErrorBudget
from tierserve.autoscale.calibration import CalibrationState
from tierserve.autoscale.decide import GatewaySample, Observation, ReplicaSample, Settings, State, decide
from tierserve.autoscale.rate import FORECASTS, RateState
from tierserve.autoscale.replay import GRID_SIZE, Block, ReplayState, least_replicas
from tierserve.autoscale.snapshot import OLDEST_S, UnusableError, dump_state, load_state, merge_learned
from tierserve.autoscale.stabilization import HORIZONS, LONGEST_S, Stabilization, block_s, longest_s
from tierserve.autoscale.types import StepCounts
from tierserve.queueing.batching.profile import BatchProfile

PERIOD_S, TICK_S, STARTUP_S = 3600.0, 4.0, 120.0
PROFILE = BatchProfile(0.02, 1e-4, 1e-7)
SETTINGS = Settings(
    target_s=8.0, service_s=2.0, slots=8, startup_s=STARTUP_S, stale_after_s=15.0,
    profile=PROFILE, input_tokens=200.0, output_tokens=50.0,
)  # fmt: skip


class Pool:
    """One replica's counters stand for all; it serves what comes, in 1.5 s each."""

    def __init__(self, state: State | None = None, t: float = 1e6, target: int = 2) -> None:
        self.state, self.t, self.target = state or State(), t, target
        self.arrivals, self.running, self.asked = 0.0, target, [target] * 31
        self.dice = np.random.default_rng(1)

    def rate(self) -> float:
        return float(np.interp(self.t % PERIOD_S, (1200.0, 1400.0, 2400.0, PERIOD_S), (4.0, 40.0, 40.0, 4.0)))

    def tick(self) -> None:
        self.t += TICK_S
        rate = self.rate()
        self.arrivals += float(self.dice.poisson(rate * TICK_S))
        self.asked = [*self.asked[1:], self.target]
        n, busy = self.arrivals, rate * 1.5
        sample = ReplicaSample(self.t, n, n, 1.5 * n, 2.25 * n, running=busy, startup_s=STARTUP_S)
        batch = min(max(busy / min(self.asked), 1.0), 8.0)
        ttft, itl = PROFILE.prefill(batch, 200.0, 50.0) * 1.2, PROFILE.decode(batch, 200.0, 50.0) * 1.2
        steps = StepCounts(n, 200.0 * n, 50.0 * n, n, ttft * n, batch * n, 50.0 * n, itl * 50.0 * n, batch * 50.0 * n)
        late = 0.5 * max(n - 20_000.0, 0.0)
        gateway = GatewaySample(self.t, n, 0.0, busy, answered=n, late=late, bypassed=0.0)
        obs = Observation(self.t, min(self.asked), self.target, 1, 99, {"a": sample}, gateway, steps={"a": steps})
        decision, self.state = decide(obs, self.state, SETTINGS)
        self.target = decision.replicas

    def run(self, seconds: float) -> Pool:
        for _ in range(int(seconds / TICK_S)):
            self.tick()
        return self


@pytest.fixture(scope="module")
def pool() -> Pool:
    """Two and a half periods; all parts of the state have learned something."""
    pool = Pool().run(2.5 * PERIOD_S)
    state = pool.state
    assert state.startups
    assert state.steps
    assert state.steps.samples > 20
    assert max(state.rate.errors) > 0.0
    assert len(state.replay.blocks) > 20
    assert state.budget.caution > 1.0
    return pool


def back(state: State, t: float, after_s: float = 0.0, settings: Settings = SETTINGS) -> State:
    return load_state(dump_state(state, "edge", settings, t), "edge", settings, t + after_s)


def learned_rate(state: State) -> tuple[tuple[float, ...], float, int]:
    return state.rate.errors, state.rate.weight, state.rate.used


def learned_budget(state: State) -> tuple[float, float, float, float]:
    return state.budget.caution, state.budget.margin, state.budget.answered, state.budget.late


def test_what_was_learned_comes_back_as_it_was(pool):
    state = replace(pool.state, stabilization=pool.state.stabilization._replace(factor=4.0))
    known = back(state, pool.t)
    assert known.startups == state.startups
    assert known.steps == replace(state.steps, followed={}, cursor=0)
    assert learned_rate(known) == learned_rate(state)
    assert learned_budget(known) == learned_budget(state)
    assert known.stabilization.factor == 4.0
    assert known.replay.seconds == state.replay.seconds
    assert [(one.t, one.arrivals) for one in known.replay.blocks] == [
        (one.t, one.arrivals) for one in state.replay.blocks
    ]
    for before, after in zip(state.replay.blocks, known.replay.blocks, strict=True):
        np.testing.assert_allclose(after.late, before.late, rtol=1e-7)


def test_what_is_of_the_moment_is_left_out(pool):
    known, nothing = back(pool.state, pool.t), State()
    for name in ("history", "load", "raised", "backlog_since", "last", "first_t", "idle"):
        assert getattr(known, name) == getattr(nothing, name), name
    assert (known.rate.times, known.rate.totals, known.rate.pending) == ((), (), ())
    assert not known.replay.inside.any()
    assert known.budget.since is None
    assert (known.stabilization.recommendations, known.stabilization.lowered) == ((), None)


def test_a_pool_that_has_learned_nothing_can_be_saved_too():
    assert back(State(), 1e6) == State()


@pytest.mark.parametrize("merged_after", [0, 3])
def test_after_a_restart_the_next_decisions_go_on_from_what_was_known(pool, merged_after):
    """Whether the snapshot is there at once or some decisions later."""
    again = Pool(None, pool.t + 20.0, pool.target).run(merged_after * TICK_S)
    again.state = merge_learned(again.state, back(pool.state, pool.t, 20.0))
    again.run(STARTUP_S)
    assert again.state.startups[: len(pool.state.startups)][-1] in pool.state.startups
    assert again.state.steps.samples > pool.state.steps.samples
    assert again.state.rate.weight > 0.0
    assert again.state.last.rate_error > 0.0
    assert again.state.last.caution > 1.0
    assert again.state.last.stabilization_window_s > HORIZONS * STARTUP_S
    times = [one.t for one in again.state.replay.blocks]
    assert times == sorted(times)
    assert times[0] == pool.state.replay.blocks[0].t
    window_s = again.t - pool.t + 6.0 * STARTUP_S
    needed, _ = least_replicas(pool.state.replay, pool.t - window_s, 0.01)
    assert least_replicas(again.state.replay, pool.t - window_s, 0.01)[0] >= needed


@pytest.mark.parametrize("gap_s", [20.0, 0.5 * STARTUP_S, 900.0, 3.0 * PERIOD_S])
def test_a_gap_is_no_time_without_arrivals(pool, gap_s):
    again = Pool(merge_learned(State(), back(pool.state, pool.t, gap_s)), pool.t + gap_s, pool.target)
    for _ in range(10):
        again.tick()
        assert again.target >= pool.target, "held, since nothing was seen to fall"
    assert again.state.last.arrival_rate == pytest.approx(again.rate(), rel=0.3)
    assert again.state.replay.seconds == pytest.approx(pool.state.replay.seconds + 9.0 * TICK_S)


def test_a_gap_scores_no_forecast(pool):
    again = Pool(merge_learned(State(), back(pool.state, pool.t, 900.0)), pool.t + 900.0, pool.target).run(5 * TICK_S)
    assert learned_rate(again.state) == learned_rate(pool.state)


def test_what_was_seen_since_the_process_began_is_added_to_the_start_ups(pool):
    state = merge_learned(State(startups=(7.0,)), State(startups=(1.0, 2.0, 3.0, 4.0, 5.0)))
    assert state.startups == (2.0, 3.0, 4.0, 5.0, 7.0)


def fullest() -> State:
    """As many blocks as are kept with the shortest start-up, every figure with all its digits."""
    dice, settings = np.random.default_rng(2), Settings(target_s=8.0, slots=8)

    def some(n: int) -> tuple[float, ...]:
        return tuple(dice.gamma(2.0, 1.0, n).tolist())

    length_s = block_s(0.0, settings)
    blocks = []
    for k in range(int(longest_s(0.0, settings) / length_s) + 2):
        arrivals = float(dice.gamma(2.0, 1000.0))
        share = np.clip(dice.uniform(0.5, 1.0) - np.linspace(0.0, 1.0, GRID_SIZE), 0.0, 1.0)
        blocks.append(Block(1e6 + length_s * k, arrivals, arrivals * share))
    return State(
        startups=some(5),
        rate=RateState(errors=some(FORECASTS), weight=1.5, used=3),
        replay=ReplayState(blocks=tuple(blocks), seconds=LONGEST_S),
        budget=ErrorBudget(1.5, *some(2), busy=some(1)[0], served=some(1)[0]),
        stabilization=Stabilization(factor=16.0),
    )


def test_the_fullest_state_comes_back_and_is_no_megabyte():
    state = fullest()
    assert len(back(state, 1e6).replay.blocks) == len(state.replay.blocks) > 700
    assert len(dump_state(state, "edge", SETTINGS, 1e6)) < 1_000_000


def test_a_usual_state_takes_less_than_100_kilobytes(pool):
    assert len(dump_state(pool.state, "edge", SETTINGS, pool.t)) < 100_000


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"slots": 4}, "slots was 8 and is 4"),
        ({"profile": None}, "profile"),
        ({"profile": BatchProfile(0.03, 1e-4, 1e-7)}, "profile"),
    ],
)
def test_what_was_learned_under_other_settings_is_refused(pool, change, why):
    data = dump_state(pool.state, "edge", SETTINGS, pool.t)
    with pytest.raises(UnusableError, match=why):
        load_state(data, "edge", replace(SETTINGS, **change), pool.t)


def test_what_another_pool_learned_is_refused(pool):
    with pytest.raises(UnusableError, match="pool was 'edge' and is 'cloud'"):
        load_state(dump_state(pool.state, "edge", SETTINGS, pool.t), "cloud", SETTINGS, pool.t)


@pytest.mark.parametrize("after_s", [OLDEST_S + 1.0, -3600.0])
def test_what_is_too_old_or_of_the_future_is_refused(pool, after_s):
    with pytest.raises(UnusableError, match="days ago"):
        back(pool.state, pool.t, after_s)


def test_broken_bytes_are_refused_wherever_they_broke(pool):
    data = dump_state(pool.state, "edge", SETTINGS, pool.t)
    head = len(autoscale_memory._HEAD)
    for at in range(0, len(data), max(len(data) // 200, 1)):
        for broken in (data[:at], data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]):
            if at >= head and _unpacked(broken[head:]) == _unpacked(data[head:]):
                continue  # another way to pack the same
            with pytest.raises(UnusableError):
                load_state(broken, "edge", SETTINGS, pool.t)


def _unpacked(data: bytes) -> bytes | None:
    try:
        return zlib.decompress(data)
    except zlib.error:
        return None


def test_another_version_is_refused(pool, monkeypatch):
    data = dump_state(pool.state, "edge", SETTINGS, pool.t)
    monkeypatch.setattr(autoscale_memory, "_HEAD", b"tierserve-autoscale-memory-0\n")
    with pytest.raises(UnusableError, match="another version"):
        load_state(data, "edge", SETTINGS, pool.t)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"caution":', b'"caution_":'),
        (b'"startups":[', b'"startups":[NaN,'),
        (b'"startups":[', b'"startups":["x",'),
        (b'"used":', b'"used":9999,"use":'),
        (b'"errors":[', b'"errors":[1.0,'),
        (b'"weight":', b'"weight":-'),
        (b'"blocks":[', b'"blocks":[[0.0,1.0],'),
        (b'"late":"', b'"late":"AAAA'),
        (b'"caution":', b'"caution":0.1,"cautio":'),
        (b'"factor":', b'"factor":0.1,"facto":'),
        (b'"alpha":', b'"alpha":-'),
    ],
)
def test_well_packed_nonsense_is_refused(pool, old, new):
    head = autoscale_memory._HEAD
    text = zlib.decompress(dump_state(pool.state, "edge", SETTINGS, pool.t)[len(head) :])
    assert old in text
    with pytest.raises(UnusableError, match="corrupt"):
        load_state(head + zlib.compress(text.replace(old, new, 1)), "edge", SETTINGS, pool.t)


def test_late_arrivals_that_are_no_number_are_refused(pool):
    blocks = tuple(one._replace(late=np.where(one.late > 0.0, np.inf, one.late)) for one in pool.state.replay.blocks)
    broken = replace(pool.state, replay=replace(pool.state.replay, blocks=blocks))
    with pytest.raises(UnusableError, match="corrupt"):
        back(broken, pool.t)


def test_fields_that_are_kept_change_only_with_the_number_of_the_format():
    """If this fails, raise `autoscale.snapshot.FORMAT` and write down the fields of now."""
    kept = {
        cls.__name__: " ".join(getattr(cls, "_fields", None) or [f.name for f in dataclasses.fields(cls)])
        for cls in (CalibrationState, BatchProfile)
    } | {"_Memory": " ".join(autoscale_memory._Memory.model_fields)}
    assert (autoscale_memory.FORMAT, GRID_SIZE, FORECASTS, kept) == (
        5,
        227,
        15,
        {
            "CalibrationState": "configured moments ratio covariance noise relative_std used samples changed_at recent "
            "sizes followed cursor",
            "BatchProfile": "alpha beta gamma",
            "_Memory": "owner t startups steps errors weight used blocks late replayed_s caution busy served "
            "answered missed factor",
        },
    )
