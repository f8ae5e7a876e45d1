"""The service time that is planned with, and the one that is predicted."""

from __future__ import annotations

import pytest

from tierserve.autoscale.decide import GatewaySample, Observation, ReplicaSample, Settings, State, decide
from tierserve.queueing.batching.profile import BatchProfile

PROFILE = BatchProfile(alpha=0.01, beta=0.0, gamma=1e-5)
INPUT, OUTPUT = 100.0, 100.0


def alone_and_full() -> tuple[float, float]:
    return PROFILE.service_time(1, INPUT, OUTPUT), PROFILE.service_time(8, INPUT, OUTPUT)


def settings(**changes) -> Settings:
    base = {"target_s": 4.0, "service_s": alone_and_full()[1], "slots": 8}
    return Settings(**base | {"profile": PROFILE, "input_tokens": INPUT, "output_tokens": OUTPUT} | changes)


def run(wanted: Settings, service_s: float, in_flight: int = 1, seconds: int = 200):
    """Return the last decision of a pool that always holds `in_flight` requests of one service time."""
    state, decision = State(), None
    for k in range(2 * seconds):
        t = 1000.0 + k / 2
        done = in_flight * k / 2 / service_s
        sample = ReplicaSample(t, done, done, done * service_s, done * service_s**2, running=in_flight)
        gateway = GatewaySample(t, done, 0.0, in_flight, answered=0.0, late=0.0, bypassed=0.0)
        decision, state = decide(Observation(t, 1, 1, 1, 8, {"a": sample}, gateway), state, wanted)
    assert decision
    return decision


def test_requests_that_ran_alone_are_planned_for_at_a_full_batch():
    alone, full = alone_and_full()
    assert run(settings(), alone).service_s == pytest.approx(full, rel=0.05)


def test_the_prediction_is_for_the_batches_that_are_seen():
    alone, full = alone_and_full()
    assert full > 1.2 * alone
    assert run(settings(), alone).predicted_p95_s == pytest.approx(alone, rel=0.05)
    assert run(settings(), full, in_flight=8).predicted_p95_s == pytest.approx(full, rel=0.05)


def test_a_profile_is_believed_until_step_reports_say_otherwise():
    """The service times of requests do not tell a slow model from long requests; step times do (test_calibration)."""
    alone, full = alone_and_full()
    assert run(settings(), 1.5 * alone).service_s == pytest.approx(full)


def test_without_a_profile_the_observed_time_replaces_a_wrong_prior():
    assert run(settings(profile=None, service_s=9.0), 0.7).service_s == pytest.approx(0.7, rel=0.02)


def test_a_prior_that_fits_stays_as_it_is():
    assert run(settings(profile=None, service_s=0.705), 0.7).service_s == 0.705


def test_a_target_under_the_service_time_is_said_in_the_reason():
    wanted = settings(profile=None, service_s=1.0, target_s=0.5)
    state, decision = State(), None
    for k in range(100):
        t = 1000.0 + k / 2
        gateway = GatewaySample(t, 9.0 * k + 2 * (k % 5), 0.0, 12.0 + 5 * k % 13, answered=0.0, late=0.0, bypassed=0.0)
        decision, state = decide(Observation(t, 4, 4, 1, 8, {}, gateway), state, wanted)
    assert decision
    assert "service time alone (1000 ms) exceeds the target (500 ms)" in decision.reason
    assert decision.replicas <= 5, "18 erlangs and 8 slots each"
