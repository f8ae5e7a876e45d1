"""Replicas are ordered before a rise that comes each day, and nothing changes where no rise can be told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from tierserve.autoscale.decide import Decision, GatewaySample, Observation, ReplicaSample, Settings, State, decide
from tierserve.autoscale.demand import Inputs, Recommendation
from tierserve.autoscale.forecast.lookahead import LOOKAHEAD_MODELS, RampScore, apply_forecast, update_lookahead
from tierserve.autoscale.history import History, Mark
from tierserve.autoscale.load import Load

pytestmark = pytest.mark.slow  # days are simulated tick by tick
DAY_S, STARTUP_S, TICK_S, SERVICE_S = 7200.0, 120.0, 4.0, 2.0
SETTINGS = Settings(
    target_s=6.0, service_s=SERVICE_S, slots=8, startup_s=STARTUP_S, stale_after_s=15.0, forecast_period_s=DAY_S,
    adaptive_standby=False,
)  # fmt: skip
"""A day of two hours: one replica bears 4 requests a second and takes two minutes to start."""


def morning(t: float) -> float:
    """Arrivals per second: 4 by night, 40 by day, up within five minutes, down within forty."""
    return float(np.interp(t % DAY_S, (2400.0, 2700.0, 4800.0, 7200.0), (4.0, 40.0, 40.0, 4.0)))


@dataclass
class Pool:
    """Replicas that serve `STARTUP_S` after they were asked for; what they cannot bear waits."""

    settings: Settings = SETTINGS
    floor: int = 1
    ceiling: int = 64
    seed: int = 1
    state: State = field(default_factory=State)
    t: float = 0.0
    came: float = 0.0
    queued: float = 0.0
    target: int = 2
    asked: list[int] = field(default_factory=list)
    rows: list[tuple[float, float, int, Decision]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dice = np.random.default_rng(self.seed)

    def tick(self, rate: float, told: bool = True) -> Decision:
        """Let one tick pass; untold, neither gateway nor replicas say anything."""
        self.t += TICK_S
        self.asked = [*self.asked, self.target][-int(STARTUP_S / TICK_S) - 1 :]
        running = min(self.asked)
        new = float(self.dice.poisson(rate * TICK_S))
        self.came += new
        borne = min(self.queued + new, running * self.settings.slots / SERVICE_S * TICK_S)
        self.queued += new - borne
        busy = borne * SERVICE_S / TICK_S
        done = self.came - self.queued
        sample = ReplicaSample(
            self.t, done, done, done * SERVICE_S, done * SERVICE_S**2, running=busy, startup_s=STARTUP_S
        )
        gateway = GatewaySample(self.t, self.came, self.queued, busy, answered=0.0, late=0.0, bypassed=0.0)
        seen = ({"all": sample}, gateway) if told else ({}, None)
        obs = Observation(self.t, running, self.target, self.floor, self.ceiling, *seen)
        decision, self.state = decide(obs, self.state, self.settings)
        self.target = decision.replicas
        self.rows.append((self.t, self.queued, running, decision))
        return decision

    def run(self, rate: Callable[[float], float], until_s: float) -> Pool:
        while self.t < until_s:
            self.tick(rate(self.t))
        return self

    def longest_wait(self, begin_s: float, end_s: float) -> float:
        """Return the longest queue in seconds of work of the replicas then."""
        return max(q * SERVICE_S / self.settings.slots / n for t, q, n, _ in self.rows if begin_s <= t < end_s)

    def replica_hours(self, begin_s: float, end_s: float) -> float:
        return sum(max(n, d.target) for t, _, n, d in self.rows if begin_s <= t < end_s) * TICK_S / 3600.0


@pytest.fixture(scope="module")
def learned() -> Pool:
    """A pool that has seen three days."""
    return Pool().run(morning, 3 * DAY_S)


def test_a_daily_rise_is_met_before_it_comes(learned: Pool) -> None:
    without = Pool(replace(SETTINGS, forecast=False)).run(morning, 3 * DAY_S)
    rise = (2 * DAY_S + 2300.0, 2 * DAY_S + 3600.0)
    assert learned.longest_wait(*rise) < SETTINGS.target_s - SERVICE_S
    assert learned.longest_wait(*rise) < 0.5 * without.longest_wait(*rise)
    day = (2 * DAY_S, 3 * DAY_S)
    assert learned.replica_hours(*day) < 1.1 * without.replica_hours(*day)


def test_beside_experience_it_asks_for_more_where_that_keeps_too_few(learned: Pool) -> None:
    lookahead = learned.state.lookahead
    assert lookahead is not None
    t = 3 * DAY_S + 2500.0
    pool = replace(learned, rows=[], settings=replace(SETTINGS, adaptive_standby=True), target=2).run(morning, t)
    assert "forecast" in pool.rows[-1][3].reason
    assert pool.target > 4


def test_the_reason_says_what_is_forecast(learned: Pool) -> None:
    told = [d for t, _, _, d in learned.rows if "forecast" in d.reason and t > 2 * DAY_S]
    assert told
    assert "(season of 2 h, 90% quantile) when a replica started now is ready" in told[0].reason
    shown = told[0].to_dict()
    assert shown["forecast_model"] in LOOKAHEAD_MODELS
    assert shown["forecast_rate"] > shown["lambda"]
    assert 0.0 < shown["forecast_error"] < 1.0


def test_nothing_is_shown_while_nothing_is_known() -> None:
    first = Pool().tick(10.0)
    assert (first.forecast_rate, first.forecast_model, first.forecast_error) == (None, None, None)
    off = Pool(replace(SETTINGS, forecast=False)).run(lambda _: 10.0, 1000.0)
    assert off.rows[-1][3].forecast_rate is None
    assert off.state.lookahead is None


def level(t: float) -> float:
    return 20.0


def bursts(t: float) -> float:
    """Of one minute, at moments that no model can tell."""
    return 40.0 if np.random.default_rng(int(t // 60.0)).random() < 0.1 else 6.0


def steps(t: float) -> float:
    return (15.0, 2.0, 10.0, 15.0, 5.0, 2.0)[int(np.random.default_rng(int(t // 150.0)).integers(6))]


@pytest.mark.parametrize("rate", [level, bursts, steps])
def test_a_load_without_shape_is_staffed_as_without_a_forecast(rate: Callable[[float], float]) -> None:
    lookahead = Pool().run(rate, 2 * DAY_S)
    without = Pool(replace(SETTINGS, forecast=False)).run(rate, 2 * DAY_S)
    assert [row[3].target for row in lookahead.rows] == [row[3].target for row in without.rows]


def test_rises_that_do_not_come_lose_a_model_its_hearing() -> None:
    right, wrong = RampScore(error=10.0, last=40.0, weight=100.0), RampScore(error=40.0, last=40.0, weight=100.0)
    few = RampScore(error=1.0, last=40.0, weight=10.0)
    lookahead = update_lookahead(None, _view())
    assert replace(lookahead, ramp_scores=(wrong, right, wrong, few)).selected_model == 1
    assert replace(lookahead, ramp_scores=(wrong, few, wrong, wrong)).selected_model is None


def test_a_gap_in_the_data_is_not_zero(learned: Pool) -> None:
    pool = replace(learned, rows=[])
    pool.run(morning, 3 * DAY_S + 2700.0)
    for _ in range(int(900.0 / TICK_S)):  # a quarter of an hour of silence, by day
        assert pool.tick(40.0, told=False).stale
    pool.run(morning, 4 * DAY_S)
    assert pool.state.lookahead is not None
    season = pool.state.lookahead.state.season
    assert season is not None
    by_day = [
        season.bins[k] for k in range(len(season.bins)) if 2700.0 <= (k + 0.5) * DAY_S / len(season.bins) < 4700.0
    ]
    assert by_day
    assert all(rate is not None and rate > 35.0 for rate in by_day)


def test_a_step_of_which_a_part_was_not_seen_has_no_count() -> None:
    whole = update_lookahead(None, _view())
    step_s = whole.settings.step_s

    def after(marks: list[Mark]) -> int:
        lookahead = replace(whole, state=whole.state._replace(step=0))
        return update_lookahead(lookahead, _view(2.0 * step_s, tuple(marks))).state.last.seen

    every = [Mark(t, 5.0 * t) for t in np.arange(0.0, 2.0 * step_s + 0.01, step_s / 8.0)]
    assert after(every) == 2
    assert 2.0 * step_s > SETTINGS.stale_after_s
    assert after([Mark(0.0), Mark(2.0 * step_s, 100.0)]) == 0
    assert after([m for m in every if m.t >= step_s]) == 1


@pytest.mark.parametrize(("floor", "ceiling"), [(3, 64), (1, 4)])
def test_never_under_the_floor_nor_over_the_ceiling(learned: Pool, floor: int, ceiling: int) -> None:
    pool = replace(learned, rows=[], floor=floor, ceiling=ceiling, target=floor).run(morning, 3 * DAY_S + 4000.0)
    assert any("forecast" in row[3].reason for row in pool.rows)
    assert all(floor <= row[3].target <= ceiling for row in pool.rows)


def test_a_forecast_never_asks_for_fewer(learned: Pool) -> None:
    assert learned.state.lookahead is not None
    for up in range(1, 30):
        found = apply_forecast(Recommendation(up, up, "as it is"), learned.state.lookahead, _view())
        assert found.up >= up
        assert found.down == up


def test_what_was_ordered_is_held_until_its_time(learned: Pool) -> None:
    pool = replace(learned, rows=[]).run(morning, 3 * DAY_S + 2500.0)
    ordered = pool.target
    assert ordered > 2
    for _ in range(int(0.5 * STARTUP_S / TICK_S)):  # the rise fails to come
        pool.tick(4.0)
    assert pool.target >= ordered
    for _ in range(int(6.0 * STARTUP_S / TICK_S)):
        pool.tick(4.0)
    assert pool.target <= ordered / 2


def test_a_start_up_time_that_changes_leaves_the_season_known(learned: Pool) -> None:
    assert learned.state.lookahead is not None
    slower = update_lookahead(learned.state.lookahead, _view(learned.t + TICK_S, startup_s=3.0 * STARTUP_S))
    assert slower.settings.horizon_s > 2.0 * learned.state.lookahead.settings.horizon_s
    before, after = learned.state.lookahead.state.season, slower.state.season
    assert before is not None
    assert after is not None
    assert after.bins == before.bins
    assert slower.selected_model is None  # errors so far ahead are not known yet


def test_a_start_up_time_that_wavers_changes_nothing(learned: Pool) -> None:
    assert learned.state.lookahead is not None
    same = update_lookahead(learned.state.lookahead, _view(learned.t + TICK_S, startup_s=0.95 * STARTUP_S))
    assert same.settings is learned.state.lookahead.settings


def test_what_is_remembered_does_not_grow(learned: Pool) -> None:
    lookahead = learned.state.lookahead
    assert lookahead is not None
    assert len(lookahead.state.blocks) <= 17
    assert len(lookahead.pending_scale_ups) <= 64
    assert all(len(one.ratios.recent) <= 512 for one in lookahead.ramp_scores)


@pytest.mark.parametrize("wrong", [{"forecast_quantile": 1.0}, {"forecast_quantile": 0.0}, {"forecast_period_s": 0.0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(SETTINGS, **wrong)  # type: ignore[arg-type]


def _view(t: float = 0.0, marks: tuple[Mark, ...] = (), startup_s: float = STARTUP_S) -> Inputs:
    history = History(marks=marks or (Mark(max(t - TICK_S, 0.0)), Mark(t)))
    return Inputs(history, Load(0.0, SERVICE_S), Observation(t, 2, 2, 1, 64), SETTINGS, startup_s)
