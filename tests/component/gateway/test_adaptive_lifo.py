"""Queue order `adaptiveLIFO`, against real HAProxy."""

from __future__ import annotations

import asyncio

import pytest

pytestmark = pytest.mark.haproxy
SLACK_S = 0.4


async def queue_up(rig, poll, numbers):
    """Sends requests one after another, each after the one before is queued or served."""
    tasks = []
    for n in numbers:
        before = sum(s.in_flight + s.queued for s in rig.agent.states.values())
        tasks.append(rig.send(n))
        await poll(lambda before=before: sum(s.in_flight + s.queued for s in rig.agent.states.values()) == before + 1)
    return tasks


def served(rig):
    return [body["n"] for _, body in rig.upstream.seen]


async def test_requests_that_can_meet_the_objective_are_served_before_those_that_cannot(rig, poll):
    await rig.start((rig.pool("edge-a", 1, service_s=0.3, slack_s=SLACK_S),))
    await rig.start_agent(poll_interval_s=0.01)
    rig.upstream.hold()
    tasks = await queue_up(rig, poll, range(5))  # 0 is served, 1 can wait 0.3 s; with 2 the queue gets too long
    await asyncio.sleep(2 * SLACK_S)
    tasks += await queue_up(rig, poll, [5])
    rig.upstream.release()
    assert {r.status for r in await asyncio.gather(*tasks)} == {200}
    order = served(rig)
    assert order[0] == 0
    assert order.index(5) < min(order.index(n) for n in (2, 3, 4)), order


async def test_while_all_can_meet_the_objective_it_is_first_come_first_served(rig, poll):
    await rig.start((rig.pool("edge-a", 1, service_s=0.01, slack_s=SLACK_S),))
    await rig.start_agent(poll_interval_s=0.01)
    rig.upstream.hold()
    tasks = await queue_up(rig, poll, range(4))
    await asyncio.sleep(2 * SLACK_S)
    tasks += await queue_up(rig, poll, range(4, 8))
    rig.upstream.release()
    await asyncio.gather(*tasks)
    assert served(rig) == list(range(8))


async def test_queue_order_arrival_is_always_first_come_first_served(rig, poll):
    await rig.start((rig.pool("edge-a", 1, service_s=5.0, slack_s=None),))
    await rig.start_agent(poll_interval_s=0.01)
    rig.upstream.hold()
    tasks = await queue_up(rig, poll, range(3))
    await asyncio.sleep(2 * SLACK_S)
    tasks += await queue_up(rig, poll, range(3, 6))
    rig.upstream.release()
    await asyncio.gather(*tasks)
    assert served(rig) == list(range(6))


async def test_after_an_overload_it_is_first_come_first_served_again(rig, poll):
    await rig.start((rig.pool("edge-a", 1, service_s=0.1, slack_s=SLACK_S),))
    await rig.start_agent(poll_interval_s=0.01)
    rig.upstream.hold()
    overload = await queue_up(rig, poll, range(8))  # from the sixth on a wait is longer than the slack
    rig.upstream.release()
    await asyncio.gather(*overload)
    await poll(lambda: rig.agent.states["edge-a"].in_flight == 0)
    rig.upstream.seen.clear()
    rig.upstream.hold()
    tasks = await queue_up(rig, poll, range(3))
    await asyncio.sleep(2 * SLACK_S)
    tasks += await queue_up(rig, poll, range(3, 5))
    rig.upstream.release()
    await asyncio.gather(*tasks)
    assert served(rig) == list(range(5))
