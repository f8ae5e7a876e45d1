"""Settings that change while a policy runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tierserve.autoscale.decide import State
from tierserve_serving.policy import ErlangPolicy
from tierserve_serving.policy_runtime import runner as policy_runner
from tierserve_serving.policy_runtime.runner import Endpoints, PolicyRunner
from tierserve_serving.policy_runtime.settings import SettingsReader, settings

VALUES = {"response_target_s": 2.0, "percentile": 90.0, "headroom": 0.25, "startup_s": 40.0, "surge": True}


class Source:
    """A `user_config` that the test changes; counts its reads."""

    def __init__(self, values: dict[str, Any] | None) -> None:
        self.values, self.fails, self.reads = values, False, threading.Semaphore(0)

    def __call__(self) -> dict[str, Any] | None:
        self.reads.release()
        if self.fails:
            raise TimeoutError("the controller is busy")
        return self.values

    def is_read(self) -> bool:
        """Wait until a read has begun and, by the second, the first has been taken in."""
        return self.reads.acquire(timeout=20.0) and self.reads.acquire(timeout=20.0)


@pytest.fixture
def reader() -> SettingsReader:
    return SettingsReader(interval_s=0.01)


def test_the_user_config_is_in_force_once_it_has_been_read_and_whenever_it_changes(reader):
    source = Source(VALUES)
    reader.latest({}, source)
    assert source.is_read()
    now = reader.latest({}, source)
    assert (now.target_s, now.percentile, now.headroom, now.startup_s, reader.surge) == (2.0, 90.0, 0.25, 40.0, True)
    source.values = VALUES | {"response_target_s": 3.0, "surge": False}
    assert source.is_read()
    assert source.is_read()
    assert (reader.latest({}, source).target_s, reader.surge) == (3.0, False)


def test_the_user_config_replaces_what_was_given_and_the_rest_stays(reader):
    source = Source({"headroom": 0.5})
    given = {"response_target_s": 1.0, "headroom": 0.1, "slots": 7}
    reader.latest(given, source)
    assert source.is_read()
    now = reader.latest(given, source)
    assert (now.target_s, now.headroom, now.slots) == (1.0, 0.5, 7)


@pytest.mark.parametrize("values", [None, {"response_target_s": 0.0}, {"head_room": 1.0}, {"slots": "many"}])
def test_a_user_config_that_is_missing_or_wrong_leaves_the_last_one_in_force(reader, values):
    source = Source(VALUES)
    reader.latest({}, source)
    assert source.is_read()
    source.values = values
    assert source.is_read()
    assert source.is_read()
    assert reader.latest({}, source).target_s == 2.0


def test_a_controller_that_does_not_answer_leaves_the_last_settings_in_force(reader):
    source = Source(VALUES)
    reader.latest({}, source)
    assert source.is_read()
    source.fails = True
    assert source.is_read()
    source.fails, source.values = False, VALUES | {"percentile": 99.0}
    assert source.is_read()
    assert source.is_read()
    assert reader.latest({}, source).percentile == 99.0


class Context:
    """What Ray tells of a deployment with one replica and three requests in flight."""

    app_name, deployment_name = "app", "model"
    current_num_replicas = target_num_replicas = capacity_adjusted_min_replicas = 1
    capacity_adjusted_max_replicas, total_num_requests, total_queued_requests = 9, 3.0, 0.0

    def __init__(self, target: int = 1) -> None:
        self.target_num_replicas = target
        self.raw_metrics: dict[str, Any] = {}


def runner(live: Callable[[], Any], pool: str) -> PolicyRunner:
    return PolicyRunner(None, Endpoints(), pool, 0.0, live=live)


def test_a_pool_holds_its_target_until_its_settings_are_known():
    assert runner(lambda: None, "unknown").replicas(Context(target=4)) == 4


def test_a_changed_objective_keeps_what_the_pool_has_learned(monkeypatch):
    state = State(startups=(33.0, 34.0))
    monkeypatch.setattr(policy_runner, "_states", {"learned": state})
    current = [settings(2.0, startup_s=5.0)]
    deciding = runner(lambda: current[0], "learned")
    deciding.replicas(Context())
    before = deciding.state
    current[0] = settings(1.0, percentile=99.0, headroom=1.0, startup_s=7.0)
    deciding.replicas(Context())
    assert (deciding.last.target_s, deciding.last.percentile) == (1.0, 99.0)
    assert deciding.last.startup_s == 33.5, "as learned"
    assert deciding.state.history.marks[: len(before.history.marks)] == before.history.marks
    assert deciding.state.first_t == before.first_t


def test_a_policy_needs_an_objective_or_a_deployment_that_has_it():
    with pytest.raises(TypeError, match="response_target_s"):
        ErlangPolicy(pool="p")
    with pytest.raises(ValueError, match="pool is required"):
        ErlangPolicy(settings_deployment="autoscaling")
    assert ErlangPolicy(pool="p", settings_deployment="autoscaling").settings is None
