from __future__ import annotations

import asyncio

import pytest

from tierserve_serving.replica.slots import QueueFullError, Slots


async def settled() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_waiting_requests_are_served_in_order_of_arrival():
    slots, order = Slots(1, 3), []
    await slots.acquire()

    async def wait(name: int) -> None:
        await slots.acquire()
        order.append(name)
        slots.release()

    waiting = [asyncio.create_task(wait(name)) for name in range(3)]
    await settled()
    assert (slots.running, slots.waiting) == (1, 3)
    slots.release()
    await asyncio.gather(*waiting)
    assert order == [0, 1, 2]
    assert (slots.running, slots.waiting) == (0, 0)


async def test_the_queue_has_a_bound():
    slots = Slots(1, 0)
    await slots.acquire()
    with pytest.raises(QueueFullError):
        await slots.acquire()


async def test_a_cancelled_waiter_is_removed_from_the_queue():
    slots = Slots(1, 2)
    await slots.acquire()
    waiter = asyncio.create_task(slots.acquire())
    await settled()
    waiter.cancel()
    await settled()
    assert (slots.running, slots.waiting) == (1, 0)
    slots.release()
    assert slots.running == 0


async def test_a_slot_passed_to_a_waiter_that_is_cancelled_at_the_same_time_is_not_lost():
    slots = Slots(1, 2)
    await slots.acquire()
    waiter = asyncio.create_task(slots.acquire())
    await settled()
    slots.release()  # hands the slot over; the waiter has not run yet
    waiter.cancel()
    await settled()
    assert (slots.running, slots.waiting) == (0, 0)
