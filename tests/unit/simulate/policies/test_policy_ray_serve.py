"""Ray Serve's own policy."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import pytest

from tierserve.simulate.policies.ray_serve import RayServe
from tierserve.simulate.types import Pool, Snapshot

Snap = Callable[..., Snapshot]
Pools = Callable[..., Pool]


def run(policy: RayServe, snap: Snap, loads: list[float], ready: int, start: float = 0.0) -> list[int]:
    """Answers of a tick every second, with so many in flight in the second before each."""
    integral, answers = 0.0, []
    for second, load in enumerate(loads, start=1):
        integral += load
        answers.append(policy.decide(snap(start + second, ready, in_system_s=integral)))
    return answers


def test_ray_serve_waits_the_whole_delay_before_it_goes_up(snap: Snap, pool: Pools) -> None:
    answers = run(RayServe(pool(), 0.5), snap, [22.0] * 31, ready=2)
    assert answers[:30] == [2] * 30
    assert answers[30] == 5  # 22 in flight at 5 each, first wanted at 1 s


def test_ray_serve_waits_the_whole_delay_before_it_goes_down(snap: Snap, pool: Pools) -> None:
    answers = run(RayServe(pool(), 0.5), snap, [22.0] * 601, ready=8)
    assert answers[:600] == [8] * 600
    assert answers[600] == 5


def test_ray_serve_starts_its_delay_anew_after_one_second_that_agrees(snap: Snap, pool: Pools) -> None:
    # up is wanted from 1 s to 21 s; at 22 s the mean is 220 / 22 = 10, which 2 replicas bear; from 23 s it is more
    answers = run(RayServe(pool(), 0.5), snap, [22.0] * 10 + [0.0] * 12 + [22.0] * 31, ready=2)
    assert answers[:52] == [2] * 52
    assert answers[52] == 5


def test_ray_serve_takes_over_the_last_number_only(snap: Snap, pool: Pools) -> None:
    # ever fewer, but always more than 2 replicas' worth: after 30 s the mean of the last 30 s governs
    answers = run(RayServe(pool(), 0.5), snap, [100.0] + [11.0] * 30, ready=2)
    assert answers[30] == 3


def test_ray_serve_without_a_share_wants_the_published_two_requests(snap: Snap, pool: Pools) -> None:
    assert run(RayServe(pool(), 0.0), snap, [20.0] * 31, ready=2)[-1] == 10


def test_ray_serve_comes_up_from_nothing_at_once_and_to_one(snap: Snap, pool: Pools) -> None:
    policy = RayServe(pool(min_replicas=0), 0.5)
    assert policy.decide(snap(1, 0, in_system_s=0.0)) == 0
    assert policy.decide(snap(2, 0, in_system_s=40.0)) == 1


def test_ray_serve_lives_on_the_clock_of_the_simulation(
    snap: Snap, pool: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    rays = importlib.import_module("ray.serve.autoscaling_policy")

    def wall_clock() -> float:
        raise AssertionError("the wall clock was read")

    monkeypatch.setattr(rays.time, "time", wall_clock)
    answers = run(RayServe(pool(), 0.5), snap, [22.0] * 31, ready=2)
    monkeypatch.undo()
    assert answers[-1] == 5


def test_ray_serve_runs_rays_own_policy(snap: Snap, pool: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    rays = importlib.import_module("ray.serve.autoscaling_policy")
    policy = RayServe(pool(), 0.5)
    monkeypatch.setattr(rays, "replica_queue_length_autoscaling_policy", lambda seen: (7, {}))
    assert run(policy, snap, [10.0] * 31, ready=2)[-1] == 7


def test_ray_serve_says_what_to_install_where_ray_is_missing(pool: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(RuntimeError, match=r"tierserve\[serving\]"):
        RayServe(pool(), 0.5)
