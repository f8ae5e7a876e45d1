"""The work queue: when resources are reconciled, and what its liveness is judged by."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tierserve.controller.workqueue import WorkQueue

A, B = ("ns", "a"), ("ns", "b")


@pytest.fixture(scope="module")
def event_loop_policy(virtual_time):
    return virtual_time


class Passes:
    """Counts passes; can fail, take long, or find a service gone."""

    def __init__(self, resync_s: float = 60.0) -> None:
        self.resync_s = resync_s
        self.error: Exception = RuntimeError("the status is refused")
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
            raise self.error
        return self.resync_s if key not in self.gone else None


@pytest.fixture
def passes():
    return Passes()


def make_queue(passes, **options):
    """A work queue in virtual time."""
    return WorkQueue(passes, clock=asyncio.get_running_loop().time, **options)


def an_hour_passes():
    asyncio.get_running_loop().now += 3600.0


async def run(queue, seconds):
    task = asyncio.create_task(queue.run())
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_burst_of_events_makes_one_reconcile(passes):
    passes.resync_s = 60.0
    queue = make_queue(passes)
    for _ in range(100):
        queue.add(A)
    await run(queue, 0.5)
    assert passes.count == {A: 1}


async def test_every_resource_is_reconciled_again_after_its_resync_period(passes):
    passes.resync_s = 0.1
    queue = make_queue(passes)
    queue.add(A, 0.0)
    queue.add(B, 0.0)
    await run(queue, 1.0)
    assert min(passes.count[A], passes.count[B]) >= 5


async def test_a_service_has_one_pass_at_a_time_and_one_more_for_what_came_meanwhile(passes):
    passes.takes_s = 0.3
    passes.resync_s = 60.0
    queue = make_queue(passes)
    queue.add(A, 0.0)
    asyncio.get_running_loop().call_later(0.1, queue.add, A, 0.0)
    await run(queue, 1.0)
    assert passes.most == 1
    assert passes.count == {A: 2}


async def test_a_failing_service_comes_later_each_time_and_does_not_keep_the_others(passes):
    passes.failing.add(A)
    passes.resync_s = 0.1
    queue = make_queue(passes)
    queue.add(A, 0.0)
    queue.add(B, 0.0)
    await run(queue, 2.0)
    assert passes.count[A] == 2, "at once and after a second; the next after two more"
    assert passes.count[B] > 8
    assert queue.failures[A] == 2


async def test_a_deleted_resource_is_not_reconciled_again(passes):
    passes.gone.add(A)
    passes.resync_s = 0.05
    queue = make_queue(passes)
    queue.add(A, 0.0)
    await run(queue, 0.5)
    assert passes.count == {A: 1}
    assert queue.pending == 0
    assert queue.idle_s == 0.0, "nothing to do is not being stuck"


async def test_an_operator_that_does_not_reach_the_api_server_shows_how_long(passes):
    passes.failing.add(A)
    passes.error = ConnectionError("the API server does not answer")
    queue = make_queue(passes)
    queue.add(A, 0.0)
    an_hour_passes()
    await run(queue, 0.2)
    assert passes.count[A]
    assert queue.idle_s >= 3600.0


async def test_one_resource_that_fails_for_ever_does_not_make_the_operator_look_stuck(passes):
    passes.failing.add(A)
    queue = make_queue(passes)
    queue.add(A, 0.0)
    an_hour_passes()
    await run(queue, 0.2)
    assert queue.failures[A] >= 1
    assert queue.idle_s < 60.0


async def test_the_first_resource_after_an_idle_hour_does_not_make_the_operator_look_stuck(passes):
    queue = make_queue(passes)
    an_hour_passes()
    queue.add(A, 0.0)
    assert queue.idle_s < 60.0
    passes.gone.add(A)
    await run(queue, 0.2)
    an_hour_passes()
    queue.add(B)
    assert queue.idle_s < 60.0


async def test_no_more_passes_than_workers_run_at_once(passes):
    passes.takes_s = 0.2
    passes.resync_s = 60.0
    queue = make_queue(passes, workers=2)
    for i in range(6):
        queue.add(("ns", str(i)), 0.0)
    task = asyncio.create_task(queue.run())
    await asyncio.sleep(0.1)
    assert sum(passes.now.values()) == 2
    await asyncio.sleep(1.0)
    task.cancel()
    assert len(passes.count) == 6


async def test_the_depth_counts_keys_that_are_due_and_wait_for_a_worker(passes):
    passes.takes_s = 10.0
    queue = make_queue(passes, workers=1)
    queue.add(A)
    queue.add(B)
    queue.add(("ns", "later"), after_s=100.0)
    assert queue.depth() == 0
    task = asyncio.create_task(queue.run())
    await asyncio.sleep(5.0)
    assert (sum(passes.now.values()), queue.depth()) == (1, 1)
    await asyncio.sleep(20.0)
    assert queue.depth() == 0, "both wait for their resync"
    task.cancel()
