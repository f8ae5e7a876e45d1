"""What replicas pushed to Ray Serve, read as columns, whichever replicas are there and whatever they leave out."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from tierserve.autoscale.decide import ReplicaSample
from tierserve.autoscale.types import StepCounts
from tierserve_serving.policy_runtime.context import ReplicaReports, observation, startup_parts

ALL = {
    "arrivals_total": 5.0,
    "completions_total": 4.0,
    "service_seconds_total": 3.0,
    "service_seconds_sq_total": 2.0,
    "gateway_wait_seconds_total": 1.0,
    "running": 2.0,
    "waiting": 7.0,
    "startup_seconds": 30.0,
}


def pushed(replicas: Mapping[str, Mapping[str, float]], t: float = 9.0) -> dict[str, dict[str, list[Any]]]:
    """By metric and replica, as Ray keeps it: a series whose last value counts."""
    raw: dict[str, dict[str, list[Any]]] = {}
    for replica, figures in replicas.items():
        for metric, value in figures.items():
            points = [SimpleNamespace(timestamp=t - 1.0, value=-1.0), SimpleNamespace(timestamp=t, value=value)]
            raw.setdefault(metric, {})[replica] = points
    return raw


def test_every_figure_of_a_replica_comes_under_its_own_name():
    assert dict(ReplicaReports().read(pushed({"a": ALL}), 9.0)) == {
        "a": ReplicaSample(9.0, 5.0, 4.0, 3.0, 2.0, 1.0, running=2.0, waiting=7.0, startup_s=30.0)
    }


@pytest.mark.parametrize("metric", [name for name in ALL if name != "arrivals_total"])
def test_a_figure_that_one_replica_leaves_out_is_taken_from_no_other(metric):
    less = {name: value for name, value in ALL.items() if name != metric}
    samples = ReplicaReports().read(pushed({"a": less, "b": ALL, "c": less}), 9.0)
    empty = pushed({"a": ALL, "b": ALL, "c": ALL})
    empty[metric]["a"] = empty[metric]["c"] = []
    assert dict(samples) == dict(ReplicaReports().read(empty, 9.0))
    assert samples["b"] == ReplicaReports().read(pushed({"b": ALL}), 9.0)["b"]
    assert samples["a"] == samples["c"] == ReplicaReports().read(pushed({"a": less}), 9.0)["a"] != samples["b"]


def test_the_parts_of_a_start_up_are_the_medians_of_those_reported():
    parts = {"download_seconds": 100.0, "load_seconds": 20.0, "warmup_seconds": 1.0}
    slow = {name: 3.0 * value for name, value in parts.items()}
    raw = pushed({"a": ALL | parts, "b": ALL, "c": ALL | slow})
    assert startup_parts(raw) == {"download_s": 200.0, "load_s": 40.0, "warmup_s": 2.0}
    assert startup_parts(pushed({"a": ALL})) == {}


def test_the_order_of_replicas_may_differ_from_metric_to_metric():
    raw = pushed({"a": ALL, "b": {name: 10.0 * value for name, value in ALL.items()}})
    raw["running"] = dict(reversed(raw["running"].items()))
    samples = ReplicaReports().read(raw, 9.0)
    assert (samples["a"].running, samples["b"].running) == (2.0, 20.0)


def test_a_replica_that_has_counted_nothing_yet_is_not_there():
    raw = pushed({"a": ALL, "b": ALL, "c": {"running": 3.0}})
    raw["arrivals_total"]["b"] = []
    assert list(ReplicaReports().read(raw, 9.0)) == ["a"]


def test_names_are_kept_while_the_replicas_are_the_same_and_follow_them_when_not():
    reports = ReplicaReports()
    first = reports.read(pushed({"a": ALL, "b": ALL}), 9.0)
    second = reports.read(pushed({"a": ALL, "b": ALL}, t=10.0), 10.0)
    assert second.names is first.names
    assert (first["b"].t, second["b"].t) == (9.0, 10.0)
    assert list(reports.read(pushed({"b": ALL, "c": ALL}), 9.0)) == ["b", "c"]
    assert set(reports.names) == {"b", "c"}


def test_step_counters_are_those_of_the_replicas_of_now():
    def seen(names: str) -> Any:
        steps = {f"{name}_total": float(k) for k, name in enumerate(StepCounts._fields)}
        ctx = SimpleNamespace(
            raw_metrics=pushed(dict.fromkeys(names, ALL | steps)),
            current_num_replicas=2,
            target_num_replicas=2,
            capacity_adjusted_min_replicas=1,
            capacity_adjusted_max_replicas=9,
            total_queued_requests=0.0,
        )
        return observation(ctx, None, 9.0, 5.0, reports)

    reports = ReplicaReports()
    assert seen("ab").steps["a"].completions == 0.0
    assert set(seen("bc").steps) == {"b", "c"}
    assert seen("bc").steps.get("a") is None


@pytest.mark.parametrize("ahead_s", [-3600.0, -6.0, 6.0, 3600.0])
def test_a_replica_whose_clock_differs_is_fresh_while_it_reports_and_stale_when_it_stops(ahead_s):
    reports = ReplicaReports()
    for now in (100.0, 101.0, 102.0):
        assert reports.read(pushed({"a": ALL}, t=now + ahead_s), now)["a"].t == now
    silent = reports.read(pushed({"a": ALL}, t=102.0 + ahead_s), 110.0)
    assert silent["a"].t == 102.0
    joined = reports.read(pushed({"a": ALL, "b": ALL}, t=102.0 + ahead_s), 111.0)
    assert (joined["a"].t, joined["b"].t) == (102.0, 111.0)
