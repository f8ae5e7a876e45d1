"""What was learned comes back from its bytes, and nothing else does."""

from __future__ import annotations

import dataclasses
import zlib
from dataclasses import replace

import numpy as np
import pytest

from tierserve.autoscale import snapshot as autoscale_memory
from tierserve.autoscale.calibration import profile as autoscale_calibration
from tierserve.autoscale.calibration.rls import Calibration
from tierserve.autoscale.decide import GatewaySample, Observation, ReplicaSample, Settings, State, decide
from tierserve.autoscale.forecast.intervals import WINDOW, Residuals
from tierserve.autoscale.forecast.lookahead import ForecastSummary, LookaheadState, PendingScaleUp, RampScore
from tierserve.autoscale.forecast.models import Level, Season, Trend
from tierserve.autoscale.forecast.settings import Forecaster
from tierserve.autoscale.forecast.state import Block, Prediction, Score
from tierserve.autoscale.forecast.state import State as ForecastState
from tierserve.autoscale.snapshot import MOST_PEAKS, OLDEST_S, UnusableError, dump_state, load_state, merge_learned
from tierserve.autoscale.standby.rules import Peak, StandbyState
from tierserve.autoscale.types import StepCounts
from tierserve.queueing.batching.profile import BatchProfile

PERIOD_S, TICK_S, STARTUP_S = 3600.0, 4.0, 120.0
PROFILE = BatchProfile(0.02, 1e-4, 1e-7)
SETTINGS = Settings(
    target_s=8.0, service_s=2.0, slots=8, startup_s=STARTUP_S, stale_after_s=15.0, forecast_period_s=PERIOD_S,
    profile=PROFILE, input_tokens=200.0, output_tokens=50.0,
)  # fmt: skip


class Pool:
    """One replica's counters stand for all; it serves what comes, in 1.5 s each."""

    def __init__(self, state: State | None = None, t: float = 1e6, target: int = 2) -> None:
        self.state, self.t, self.target = state or State(), t, target
        self.arrivals, self.running, self.asked = 0.0, target, [target] * 31
        self.dice = np.random.default_rng(1)

    def tick(self) -> None:
        self.t += TICK_S
        rate = float(np.interp(self.t % PERIOD_S, (1200.0, 1400.0, 2400.0, PERIOD_S), (4.0, 40.0, 40.0, 4.0)))
        self.arrivals += float(self.dice.poisson(rate * TICK_S))
        self.asked = [*self.asked[1:], self.target]
        n, busy = self.arrivals, rate * 1.5
        sample = ReplicaSample(self.t, n, n, 1.5 * n, 2.25 * n, running=busy, startup_s=STARTUP_S)
        batch = min(max(busy / min(self.asked), 1.0), 8.0)
        ttft, itl = PROFILE.prefill(batch, 200.0, 50.0) * 1.2, PROFILE.decode(batch, 200.0, 50.0) * 1.2
        steps = StepCounts(n, 200.0 * n, 50.0 * n, n, ttft * n, batch * n, 50.0 * n, itl * 50.0 * n, batch * 50.0 * n)
        gateway = GatewaySample(self.t, n, 0.0, busy, answered=0.0, late=0.0, bypassed=0.0)
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
    assert state.steps.calibration.accepted > 20
    assert state.lookahead
    assert len(state.lookahead.state.rates.recent) == WINDOW
    assert state.standby
    assert state.standby.rule is not None
    return pool


def back(state: State, t: float, after_s: float = 0.0, settings: Settings = SETTINGS) -> State:
    return load_state(dump_state(state, "edge", settings, t), "edge", settings, t + after_s)


def test_what_was_learned_comes_back_as_it_was(pool):
    state, known = pool.state, back(pool.state, pool.t)
    assert known.startups == state.startups
    assert known.steps == replace(state.steps, followed={}, cursor=0)
    assert known.lookahead == replace(state.lookahead, pending_scale_ups=known.lookahead.pending_scale_ups)
    for name in ("t", "fast", "slow", "seen", "answered", "late", "trust", "rule"):
        assert getattr(known.standby, name) == getattr(state.standby, name), name
    few = [k for k, peak in enumerate(state.standby.peaks) if len(peak.seen) <= MOST_PEAKS]
    assert len(few) > 3
    assert all(known.standby.peaks[k] == state.standby.peaks[k] for k in few)
    for name in ("asked", "missed", "cost", "drops"):
        np.testing.assert_allclose(getattr(known.standby.shadow, name), getattr(state.standby.shadow, name), rtol=1e-7)


def test_what_is_of_the_moment_is_left_out(pool):
    known = back(pool.state, pool.t)
    assert known == State(startups=known.startups, steps=known.steps, lookahead=known.lookahead, standby=known.standby)
    assert known.standby.own_from == float("inf")
    assert known.standby.shadow.block == known.standby.shadow.before == ()
    assert not known.standby.shadow.backlog.any()


def test_a_pool_that_has_learned_nothing_can_be_saved_too():
    assert back(State(), 1e6) == State()


def test_after_a_restart_the_next_decisions_go_on_from_what_was_known(pool):
    first = Pool(merge_learned(State(), back(pool.state, pool.t, 20.0)), pool.t + 20.0, pool.target).run(2 * STARTUP_S)
    assert first.state.startups[: len(pool.state.startups)][-1] in pool.state.startups
    assert first.state.steps.calibration.accepted > pool.state.steps.calibration.accepted
    assert first.state.standby.seen > 0.9 * pool.state.standby.seen
    assert first.state.standby.rule is not None
    assert first.state.last.reason.count("standby rule") or "forecast" in first.state.last.reason


@pytest.mark.parametrize("gap_s", [20.0, 0.5 * STARTUP_S, 900.0, 3.0 * PERIOD_S])
def test_a_gap_teaches_the_forecast_nothing(pool, gap_s):
    """Within a horizon it is steps without a count, beyond one a new beginning; bins of the day stay as they were."""
    before = pool.state.lookahead.state
    again = Pool(merge_learned(State(), back(pool.state, pool.t, gap_s)), pool.t + gap_s, pool.target).run(10 * TICK_S)
    after = again.state.lookahead.state
    assert after.step == int(again.t // again.state.lookahead.settings.step_s)
    changed = [k for k, (a, b) in enumerate(zip(before.season.bins, after.season.bins, strict=True)) if a != b]
    assert set(changed) <= {before.season.at}
    if gap_s <= STARTUP_S:  # the level goes on from what was seen on both sides of the gap: no zeros in between
        assert after.last.rate > 0.7 * before.last.rate


def test_loads_of_before_are_as_old_after_a_restart_as_they_are(pool):
    before, after = pool.state.standby, back(pool.state, pool.t, 30.0).standby
    assert [p.load for p in after.peaks] == [p.load for p in before.peaks]
    ages = [(before.t - b.seen[-1][0], after.t - a.seen[-1][0]) for b, a in zip(before.peaks, after.peaks, strict=True)]
    assert all(later == pytest.approx(earlier + 30.0) for earlier, later in ages)


def test_an_order_counts_until_its_time_and_no_longer(pool):
    t, horizon_s = pool.t, pool.state.lookahead.settings.horizon_s
    scale_up = PendingScaleUp(t - 0.5 * horizon_s, 9, 12.0, "a rise")
    state = replace(pool.state, lookahead=replace(pool.state.lookahead, pending_scale_ups=(scale_up,)))
    assert back(state, t).lookahead.pending_scale_ups == (scale_up,)
    assert back(state, t, 0.6 * horizon_s).lookahead.pending_scale_ups == ()


def test_what_was_seen_since_the_process_began_is_added_to_the_start_ups(pool):
    state = merge_learned(State(startups=(7.0,)), State(startups=(1.0, 2.0, 3.0, 4.0, 5.0)))
    assert state.startups == (2.0, 3.0, 4.0, 5.0, 7.0)


def test_many_loads_of_a_window_are_joined_to_the_higher_and_the_later():
    peak = Peak(tuple((float(k), 5000.0 - k) for k in range(1000)))
    state = State(standby=StandbyState(t=1000.0, peaks=(peak,) * 7, rule=3))
    (joined, *_) = back(state, 1e6).standby.peaks
    assert len(joined.seen) <= MOST_PEAKS
    assert joined.load == peak.load
    assert joined.seen[-1][0] == peak.seen[-1][0]
    for t, load in peak.seen:
        assert any(later >= t and higher >= load for later, higher in joined.seen)


def fullest() -> State:
    """Every window full, every figure with all its digits."""
    dice = np.random.default_rng(2)

    def some(n: int) -> tuple[float, ...]:
        return tuple(dice.gamma(2.0, 1.0, n).tolist())

    settings = Forecaster(7.0, 127.0, 7 * 86400.0)
    n, window = settings.blocks, lambda: Residuals((r := some(WINDOW)), tuple(sorted(r)))
    predictions = tuple(Prediction(some(6), *some(2)) for _ in range(n))
    season = Season(some(settings.bins), tuple(range(settings.bins)), 1, 2.0, 3, some(2), some(2))
    models = ForecastState(
        1, season=season, predictions=predictions, blocks=(Block(1, *some(2)),) * n, rates=window(), peaks=window()
    )
    lookahead = LookaheadState(
        settings,
        models,
        tuple(RampScore(*some(3), window()) for _ in range(4)),
        summary=ForecastSummary(1.0, "trend", 0.1),
    )
    peaks = tuple(Peak(tuple(zip(some(2000), some(2000), strict=True))) for _ in range(7))
    standby = StandbyState(t=1e6, peaks=peaks, rule=1919)
    size = standby.shadow.missed.size
    shadow = replace(standby.shadow, **{name: np.array(some(size)) for name in ("missed", "cost", "drops")})
    shadow = replace(shadow, asked=np.ceil(dice.gamma(2.0, 100.0, size)))
    return State(startups=some(5), lookahead=lookahead, standby=replace(standby, shadow=shadow))


def test_no_state_takes_100_kilobytes(pool):
    settings = replace(SETTINGS, forecast_period_s=7 * 86400.0)
    state = fullest()
    assert back(state, 1e6, settings=settings).lookahead == state.lookahead
    assert len(dump_state(state, "edge", settings, 1e6)) < 100_000


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"slots": 4}, "slots was 8 and is 4"),
        ({"forecast_period_s": 86400.0}, "period_s"),
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
    for at in range(0, len(data), max(len(data) // 200, 1)):
        for broken in (data[:at], data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]):
            with pytest.raises(UnusableError):
                load_state(broken, "edge", SETTINGS, pool.t)


def test_another_version_is_refused(pool, monkeypatch):
    data = dump_state(pool.state, "edge", SETTINGS, pool.t)
    monkeypatch.setattr(autoscale_memory, "_HEAD", b"tierserve-autoscale-memory-0\n")
    with pytest.raises(UnusableError, match="another version"):
        load_state(data, "edge", SETTINGS, pool.t)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"chosen":', b'"chosen_":'),
        (b'"startups":[', b'"startups":[NaN,'),
        (b'"startups":[', b'"startups":["x",'),
        (b'"rule":', b'"rule":9999,"rul":'),
        (b'"asked":"', b'"asked":"AAAA'),
        (b'"ramp_scores":[', b'"ramp_scores":[[0,0,0,[[],[]]],'),
        (b'"alpha":', b'"alpha":-'),
    ],
)
def test_well_packed_nonsense_is_refused(pool, old, new):
    head = autoscale_memory._HEAD
    text = zlib.decompress(dump_state(pool.state, "edge", SETTINGS, pool.t)[len(head) :])
    if old == b'"chosen":':  # named tuples are lists: the index of the model is the one after scores, used and scale
        state = pool.state.lookahead.state
        wrong = replace(pool.state, lookahead=replace(pool.state.lookahead, state=state._replace(chosen=6)))
        text = zlib.decompress(dump_state(wrong, "edge", SETTINGS, pool.t)[len(head) :])
    else:
        assert old in text
        text = text.replace(old, new, 1)
    with pytest.raises(UnusableError, match="corrupt"):
        load_state(head + zlib.compress(text), "edge", SETTINGS, pool.t)


def test_fields_that_are_kept_change_only_with_the_number_of_the_format():
    """If this fails, raise `autoscale.snapshot.FORMAT` and write down the fields of now."""
    kept = {
        cls.__name__: " ".join(getattr(cls, "_fields", None) or [f.name for f in dataclasses.fields(cls)])
        for cls in (
            autoscale_calibration.CalibrationState, autoscale_calibration._Sizes, Calibration, BatchProfile,
            LookaheadState, RampScore, PendingScaleUp, ForecastSummary, ForecastState, Prediction,
            Block, Score, Level, Trend, Season, Residuals,
        )
    } | {"Forecaster": " ".join(f.name for f in dataclasses.fields(Forecaster) if f.init)}  # fmt: skip
    assert (autoscale_memory.FORMAT, kept) == (
        3,
        {
            "CalibrationState": "configured calibration used configured_error sizes followed cursor",
            "_Sizes": "requests input_tokens output_tokens",
            "Calibration": "base ratio covariance prior_sd forgetting noise error accepted rejected ignored "
            "drift_scores drifts since_drift",
            "BatchProfile": "alpha beta gamma",
            "LookaheadState": "settings state ramp_scores pending_scale_ups summary",
            "RampScore": "error last weight ratios",
            "PendingScaleUp": "t replicas rate reason",
            "ForecastSummary": "rate model error",
            "State": "step last level trend season block blocks predictions scores used scale chosen rates peaks",
            "Prediction": "models used peak",
            "Block": "seen total largest",
            "Score": "total weight",
            "Level": "rate seen",
            "Trend": "rate slope seen",
            "Season": "bins visits at total seen now usual",
            "Residuals": "recent ordered",
            "Forecaster": "step_s horizon_s period_s",
        },
    )
