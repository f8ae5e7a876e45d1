"""A pool that sleeps: who comes is held in the gateway's queue and answered when a replica is there, or told when."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

pytestmark = pytest.mark.haproxy
START_S = 7.0


async def asleep(rig, poll, *, others=(), slots=2, classes=None, **kwargs):
    """The edge sleeps; `others` are awake."""
    names = [p.name for p in others]
    await rig.start((rig.pool("edge-a", 0, slots=slots, sleeps=True), *others), classes, **kwargs)
    rig.decisions = {"edge-a": {"running": 0, "startup_s": START_S}} | {n: {"running": 1} for n in names}
    await rig.start_decisions()
    await rig.start_agent()
    await poll(lambda: rig.agent.states["edge-a"].start_s == START_S)


def wake(rig, running=1):
    rig.decisions["edge-a"] = {"running": running, "startup_s": START_S}


async def test_a_request_to_a_pool_without_a_server_is_held_and_answered_when_one_appears(rig, poll):
    await asleep(rig, poll)
    task = rig.send(1)
    await poll(lambda: rig.agent.states["edge-a"].queued == 1)
    status, demand = await rig.get_json(rig.agent_url + "/pools/edge-a")
    assert (status, demand["queued"], demand["in_flight"], demand["arrivals_total"]) == (200, 1, 0, 1)
    assert not task.done()
    wake(rig)
    reply = await task
    assert (reply.status, reply.pool) == (200, "edge-a")
    assert (await rig.post()).status == 200


async def test_all_that_came_while_it_slept_are_answered_in_order_and_no_more_at_once_than_slots(rig, poll):
    await asleep(rig, poll)
    rig.upstream.service_s = 0.05
    tasks = []
    for n in range(8):
        tasks.append(rig.send(n))
        await poll(lambda n=n: rig.agent.states["edge-a"].queued == n + 1)
    wake(rig)
    assert {r.status for r in await asyncio.gather(*tasks)} == {200}
    assert [body["n"] for _, body in rig.upstream.seen] == list(range(8))
    assert rig.upstream.most["edge-a"] <= 2


async def test_a_large_body_is_held_too(rig, poll):
    await asleep(rig, poll)
    task = rig.send(data='{"model": "assistant", "n": 1, "words": "' + "x" * 300_000 + '"}')
    await poll(lambda: rig.agent.states["edge-a"].queued == 1)
    wake(rig)
    assert (await task).status == 200


async def test_who_waited_the_longest_wait_is_told_how_long_a_start_takes(rig, poll):
    await asleep(rig, poll, queue_timeout_s=0.3)
    reply = await rig.post()
    assert (reply.status, reply.headers["Retry-After"]) == (503, "7")
    assert "starting" in reply.error["message"]
    assert reply.took_s > 0.25
    assert rig.upstream.seen == []


async def test_a_tier_that_is_awake_takes_the_request_at_once_and_nobody_wakes_the_sleeper(rig, poll):
    await rig_with_cloud(rig, poll)
    reply = await rig.post()
    assert (reply.status, reply.pool) == (200, "cloud-a")
    await poll(lambda: rig.agent.offered.passed["edge-a"] == 1)
    assert rig.agent.offered.totals == {"edge-a": 0, "cloud-a": 1}
    assert (await rig.get_json(rig.agent_url + "/pools/edge-a"))[1]["passed_total"] == 1


async def rig_with_cloud(rig, poll, service_s=1.0):
    cloud = rig.pool("cloud-a", 1, service_s=service_s)
    await asleep(rig, poll, others=(cloud,), classes={"chat": ("edge", "cloud"), "near": ("edge",)})


async def test_a_class_that_may_only_use_the_sleeper_waits_for_it(rig, poll):
    await rig_with_cloud(rig, poll)
    task = rig.send(cls="near")
    await poll(lambda: rig.agent.states["edge-a"].queued == 1)
    assert rig.agent.offered.totals["edge-a"] == 1
    wake(rig)
    assert (await task).pool == "edge-a"


async def test_when_the_others_are_full_it_waits_where_the_wait_is_shorter_and_the_sleeper_is_asked(rig, poll):
    await rig_with_cloud(rig, poll, service_s=4.0)
    rig.upstream.hold()
    tasks = [rig.send(0)]
    await poll(lambda: rig.agent.states["cloud-a"].in_flight == 1)
    tasks.append(rig.send(1))  # 4 s at the cloud, a start of 7 s at the edge
    await poll(lambda: rig.agent.states["cloud-a"].queued == 1)
    assert rig.agent.offered.totals["edge-a"] == 1
    tasks.append(rig.send(2))  # 8 s there
    await poll(lambda: rig.agent.states["edge-a"].queued == 1)
    wake(rig)
    rig.upstream.release()
    assert [r.pool for r in await asyncio.gather(*tasks)] == ["cloud-a", "cloud-a", "edge-a"]


async def test_no_health_check_reaches_a_pool_that_sleeps(rig, poll):
    checks = Counter()
    rig.upstream.checked = lambda pool: checks.update([pool])
    await rig_with_cloud(rig, poll)
    await poll(lambda: checks["cloud-a"] >= 6)  # as often as both are checked
    assert checks["edge-a"] == 0
    wake(rig)
    await poll(lambda: checks["edge-a"])


async def test_it_goes_back_to_sleep_and_wakes_again(rig, poll):
    await asleep(rig, poll)
    for n in range(3):
        task = rig.send(n)
        await poll(lambda: rig.agent.states["edge-a"].queued == 1)
        wake(rig)
        assert (await task).status == 200
        wake(rig, running=0)
        await poll(lambda: rig.agent.states["edge-a"].start_s == START_S and rig.agent.states["edge-a"].off)


async def test_who_goes_away_while_waiting_leaves_the_queue(rig, poll):
    await asleep(rig, poll)
    task = rig.send()
    await poll(lambda: rig.agent.states["edge-a"].queued == 1)
    task.cancel()
    await poll(lambda: rig.agent.states["edge-a"].queued == 0)
    wake(rig)
    assert (await rig.post()).status == 200
    assert len(rig.upstream.seen) == 1


async def test_it_sleeps_on_through_a_reload_and_the_old_process_ends(rig, poll):
    await asleep(rig, poll)
    before = rig.agent.holders._process
    rig.reload(rig.spec)
    await poll(lambda: rig.agent.holders._process not in {None, before})
    await poll(lambda: rig.agent.states["edge-a"].held and rig.agent.states["edge-a"].start_s == START_S)
    await rig.get_json(rig.url + "/healthz")  # a kept connection has one more answer of the old process
    task = rig.send()
    await poll(lambda: rig.agent.states["edge-a"].queued == 1)
    wake(rig)
    assert (await task).status == 200
    await poll(lambda: not process_lives(before))


def process_lives(pid: int) -> bool:
    import psutil

    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


async def test_without_the_agent_a_sleeper_refuses_at_once_and_others_go_on(rig, poll):
    await rig_with_cloud(rig, poll)
    await rig.close_agent()
    assert (await rig.post()).pool == "cloud-a"
    reply = await rig.post(cls="near")
    assert (reply.status, reply.headers["Retry-After"]) == (503, "7")


async def test_a_sleeping_pool_is_ready_and_its_models_are_listed(rig, poll):
    await rig.start((rig.pool("edge-a", 0, sleeps=True, models=("large",)),))
    rig.decisions = {"edge-a": {"running": 0, "startup_s": START_S}}
    await rig.start_decisions()
    await rig.start_agent()
    await poll(lambda: rig.agent.states["edge-a"].start_s)
    assert (await rig.get_json(rig.url + "/readyz"))[0] == 200
    listed = (await rig.get_json(rig.url + "/v1/models"))[1]["data"]
    assert {m["id"] for m in listed} == {"assistant", "large"}
