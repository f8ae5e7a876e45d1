"""Knative KPA."""

from __future__ import annotations

from collections.abc import Callable

from tierserve.simulate.policies.kpa import Kpa
from tierserve.simulate.types import Pool, Snapshot

Snap = Callable[..., Snapshot]
Pools = Callable[..., Pool]


class Driver:
    """Ticks every 2 s at a given concurrency; the pods follow at once unless they are given."""

    def __init__(self, policy: Kpa, snap: Snap, ready: int) -> None:
        self.policy, self.snap, self.ready = policy, snap, ready
        self.t = self.integral = 0.0

    def run(self, seconds: float, concurrency: float, ready: int | None = None) -> int:
        answer = -1
        for _ in range(round(seconds / 2)):
            self.t += 2.0
            self.integral += 2.0 * concurrency
            answer = self.policy.decide(self.snap(self.t, ready or self.ready, in_system_s=self.integral))
            self.ready = ready or answer
        return answer


def test_kpa_wants_the_mean_of_a_minute_over_its_target(snap: Snap, pool: Pools) -> None:
    driver = Driver(Kpa(pool(), 0.7), snap, 1)
    assert driver.run(60, 7.0) == 1
    assert driver.run(30, 14.0) == 2  # half a minute each: the mean is 10.5, and ceil(1.5) = 2
    assert driver.run(30, 14.0) == 2


def test_kpa_panics_at_twice_what_the_ready_can_take(snap: Snap, pool: Pools) -> None:
    calm, panic = Driver(Kpa(pool(), 0.7), snap, 1), Driver(Kpa(pool(), 0.7), snap, 1)
    calm.run(60, 7.0, ready=1)
    panic.run(60, 7.0, ready=1)
    # 6 s of 70 in flight want 10 pods; the mean of the minute, 13.3, wants 2, and with 6 ready pods there is no panic
    assert panic.run(6, 70.0, ready=1) == 10
    assert calm.run(6, 70.0, ready=6) == 3  # 6 ready: no fewer than half of them


def test_kpa_panics_at_exactly_twice_and_not_below(snap: Snap, pool: Pools) -> None:
    for load, pods in ((14.0, 2), (13.0, 2), (21.0, 3)):
        driver = Driver(Kpa(pool(), 0.7), snap, 1)
        driver.run(60, 1.0)
        assert driver.run(6, load, ready=1) == pods  # the minute, 3 in flight at the most, would do with 1
    calm = Driver(Kpa(pool(), 0.7), snap, 1)
    calm.run(60, 1.0)
    assert calm.run(6, 7.0, ready=1) == 1


def test_kpa_never_goes_down_in_panic(snap: Snap, pool: Pools) -> None:
    driver = Driver(Kpa(pool(), 0.7), snap, 1)
    driver.run(60, 7.0)
    assert driver.run(6, 70.0, ready=1) == 10
    driver.ready = 10
    answers = [driver.run(2, 0.0) for _ in range(29)]
    assert set(answers) == {10}


def test_kpa_leaves_panic_after_a_stable_window_below(snap: Snap, pool: Pools) -> None:
    driver = Driver(Kpa(pool(), 0.7), snap, 1)
    driver.run(60, 7.0)
    driver.run(6, 70.0, ready=1)
    driver.ready = 10
    assert driver.run(60, 0.0) == 10  # exactly a window after the last excess it still panics
    assert driver.run(2, 0.0) == 5
    driver.run(40, 7.0, ready=1)
    assert driver.run(6, 28.0, ready=1) == 4  # a new panic knows nothing of the 10 pods of the old one


def test_kpa_goes_down_to_half_of_the_ready_at_most(snap: Snap, pool: Pools) -> None:
    driver = Driver(Kpa(pool(), 0.7), snap, 1)
    driver.run(60, 0.0, ready=1)
    assert driver.run(2, 0.0, ready=1) == 0
    lower = Driver(Kpa(pool(), 0.7), snap, 1)
    lower.run(2, 0.0, ready=1)  # so that it does not start in panic
    assert lower.run(60, 0.0, ready=9) == 4


def test_kpa_of_a_running_deployment_starts_in_panic(snap: Snap, pool: Pools) -> None:
    driver = Driver(Kpa(pool(), 0.7), snap, 8)
    assert driver.run(60, 0.0) == 8
    assert driver.run(4, 0.0) == 4


def test_kpa_comes_up_from_nothing_at_once(snap: Snap, pool: Pools) -> None:
    policy = Kpa(pool(min_replicas=0), 0.7)
    assert policy.decide(snap(100, 0)) == 0
    assert policy.decide(snap(102, 0, in_system_s=42.0)) == 1  # 42 request-seconds in 6 s are 7 in flight
