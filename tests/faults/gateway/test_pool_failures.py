"""Failures of a pool: a request is retried once, fails over, or gets an API error."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import web

pytestmark = pytest.mark.haproxy


def _hang_up(times):
    left = [times]

    async def answer(request, body):
        if left[0] > 0:
            left[0] -= 1
            request.transport.abort()
        return web.json_response({"ok": True})

    return answer


async def test_a_request_is_retried_once_if_the_pool_closes_the_connection_before_the_response(rig):
    await rig.start((rig.pool("edge-a", 2),))
    rig.upstream.answer = _hang_up(1)
    reply = await rig.post()
    assert (reply.status, len(rig.upstream.seen)) == (200, 2)


async def test_502_if_the_pool_closes_the_connection_twice(rig):
    await rig.start((rig.pool("edge-a", 2),))
    rig.upstream.answer = _hang_up(5)
    reply = await rig.post()
    assert reply.status in {502, 503}
    assert reply.error["type"] == "server_error"
    assert len(rig.upstream.seen) == 2


async def test_no_retry_after_the_response_has_begun(rig):
    await rig.start((rig.pool("edge-a", 2),))

    async def answer(request, body):
        stream = web.StreamResponse()
        await stream.prepare(request)
        await stream.write(b"data: one\n\n")
        request.transport.abort()
        return stream

    rig.upstream.answer = answer
    with pytest.raises(aiohttp.ClientError):
        await rig.post()
    assert len(rig.upstream.seen) == 1


@pytest.mark.parametrize(("status", "shown"), [(404, 503), (500, 502), (502, 502), (503, 503), (504, 504)])
async def test_a_proxys_plain_text_error_becomes_an_api_error(rig, status, shown):
    await rig.start((rig.pool("edge-a", 2),))

    async def answer(request, body):
        return web.Response(status=status, text="Path not found or replica died")

    rig.upstream.answer = answer
    reply = await rig.post()
    assert (reply.status, reply.error["type"]) == (shown, "server_error")
    assert len(rig.upstream.seen) == (2 if status in {404, 500, 502, 503} else 1)


async def test_a_replicas_own_api_error_passes_unchanged(rig):
    await rig.start((rig.pool("edge-a", 2),))
    error = {
        "error": {"message": "context too long", "type": "invalid_request_error", "param": "messages", "code": "x"}
    }

    async def answer(request, body):
        return web.json_response(error, status=400)

    rig.upstream.answer = answer
    reply = await rig.post()
    assert (reply.status, reply.error) == (400, error["error"])


async def test_fails_over_when_a_pools_health_check_fails_and_comes_back(rig, poll):
    await rig.start((rig.pool("edge-a", 5), rig.pool("cloud-a", 5)))
    agent = await rig.start_agent()
    rig.upstream.sick.add("edge-a")
    await poll(lambda: not agent.states["edge-a"].up)
    assert [(await rig.post()).pool for _ in range(3)] == ["cloud-a"] * 3
    rig.upstream.sick.clear()
    await poll(lambda: agent.states["edge-a"].up)
    assert (await rig.post()).pool == "edge-a"


async def test_a_pool_that_refuses_connections_is_soon_down(rig):
    dead = rig.pool("edge-a", 5, port=1)
    await rig.start((dead, rig.pool("cloud-a", 5)), health_interval_s=2.0)
    loop = asyncio.get_running_loop()
    start = loop.time()
    replies = [await rig.post()]
    while replies[-1].status != 200:
        assert replies[-1].error["type"] == "server_error"
        assert loop.time() - start < 8
        replies.append(await rig.post())
    assert replies[-1].pool == "cloud-a"


async def test_a_private_class_never_leaves_its_tiers(rig, poll):
    classes = {"chat": ("edge", "cloud"), "private": ("edge",)}
    await rig.start((rig.pool("edge-a", 1), rig.pool("cloud-a", 5)), classes, max_queue=0)
    agent = await rig.start_agent()
    rig.upstream.hold()
    held = rig.send(cls="private")
    await poll(lambda: rig.upstream.seen)
    full = await rig.post(cls="private")
    assert (full.status, full.error["code"]) == (503, "overloaded")
    rig.upstream.release()
    await held
    rig.upstream.sick.add("edge-a")
    await poll(lambda: not agent.states["edge-a"].up)
    down = await rig.post(cls="private")
    assert (down.status, down.error["code"]) == (503, "tier_unavailable")
    assert "class private" in down.error["message"]
    assert (await rig.post(cls="chat")).pool == "cloud-a"
    assert [pool for pool, _ in rig.upstream.seen] == ["edge-a", "cloud-a"]


async def test_a_model_whose_only_pool_is_down_is_unavailable_though_its_class_has_another_pool(rig, poll):
    await rig.start((rig.pool("edge-a", 1, models=("light",)), rig.pool("cloud-a", 1, models=("large",))), max_queue=0)
    agent = await rig.start_agent()
    rig.upstream.sick.add("edge-a")
    await poll(lambda: not agent.states["edge-a"].up)
    down = await rig.post(model="light")
    assert (down.status, down.error["code"]) == (503, "tier_unavailable")
    assert "edge" in down.error["message"]
    assert "cloud" not in down.error["message"], "the cloud does not serve this model"
    assert "Retry-After" in down.headers
    rig.upstream.hold()
    held = rig.send(model="large")
    await poll(lambda: rig.upstream.seen)
    assert (await rig.post(model="large")).error["code"] == "overloaded"
    assert (await rig.post()).error["code"] == "overloaded", "any model: one pool is up, and it is full"
    rig.upstream.release()
    assert (await held).pool == "cloud-a"
