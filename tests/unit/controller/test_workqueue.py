"""When services are looked at."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tierserve.controller.workqueue import Controller

A, B = ("ns", "a"), ("ns", "b")


class Passes:
    """Counts passes; can fail, take long, or find a service gone."""

    def __init__(self) -> None:
        self.count: Counter[tuple[str, str]] = Counter()
        self.now: Counter[tuple[str, str]] = Counter()
        self.most = 0
        self.takes_s = 0.0
        self.failing: set[tuple[str, str]] = set()
        self.gone: set[tuple[str, str]] = set()

    async def __call__(self, key):
        self.count[key] += 1
        self.now[key] += 1
        self.most = max(self.most, self.now[key])
        await asyncio.sleep(self.takes_s)
        self.now[key] -= 1
        if key in self.failing:
            raise RuntimeError("the cluster does not answer")
        return key not in self.gone


@pytest.fixture
def passes():
    return Passes()


async def run(controller, seconds):
    task = asyncio.create_task(controller.run())
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_crowd_of_events_makes_one_pass(passes):
    controller = Controller(passes, tick_s=60.0)
    for _ in range(100):
        controller.wake(A)
    await run(controller, 0.5)
    assert passes.count == {A: 1}


async def test_every_service_is_looked_at_again_after_a_tick(passes):
    controller = Controller(passes, tick_s=0.1)
    controller.wake(A, 0.0)
    controller.wake(B, 0.0)
    await run(controller, 1.0)
    assert min(passes.count[A], passes.count[B]) >= 5


async def test_a_service_has_one_pass_at_a_time_and_one_more_for_what_came_meanwhile(passes):
    passes.takes_s = 0.3
    controller = Controller(passes, tick_s=60.0)
    controller.wake(A, 0.0)
    asyncio.get_running_loop().call_later(0.1, controller.wake, A, 0.0)
    await run(controller, 1.0)
    assert passes.most == 1
    assert passes.count == {A: 2}


async def test_a_failing_service_comes_later_each_time_and_does_not_keep_the_others(passes):
    passes.failing.add(A)
    controller = Controller(passes, tick_s=0.1)
    controller.wake(A, 0.0)
    controller.wake(B, 0.0)
    await run(controller, 2.0)
    assert passes.count[A] == 2, "at once and after a second; the next after two more"
    assert passes.count[B] > 8
    assert controller.failures[A] == 2


async def test_a_service_that_is_gone_is_not_looked_at_again(passes):
    passes.gone.add(A)
    controller = Controller(passes, tick_s=0.05)
    controller.wake(A, 0.0)
    await run(controller, 0.5)
    assert passes.count == {A: 1}
    assert controller.known == 0
    assert controller.idle_s == 0.0, "nothing to do is not being stuck"


async def test_an_operator_that_gets_nowhere_shows_its_age(passes):
    passes.failing.add(A)
    controller = Controller(passes, tick_s=0.1)
    controller.wake(A, 0.0)
    await run(controller, 0.4)
    assert controller.idle_s >= 0.3


async def test_no_more_passes_than_workers_run_at_once(passes):
    passes.takes_s = 0.2
    controller = Controller(passes, tick_s=60.0, workers=2)
    for i in range(6):
        controller.wake(("ns", str(i)), 0.0)
    task = asyncio.create_task(controller.run())
    await asyncio.sleep(0.1)
    assert sum(passes.now.values()) == 2
    await asyncio.sleep(1.0)
    task.cancel()
    assert len(passes.count) == 6
