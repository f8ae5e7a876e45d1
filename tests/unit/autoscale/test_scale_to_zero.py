"""A pool with a floor of 0 goes to sleep after a quiet as long as a restart costs, and wakes when it is asked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tierserve.autoscale.decide import Decision, GatewaySample, Observation, ReplicaSample, Settings, State, decide
from tierserve.autoscale.scale_to_zero import idle_window_s

SETTINGS = Settings(target_s=1.5, service_s=0.5, slots=4, startup_s=5.0)


@dataclass
class Sleeper:
    """A pool whose replicas start `startup_s` after the target was raised; the gateway tells what is there."""

    settings: Settings = SETTINGS
    tick_s: float = 0.5
    startup_s: float = 5.0
    floor: int = 0
    t: float = 1e9
    target: int = 1
    running: int = 1
    arrivals: float = 0.0
    bypassed: float = 0.0
    state: State = field(default_factory=State)
    raised: float | None = None
    targets: list[tuple[float, int]] = field(default_factory=list)

    def look(self, *, came: float = 0.0, waiting: float = 0.0, bypassed: float = 0.0, tells: bool = True) -> Decision:
        self.t += self.tick_s
        if self.raised is not None and self.t >= self.raised + self.startup_s:
            self.running, self.raised = self.target, None
        self.arrivals += came
        self.bypassed += bypassed
        gateway = (
            GatewaySample(self.t, self.arrivals, waiting, 0.0, bypassed=self.bypassed, answered=0.0, late=0.0)
            if tells
            else None
        )
        replicas = {"a": ReplicaSample(self.t, self.arrivals)} if self.running else {}
        obs = Observation(
            self.t, self.running, self.target, self.floor, 8, replicas, gateway, None if replicas else 0.0
        )
        decision, self.state = decide(obs, self.state, self.settings)
        if decision.target > max(self.target, self.running):
            self.raised = self.t
        self.target = decision.target
        self.running = min(self.running, self.target)
        self.targets.append((self.t, self.target))
        return decision

    def quiet(self, seconds: float, **seen: float | bool) -> Decision:
        for _ in range(max(int(seconds / self.tick_s), 1)):
            decision = self.look(**seen)
        return decision

    def ask(self) -> Decision:
        """One request that is answered within a tick."""
        return self.look(came=1.0)


def test_the_last_replica_goes_after_the_idle_window_and_not_before():
    pool = Sleeper()
    pool.ask()
    assert pool.quiet(29.0).target == 1
    decision = pool.quiet(1.5)
    assert decision.target == 0
    assert decision.reason == "0 replicas: scaled to zero, no request for 30 s; start-up takes about 5 s"


def test_the_reason_tells_when_an_idle_replica_will_go():
    pool = Sleeper()
    pool.ask()
    assert pool.quiet(12.0).reason == "1 replica: idle for 12 s, scales to zero after 30 s; start-up takes about 5 s"


@pytest.mark.parametrize(("startup_s", "window_s"), [(1.0, 30.0), (103.0, 103.0), (439.0, 439.0)])
def test_the_idle_window_is_as_long_as_a_restart_costs(startup_s: float, window_s: float):
    assert idle_window_s(SETTINGS, startup_s) == window_s


def test_a_learned_start_up_time_keeps_the_last_replica_longer_than_the_first_guess():
    pool = Sleeper(startup_s=60.0, target=0, running=0)
    pool.look()
    while pool.running == 0:
        pool.look(came=1.0 if pool.target == 0 else 0.0, waiting=1.0)
    pool.look()
    assert pool.quiet(55.0).target == 1
    assert pool.quiet(7.0).target == 0


def test_an_idle_window_that_was_given_is_kept_to():
    pool = Sleeper(replace(SETTINGS, idle_window_s=4.0, stabilization_window_s=1.0))
    pool.ask()
    assert pool.quiet(3.0).target == 1
    assert pool.quiet(1.5).target == 0


def test_a_floor_of_one_never_sleeps():
    pool = Sleeper(floor=1)
    pool.ask()
    decision = pool.quiet(400.0)
    assert decision.target == 1
    assert "to zero" not in decision.reason


def test_a_pool_that_was_busy_for_long_sleeps_after_the_same_quiet():
    pool = Sleeper()
    for _ in range(300):
        pool.ask()
    assert pool.quiet(29.0).target >= 1
    assert pool.quiet(2.0).target == 0


def test_a_request_that_waits_wakes_the_pool_at_the_next_look():
    pool = Sleeper(target=0, running=0)
    pool.quiet(5.0)
    decision = pool.look(came=1.0, waiting=1.0)
    assert decision.target == 1
    assert decision.reason == "1 replica: scaling up from zero for 1 request; start-up takes about 5 s"


def test_more_that_wait_than_one_replica_answers_in_time_wake_several():
    pool = Sleeper(target=0, running=0)
    pool.quiet(5.0)
    assert pool.look(came=60.0, waiting=60.0).target >= 3, "one would take 7.5 s for them, and the target is 1.5 s"


def test_a_request_that_waits_for_long_keeps_a_pool_awake_that_takes_long_to_start():
    pool = Sleeper(startup_s=200.0, target=0, running=0)
    pool.look()
    pool.look(came=1.0, waiting=1.0)
    assert {target for _, target in pool.targets[1:]} == {1}
    for _ in range(390):
        assert pool.look(waiting=1.0).target == 1


def test_a_replica_on_its_way_does_not_stand_idle_though_who_asked_has_gone():
    pool = Sleeper(startup_s=100.0, target=0, running=0)
    pool.look()
    pool.look(came=1.0, waiting=1.0)
    assert pool.quiet(99.0).target == 1


def test_a_gateway_that_goes_silent_does_not_take_the_pool_to_zero():
    pool = Sleeper()
    pool.ask()
    pool.quiet(20.0)
    decision = pool.quiet(300.0, tells=False)
    assert decision.target == 1
    assert "gateway" in decision.reason


def test_quiet_is_counted_anew_after_a_gap_in_the_metrics():
    pool = Sleeper()
    pool.ask()
    pool.quiet(29.0)
    pool.t += 60.0
    assert pool.quiet(25.0).target == 1
    assert pool.quiet(8.0).target == 0


def test_no_metrics_at_all_hold_what_runs():
    decision, state = Decision, State()
    for k in range(200):
        decision, state = decide(Observation(1e9 + k, 1, 1, 0, 8), state, SETTINGS)
    assert (decision.target, decision.stale) == (1, True)


def test_one_request_that_passes_a_sleeping_pool_does_not_wake_it():
    pool = Sleeper(target=0, running=0)
    pool.look()
    pool.look(bypassed=1.0)
    assert pool.quiet(200.0).target == 0


def test_requests_that_pass_a_sleeping_pool_for_as_long_as_a_restart_costs_wake_it_and_it_stays_awake():
    pool = Sleeper(target=0, running=0)
    pool.look()
    assert pool.quiet(29.0, bypassed=0.1).target == 0
    decision = pool.quiet(1.5, bypassed=0.1)
    assert decision.target == 1
    assert decision.reason.startswith("1 replica: scaling up from zero, other pools have served its requests for 30 s")
    assert pool.quiet(20.0).target == 1


@given(st.lists(st.floats(2.0, 28.0), min_size=2, max_size=12))
@hypothesis_settings(max_examples=15, deadline=None)
def test_requests_at_intervals_shorter_than_the_window_never_make_it_flap(gaps: list[float]):
    pool = Sleeper(tick_s=2.0)
    pool.ask()
    for gap in gaps:
        pool.quiet(gap)
        pool.ask()
    assert {target for _, target in pool.targets} == {1}


@given(st.lists(st.tuples(st.floats(2.0, 120.0), st.integers(1, 6)), min_size=1, max_size=6), st.floats(0.0, 60.0))
@hypothesis_settings(max_examples=15, deadline=None)
def test_the_pool_is_never_without_a_replica_while_a_request_is_there(
    visits: list[tuple[float, int]], startup_s: float
):
    pool = Sleeper(startup_s=startup_s, tick_s=2.0)
    for gap, together in visits:
        pool.quiet(gap)
        pool.look(came=together, waiting=together)
        assert pool.target >= 1
        while pool.running == 0:
            assert pool.look(waiting=together).target >= 1


@pytest.mark.slow
@given(st.lists(st.floats(2.0, 300.0), min_size=1, max_size=8))
@hypothesis_settings(max_examples=15, deadline=None)
def test_idle_time_is_never_more_than_a_window_for_each_request(gaps: list[float]):
    """The bound of ski rental: what idleness costs is at most one window, which is what a restart costs, per quiet."""
    pool = Sleeper(tick_s=2.0)
    pool.ask()
    idle = 0
    for gap in gaps:
        before = len(pool.targets)
        pool.quiet(gap)
        idle = max(idle, sum(target for _, target in pool.targets[before:]))
        pool.look(came=1.0, waiting=0.0)
        pool.quiet(SETTINGS.startup_s + 3.0)
        pool.ask()
    assert idle * pool.tick_s <= idle_window_s(SETTINGS, SETTINGS.startup_s) + pool.tick_s
