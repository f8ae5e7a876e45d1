"""Samples as columns: read like a mapping, and safe from whoever filled them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from tierserve.autoscale.decide import Observation, ReplicaMetrics, ReplicaSample, Settings, State, decide
from tierserve.autoscale.replica_metrics import EMPTY, FIELDS, TIME, ReplicaIndex, reindexed

A = ReplicaSample(9.0, 5.0, 4.0, 3.0, 2.0, 1.0, 2.0, 1.0, 30.0)
B = ReplicaSample(9.5, 50.0, 40.0, 30.0, 20.0, 10.0, 3.0, 0.0)
SETTINGS = Settings(target_s=2.0, slots=4)


def told(t: float, replicas: dict[str, ReplicaSample] | ReplicaMetrics) -> Observation:
    return Observation(t, 2, 2, 1, 100, replicas)


def counting(t: float, names: Sequence[str]) -> ReplicaMetrics:
    """Each replica has counted one arrival a second since 0, and has one request."""
    each = {"t": t, "arrivals": t, "completions": t, "running": 1.0}
    return ReplicaMetrics(list(names), [[each.get(name, 0.0)] * len(names) for name in FIELDS])


def arrivals(ticks: list[tuple[float, str]]) -> float:
    """What is counted of these replicas at these times."""
    state = State()
    for t, names in ticks:
        _, state = decide(told(t, counting(t, names)), state, SETTINGS)
    return state.history.marks[-1].arrivals


def test_columns_are_read_by_name_like_any_mapping_of_samples():
    samples = ReplicaMetrics.of({"a": A, "b": B})
    assert dict(samples) == {"a": A, "b": B}
    assert "a" in samples
    assert "c" not in samples
    assert samples.names == ("a", "b")
    with pytest.raises(KeyError):
        samples["c"]


def test_rows_are_the_fields_of_a_sample_in_their_order():
    samples = ReplicaMetrics(["a"], [[9.0], [5.0], [4.0], [3.0], [2.0], [1.0], [2.0], [1.0], [30.0]])
    assert dict(samples) == {"a": A}
    assert samples.with_values([[9.5], [50.0], [40.0], [30.0], [20.0], [10.0], [3.0], [0.0], [math.nan]])["a"] == B


def test_who_fills_the_same_columns_again_does_not_change_what_was_told_before():
    buffer = np.zeros((len(FIELDS), 2))
    samples = ReplicaMetrics("ab", buffer)
    again = samples.with_values(buffer)
    buffer[:] = 7.0
    assert samples["a"].arrivals == again["b"].arrivals == 0.0
    with pytest.raises(ValueError, match="read-only"):
        again.columns[0] = 1.0


@pytest.mark.parametrize("shape", [(len(FIELDS), 3), (len(FIELDS) - 1, 2), (2,)])
def test_a_wrong_shape_is_said_with_the_rows_that_belong_there(shape):
    with pytest.raises(ValueError, match=r"columns must have the shape \(9, 2\), got .*a row for each of t, arrivals"):
        ReplicaMetrics("ab", np.zeros(shape))
    with pytest.raises(ValueError, match="columns must have the shape"):
        counting(1.0, "ab").with_values(np.zeros(shape))


def test_a_name_that_comes_twice_is_said():
    with pytest.raises(ValueError, match="names must differ, got 'a' twice"):
        ReplicaMetrics(["a", "b", "a"], np.zeros((len(FIELDS), 3)))


@pytest.mark.parametrize("nonsense", [None, "5", 10**400, math.nan, math.inf, -1.0])
@pytest.mark.parametrize("field", ["t", "arrivals", "gateway_wait_s", "running"])
def test_a_replica_that_tells_nonsense_is_not_believed_and_the_others_are(field, nonsense):
    figures = dict(zip(FIELDS, (9.0, *([1.0] * 7), None), strict=True)) | {field: nonsense}
    _, state = decide(told(10.0, {"a": ReplicaSample(**figures), "b": B}), State(), SETTINGS)
    assert state.history.reporting == 1
    assert state.history.in_system == 2 * (B.running + B.waiting)


@pytest.mark.parametrize("startups", [(20.0,), (20.0, 40.0), (20.0, 40.0, 50.0), (50.0, None, 20.0, 40.0, -1.0)])
def test_the_start_up_time_is_the_median_of_those_told(startups):
    samples = {str(k): ReplicaSample(1.0, 0.0, startup_s=startup_s) for k, startup_s in enumerate(startups)}
    decision, _ = decide(told(1.0, samples), State(), SETTINGS)
    assert decision.startup_s == np.median([s for s in startups if s is not None and s > 0.0])


def test_a_report_shorter_than_the_prior_is_a_part_of_the_start_up_time():
    """Replicas time themselves from their first line on: pod, image and process came before."""
    decision, _ = decide(told(1.0, {"a": ReplicaSample(1.0, 0.0, startup_s=0.001)}), State(), SETTINGS)
    assert decision.startup_s == SETTINGS.startup_s


@pytest.mark.parametrize(("later_s", "learned"), [(0.0, ()), (7.0, (7.0,))])
def test_a_start_is_learned_where_time_went_by(later_s, learned):
    """Whoever decides twice within one reading of the clock may find the replica there at once."""
    waiting = ReplicaSample(9.0, 500.0, running=4.0, waiting=200.0)
    decision, state = decide(Observation(9.0, 1, 1, 1, 100, {"a": waiting}), State(), SETTINGS)
    assert decision.replicas > 1
    t, n = 9.0 + later_s, decision.replicas
    _, state = decide(Observation(t, n, n, 1, 100, {"a": replace(waiting, t=t)}), state, SETTINGS)
    assert state.startups == learned


def test_a_start_is_learned_without_the_time_of_a_download():
    """The next replica on that node finds the model in its cache: 30 s of pod and load, not 130 s."""
    waiting = ReplicaSample(9.0, 500.0, running=4.0, waiting=200.0)
    decision, state = decide(Observation(9.0, 1, 1, 1, 100, {"a": waiting}), State(), SETTINGS)
    n = decision.replicas
    for t in range(10, 140):
        running, downloading = (n if t == 139 else 1), 25 <= t < 125
        sample = replace(waiting, t=float(t), arrivals=500.0 + t)
        seen = Observation(float(t), running, n, 1, n, {"a": sample}, downloading=downloading)
        decision, state = decide(seen, state, SETTINGS)
    assert state.startups == (30.0,)


def test_a_replica_that_joins_counts_from_its_start_and_one_that_left_no_more():
    assert arrivals([(20.0, "a"), (30.0, "a"), (31.0, "a")]) == 11.0
    assert arrivals([(20.0, "a"), (30.0, "a"), (31.0, "ab")]) == 11.0 + 31.0
    assert arrivals([(20.0, "ab"), (30.0, "ab"), (31.0, "b"), (32.0, "b")]) == 20.0 + 2.0


def test_a_replica_that_comes_back_counts_on_and_after_a_long_time_anew():
    settled = [(1000.0 + k, "ab") for k in range(10)]  # nine seconds of both
    away = [(1010.0 + k, "b") for k in range(3)]
    assert arrivals([*settled, *away, (1013.0, "ba")]) == pytest.approx(18.0 + 3.0 + 1.0 + 4.0)
    away = [(1010.0 + 4.0 * k, "b") for k in range(160)]
    t = away[-1][0] + 1.0
    assert arrivals([*settled, *away, (t, "ba")]) == pytest.approx(9.0 + (t - 1000.0) + t)


def test_columns_follow_their_replicas_through_any_change_of_order():
    before = ReplicaMetrics.of({"a": A, "b": B})
    columns, left = reindexed(before, {}, ReplicaIndex("cb"))
    assert np.array_equal(columns[:, 0], EMPTY[:, 0])
    assert columns[TIME, 1] == B.t
    back, none = reindexed(ReplicaMetrics.from_columns(ReplicaIndex("cb"), columns), left, ReplicaIndex("ab"))
    assert np.array_equal(back, before.columns, equal_nan=True)
    assert set(none) == {"c"}


def test_a_replica_that_falls_silent_is_taken_to_hold_as_many_requests_as_the_others():
    busy = ReplicaSample(9.0, 5.0, running=8.0)
    _, state = decide(told(10.0, {"a": busy, "b": B}), State(), SETTINGS)
    assert state.history.in_system == 8.0 + 3.0
    _, state = decide(told(11.0, {"a": ReplicaSample(1.0, 5.0, running=8.0), "b": B}), state, SETTINGS)
    assert state.history.in_system == 2 * 3.0


def test_replicas_that_left_are_not_remembered_for_ever():
    state = State()
    for k in range(1000):
        _, state = decide(told(float(k), counting(float(k), [f"r{k}", f"r{k + 1}"])), state, SETTINGS)
    assert len(state.history.left) == 599
