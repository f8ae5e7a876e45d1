"""Pools scaled to zero: requests wait in the gateway's queue until a replica is ready, or get 503 with Retry-After."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

pytestmark = pytest.mark.haproxy
START_S = 7.0


async def scaled_to_zero(rig, poll, *, others=(), slots=2, classes=None, **kwargs):
    """Starts a gateway whose pool edge-a is scaled to zero; `others` have a replica."""
    names = [p.name for p in others]
    await rig.start((rig.pool("edge-a", 0, slots=slots, scale_to_zero=True), *others), classes, **kwargs)
    rig.decisions = {"edge-a": {"running": 0, "startup_s": START_S}} | {n: {"running": 1} for n in names}
    await rig.start_decisions()
    await rig.start_agent()
    await poll(lambda: rig.agent.states["edge-a"].start_s == START_S)


def start_replica(rig, running=1):
    rig.decisions["edge-a"] = {"running": running, "startup_s": START_S}


async def test_a_request_to_a_pool_without_a_replica_is_queued_and_served_when_one_is_ready(rig, poll):
    await scaled_to_zero(rig, poll)
    task = rig.send(1)
    await poll(lambda: rig.agent.states["edge-a"].queued == 1)
    status, demand = await rig.get_json(rig.agent_url + "/pools/edge-a")
    assert (status, demand["queued"], demand["in_flight"], demand["arrivals_total"]) == (200, 1, 0, 1)
    assert not task.done()
    start_replica(rig)
    reply = await task
    assert (reply.status, reply.pool) == (200, "edge-a")
    assert (await rig.post()).status == 200


async def test_queued_requests_are_served_in_order_and_at_most_as_many_at_once_as_there_are_slots(rig, poll):
    await scaled_to_zero(rig, poll)
    rig.upstream.service_s = 0.05
    tasks = []
    for n in range(8):
        tasks.append(rig.send(n))
        await poll(lambda n=n: rig.agent.states["edge-a"].queued == n + 1)
    start_replica(rig)
    assert {r.status for r in await asyncio.gather(*tasks)} == {200}
    assert [body["n"] for _, body in rig.upstream.seen] == list(range(8))
    assert rig.upstream.most["edge-a"] <= 2


async def test_a_request_with_a_large_body_is_queued_too(rig, poll):
    await scaled_to_zero(rig, poll)
    task = rig.send(data='{"model": "assistant", "n": 1, "words": "' + "x" * 300_000 + '"}')
    await poll(lambda: rig.agent.states["edge-a"].queued == 1)
    start_replica(rig)
    assert (await task).status == 200


async def test_after_the_queue_timeout_retry_after_is_the_start_up_time(rig, poll):
    await scaled_to_zero(rig, poll, queue_timeout_s=0.3)
    reply = await rig.post()
    assert (reply.status, reply.headers["Retry-After"]) == (503, "7")
    assert reply.error["code"] == "overloaded"
    assert reply.took_s > 0.25
    assert rig.upstream.seen == []


async def test_a_request_that_another_tier_serves_at_once_is_no_demand_on_the_pool(rig, poll):
    await rig_with_cloud(rig, poll)
    reply = await rig.post()
    assert (reply.status, reply.pool) == (200, "cloud-a")
    await poll(lambda: rig.agent.offered.bypassed["edge-a"] == 1)
    assert rig.agent.offered.totals == {"edge-a": 0, "cloud-a": 1}
    assert (await rig.get_json(rig.agent_url + "/pools/edge-a"))[1]["bypassed_total"] == 1


async def rig_with_cloud(rig, poll, service_s=1.0):
    cloud = rig.pool("cloud-a", 1, service_s=service_s)
    await scaled_to_zero(rig, poll, others=(cloud,), classes={"chat": ("edge", "cloud"), "near": ("edge",)})


async def test_a_class_that_may_use_only_this_pool_waits_for_it(rig, poll):
    await rig_with_cloud(rig, poll)
    task = rig.send(cls="near")
    await poll(lambda: rig.agent.states["edge-a"].queued == 1)
    assert rig.agent.offered.totals["edge-a"] == 1
    start_replica(rig)
    assert (await task).pool == "edge-a"


async def test_when_other_pools_are_full_the_shortest_expected_wait_includes_the_start_up_time(rig, poll):
    await rig_with_cloud(rig, poll, service_s=4.0)
    rig.upstream.hold()
    tasks = [rig.send(0)]
    await poll(lambda: rig.agent.states["cloud-a"].in_flight == 1)
    tasks.append(rig.send(1))  # expected wait: 4 s at the cloud, 7 s (start-up) at the edge
    await poll(lambda: rig.agent.states["cloud-a"].queued == 1)
    assert rig.agent.offered.totals["edge-a"] == 1
    tasks.append(rig.send(2))  # 8 s at the cloud
    await poll(lambda: rig.agent.states["edge-a"].queued == 1)
    start_replica(rig)
    rig.upstream.release()
    assert [r.pool for r in await asyncio.gather(*tasks)] == ["cloud-a", "cloud-a", "edge-a"]


async def test_no_health_check_reaches_a_pool_scaled_to_zero(rig, poll):
    checks = Counter()
    rig.upstream.checked = lambda pool: checks.update([pool])
    await rig_with_cloud(rig, poll)
    await poll(lambda: checks["cloud-a"] >= 6)  # as often as both are checked
    assert checks["edge-a"] == 0
    start_replica(rig)
    await poll(lambda: checks["edge-a"])


async def test_it_scales_to_zero_and_up_again(rig, poll):
    await scaled_to_zero(rig, poll)
    for n in range(3):
        task = rig.send(n)
        await poll(lambda: rig.agent.states["edge-a"].queued == 1)
        start_replica(rig)
        assert (await task).status == 200
        start_replica(rig, running=0)
        await poll(lambda: rig.agent.states["edge-a"].start_s == START_S and rig.agent.states["edge-a"].maintenance)


async def test_a_client_that_disconnects_leaves_the_queue(rig, poll):
    await scaled_to_zero(rig, poll)
    task = rig.send()
    await poll(lambda: rig.agent.states["edge-a"].queued == 1)
    task.cancel()
    await poll(lambda: rig.agent.states["edge-a"].queued == 0)
    start_replica(rig)
    assert (await rig.post()).status == 200
    assert len(rig.upstream.seen) == 1


async def test_it_stays_scaled_to_zero_through_a_reload_and_the_old_process_ends(rig, poll):
    await scaled_to_zero(rig, poll)
    before = rig.agent.held_slots._process
    rig.reload(rig.spec)
    await poll(lambda: rig.agent.held_slots._process not in {None, before})
    await poll(lambda: rig.agent.states["edge-a"].waiting_room_taken and rig.agent.states["edge-a"].start_s == START_S)
    await rig.get_json(rig.url + "/healthz")  # a keep-alive connection gets one more response of the old process
    task = rig.send()
    await poll(lambda: rig.agent.states["edge-a"].queued == 1)
    start_replica(rig)
    assert (await task).status == 200
    await poll(lambda: not process_lives(before))


def process_lives(pid: int) -> bool:
    import psutil

    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


async def test_without_the_agent_the_pool_refuses_at_once_and_others_serve(rig, poll):
    await rig_with_cloud(rig, poll)
    await rig.close_agent()
    assert (await rig.post()).pool == "cloud-a"
    reply = await rig.post(cls="near")
    assert (reply.status, reply.headers["Retry-After"]) == (503, "7")


async def test_a_pool_scaled_to_zero_is_ready_and_its_models_are_listed(rig, poll):
    await rig.start((rig.pool("edge-a", 0, scale_to_zero=True, models=("large",)),))
    rig.decisions = {"edge-a": {"running": 0, "startup_s": START_S}}
    await rig.start_decisions()
    await rig.start_agent()
    await poll(lambda: rig.agent.states["edge-a"].start_s)
    assert (await rig.get_json(rig.url + "/readyz"))[0] == 200
    listed = (await rig.get_json(rig.url + "/v1/models"))[1]["data"]
    assert {m["id"] for m in listed} == {"assistant", "large"}
