"""The decision with `adaptive_standby`: the replicas that experience keeps ready, and what it does not change."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from types import ModuleType

import pytest

from tierserve.autoscale.decide import Decision, GatewaySample, Observation, ReplicaSample, Settings, State, decide

pytestmark = pytest.mark.slow  # runs are simulated

SETTINGS = Settings(target_s=6.0, percentile=99.0, service_s=1.0, slots=8, startup_s=60.0, adaptive_standby=True)
"""A replica finishes 8 requests a second; five seconds of waiting are allowed."""


class Pool:
    """Replicas that bear everything at once, seen by the gateway once a second."""

    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.settings, self.state = settings, State()
        self.t, self.arrivals, self.late, self.target = 1000.0, 0.0, 0.0, 1
        self.startup_s = 60.0

    def tick(self, requests: float, *, late: float = 0.0, queued: float = 0.0, running: int | None = None) -> Decision:
        self.t += 1.0
        self.arrivals += requests
        self.late += late
        gateway = GatewaySample(self.t, self.arrivals, queued, requests, self.arrivals, self.late, bypassed=0.0)
        gateway = GatewaySample.from_json(gateway.to_json())  # as a gateway's agent sends it
        sample = ReplicaSample(
            self.t, self.arrivals, self.arrivals, self.arrivals, self.arrivals, running=requests,
            startup_s=self.startup_s,
        )  # fmt: skip
        return self._decide(running, {"a": sample}, gateway)

    def silent_tick(self) -> Decision:
        self.t += 1.0
        return self._decide(None, {}, None)

    def _decide(
        self, running: int | None, samples: dict[str, ReplicaSample], gateway: GatewaySample | None
    ) -> Decision:
        serving = self.target if running is None else running
        obs = Observation(self.t, serving, self.target, 1, 100, samples, gateway)
        decision, self.state = decide(obs, self.state, self.settings)
        self.target = decision.replicas
        return decision

    def burst(self, high: float, low: float = 4.0, every: int = 200, cycles: int = 8) -> Decision:
        for k in range(every * cycles):
            decision = self.tick(high if k % every < 10 else low)
        return decision


def test_replicas_are_kept_ready_for_bursts_that_end_before_one_could_start() -> None:
    kept = Pool().burst(high=80.0)
    # ten seconds of ten replicas' work, half of which may wait
    assert 5 <= kept.replicas <= 11
    assert "standby rule" in kept.reason
    without = Pool(replace(SETTINGS, adaptive_standby=False)).burst(high=80.0)
    assert without.replicas < kept.replicas


def test_missing_data_holds_what_was_kept_and_says_so() -> None:
    pool = Pool()
    kept = pool.burst(high=80.0).replicas
    for _ in range(30):
        held = pool.silent_tick()
    assert (held.replicas, held.stale) == (kept, True)
    assert held.reason.startswith(f"held at {kept}: no metrics")


def test_no_traffic_is_data_and_leads_to_the_floor() -> None:
    pool = Pool()
    for _ in range(600):
        pool.tick(40.0)
    assert pool.target >= 5
    for _ in range(2 * 3600):
        pool.tick(0.0)
    assert pool.target == 1


def test_what_was_late_before_replicas_were_there_does_not_make_it_stricter() -> None:
    blamed, excused = Pool(), Pool()
    for _ in range(600):
        blamed.tick(40.0, late=4.0)
        excused.tick(40.0, late=4.0, running=1)
    assert blamed.state.standby is not None
    assert excused.state.standby is not None
    assert (blamed.state.standby.late > 0.0, excused.state.standby.late) == (True, 0.0)
    assert blamed.state.standby.trust < excused.state.standby.trust  # type: ignore[operator]


def test_late_answers_in_the_gateways_report_make_more_replicas_ready() -> None:
    def replicas(late_share: float) -> int:
        pool, rng = Pool(), random.Random(3)
        for k in range(900):
            if k % 30 == 0:
                rate = rng.choice([2.0, 4.0, 8.0, 20.0, 40.0, 90.0, 150.0])
            decision = pool.tick(rate, late=late_share * rate)
        return decision.replicas

    assert replicas(0.05) > replicas(0.0)


def test_a_load_beyond_experience_is_staffed_for_as_it_is() -> None:
    pool = Pool()
    for _ in range(1200):
        pool.tick(8.0)
    before = pool.target
    for k in range(30):
        decision = pool.tick(80.0, queued=70.0 * k, running=before)
    assert decision.replicas >= 10
    assert not math.isinf(decision.target)


def test_what_waited_before_replicas_were_there_and_is_late_afterwards_does_not_either() -> None:
    pool = Pool()
    for _ in range(600):
        pool.tick(40.0)
    for _ in range(60):  # too few, and a queue grows
        pool.tick(40.0, late=20.0, queued=300.0, running=1)
    for _ in range(30):  # they are there, and serve what has waited
        pool.tick(40.0, late=40.0, queued=300.0, running=6)
    for _ in range(2):  # the last of it is in service
        pool.tick(40.0, late=40.0, running=6)
    assert pool.state.standby is not None
    assert pool.state.standby.late == 0.0
    for _ in range(10):
        pool.tick(40.0, late=4.0, running=6)
    assert pool.state.standby.late > 30.0


def test_what_waited_before_replicas_were_there_is_worked_off_though_it_may_wait() -> None:
    pool = Pool()
    for _ in range(1200):
        pool.tick(160.0)
    kept = pool.target
    pool.tick(160.0, queued=600.0, running=kept - 2)
    decision = pool.tick(160.0, queued=600.0, running=kept)  # under four seconds of their work; five may wait
    assert decision.replicas > kept
    assert "backlog of the start-up time" in decision.reason
    for _ in range(35):  # and what came for it is held for the window
        decision = pool.tick(160.0, running=decision.replicas)
    assert decision.replicas == kept


def test_where_nothing_is_said_experience_decides_for_pools_that_start_slowly() -> None:
    slow = Pool(replace(SETTINGS, adaptive_standby=None))
    assert "standby rule" in slow.burst(high=80.0).reason
    quick = Pool(replace(SETTINGS, adaptive_standby=None, startup_s=5.0))
    quick.startup_s = 5.0
    quick.burst(high=80.0)
    assert quick.state.standby is None


def test_a_constant_number_of_connections_has_a_slot_each_whatever_was_learned(sim: ModuleType) -> None:
    settings = Settings(target_s=1.6, service_s=1.0, slots=8, startup_s=60.0, adaptive_standby=True)
    for seed in (1, 2):
        pool = sim.Pool(settings, sim.lognormal(1.0, 0.1), seed=seed, startup_s=60.0, tick_s=1.0)
        pool.connect(25)
        assert set(pool.run(2700.0).targets(600.0)) == {4}
