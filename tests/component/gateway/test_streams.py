"""Streams, disconnects and the official client, through real HAProxy."""

from __future__ import annotations

import asyncio
import json
import signal
import time

import openai
import pytest
from aiohttp import web

pytestmark = pytest.mark.haproxy


async def test_parts_of_a_stream_arrive_as_they_are_made(rig):
    await rig.start((rig.pool("edge-a", 1),))
    go_on = asyncio.Event()

    async def answer(request, body):
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        await stream.write(b"data: one\n\n")
        await asyncio.wait_for(go_on.wait(), 5)
        await stream.write(b"data: two\n\n")
        return stream

    rig.upstream.answer = answer
    async with rig.client.post(rig.url + "/v1/chat/completions", json={"model": "assistant"}) as reply:
        assert await asyncio.wait_for(reply.content.readuntil(b"\n\n"), 3) == b"data: one\n\n"
        go_on.set()
        assert await reply.content.readuntil(b"\n\n") == b"data: two\n\n"


async def test_a_stream_arrives_token_for_token(rig):
    """Small writes are forwarded at once: HAProxy delayed them, and tokens arrived in bursts of 200 ms."""
    await rig.start((rig.pool("edge-a", 1),))
    tokens, each_s = 30, 0.05
    sent: list[float] = []

    async def answer(request, body):
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        for n in range(tokens):
            sent.append(time.monotonic())
            await stream.write(b"data: %d\n\n" % n)
            await asyncio.sleep(each_s)
        return stream

    rig.upstream.answer = answer
    delays = []
    async with rig.client.post(rig.url + "/v1/chat/completions", json={"model": "assistant"}) as reply:
        for n in range(tokens):
            assert await reply.content.readuntil(b"\n\n") == b"data: %d\n\n" % n
            delays.append(time.monotonic() - sent[n])
    # Of most tokens: a busy machine may delay some of them, but held-back writes delay nine of ten.
    assert sorted(delays)[tokens // 2] < each_s


async def test_streams_and_their_first_tokens_are_measured_under_opentelemetrys_names(rig, poll):
    await rig.start((rig.pool("edge-a", 1),))
    agent = await rig.start_agent()

    async def answer(request, body):
        if not body.get("stream"):
            return web.json_response({})
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await stream.prepare(request)
        await stream.write(b"data: one\n\n")
        await asyncio.sleep(0.3)
        return stream

    rig.upstream.answer = answer
    for stream in (True, False):
        reply = await rig.post(data=json.dumps({"model": "assistant", "stream": stream}))
        assert reply.status == 200
    labels = {
        "pool": "edge-a", "tier": "edge", "gen_ai_operation_name": "chat", "gen_ai_provider_name": "tierserve",
        "gen_ai_request_model": "assistant",
    }  # fmt: skip

    def value(name, **more):
        return agent.metrics.registry.get_sample_value(f"gen_ai_server_{name}", labels | more) or 0.0

    await poll(lambda: value("request_duration_seconds_count", error_type="") == 2)
    assert value("time_to_first_token_seconds_count") == 1
    stream_s = value("request_duration_seconds_sum", error_type="")
    assert value("time_to_first_token_seconds_sum") + 0.25 < stream_s, "the rest of the stream is no part of it"


async def test_a_stream_longer_than_every_timeout_is_not_cut(rig):
    await rig.start((rig.pool("edge-a", 1),), queue_timeout_s=0.3, response_timeout_s=0.3, client_timeout_s=0.3)

    async def answer(request, body):
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        for n in range(10):
            await stream.write(f"data: {n}\n\n".encode())
            await asyncio.sleep(0.1)
        return stream

    rig.upstream.answer = answer
    reply = await rig.post()
    assert reply.took_s > 0.9
    assert reply.text.count("data:") == 10


async def test_a_stream_is_finished_though_the_signal_to_stop_is_repeated(rig):
    """The entry point repeats it, for HAProxy's master may lose the first."""
    await rig.start((rig.pool("edge-a", 1),))
    go_on = asyncio.Event()

    async def answer(request, body):
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        await stream.write(b"data: one\n\n")
        await go_on.wait()
        await stream.write(b"data: two\n\n")
        return stream

    rig.upstream.answer = answer
    async with rig.client.post(
        rig.url + "/v1/chat/completions", json={"model": "assistant"}, headers={"Connection": "close"}
    ) as reply:
        assert await reply.content.readuntil(b"\n\n") == b"data: one\n\n"
        for _ in range(3):
            rig.haproxy.send_signal(signal.SIGUSR1)
            await asyncio.sleep(0.3)
        go_on.set()
        assert await reply.content.readuntil(b"\n\n") == b"data: two\n\n"
    assert await asyncio.to_thread(rig.haproxy.wait, 20) == 0


async def test_a_client_that_only_waits_is_not_timed_out(rig):
    await rig.start((rig.pool("edge-a", 1),), client_timeout_s=0.2)
    rig.upstream.service_s = 0.5
    first, queued = await asyncio.gather(rig.post(), rig.post())
    assert (first.status, queued.status) == (200, 200)


async def test_silence_longer_than_the_response_timeout_is_504(rig):
    await rig.start((rig.pool("edge-a", 1),), response_timeout_s=0.2)
    rig.upstream.hold()
    reply = await rig.post()
    assert (reply.status, reply.error["code"]) == (504, "gateway_timeout")
    assert len(rig.upstream.seen) == 1


async def test_a_disconnect_cancels_the_request_and_frees_the_slot(rig, poll):
    await rig.start((rig.pool("edge-a", 1),))
    await rig.start_agent()
    rig.upstream.hold()
    working = rig.send(0)
    await poll(lambda: rig.upstream.seen)
    waiting = rig.send(1)
    await poll(lambda: rig.agent.states["edge-a"].queued == 1)
    waiting.cancel()
    await poll(lambda: rig.agent.states["edge-a"].queued == 0)
    working.cancel()
    await poll(lambda: rig.upstream.cancelled == 1)
    await poll(lambda: rig.agent.states["edge-a"].in_flight == 0)
    rig.upstream.release()
    assert (await rig.post(2)).status == 200
    assert [body["n"] for _, body in rig.upstream.seen] == [0, 2]


async def test_a_disconnect_during_a_stream_cancels_the_request(rig, poll):
    await rig.start((rig.pool("edge-a", 1),))

    async def answer(request, body):
        stream = web.StreamResponse()
        await stream.prepare(request)
        for _ in range(1000):
            await stream.write(b"data: x\n\n")
            await asyncio.sleep(0.01)
        return stream

    rig.upstream.answer = answer
    async with rig.client.post(rig.url + "/v1/chat/completions", json={"model": "assistant"}) as reply:
        await reply.content.readuntil(b"\n\n")
        reply.close()
    await poll(lambda: rig.upstream.in_flight["edge-a"] == 0, 5)


def _completion(body, text):
    return {
        "id": "c-1",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }


async def _openai_like(request, body):
    if not body.get("stream"):
        return web.json_response(_completion(body, "hello there"))
    stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await stream.prepare(request)
    for word in ("hello ", "there"):
        chunk = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
        chunk["choices"] = [{"index": 0, "delta": {"content": word}, "finish_reason": None}]
        await stream.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    await stream.write(b"data: [DONE]\n\n")
    return stream


async def test_the_official_client_chats_streams_and_reads_errors(rig):
    await rig.start((rig.pool("edge-a", 2, models=("light",)),), max_queue=0)
    rig.upstream.answer = _openai_like
    messages = [{"role": "user", "content": "hi"}]
    async with openai.AsyncOpenAI(base_url=rig.url + "/v1", api_key="none", max_retries=0) as client:
        assert [m.id async for m in client.models.list()] == ["assistant", "light"]
        done = await client.chat.completions.create(model="assistant", messages=messages)
        assert done.choices[0].message.content == "hello there"
        stream = await client.chat.completions.create(model="light", messages=messages, stream=True)
        assert "".join([c.choices[0].delta.content or "" async for c in stream]) == "hello there"
        with pytest.raises(openai.BadRequestError) as bad:
            headers = {"X-TierServe-Class": "nope"}
            await client.chat.completions.create(model="light", messages=messages, extra_headers=headers)
        assert bad.value.code == "unknown_class"
        rig.upstream.hold()
        held = [asyncio.create_task(client.chat.completions.create(model="light", messages=messages)) for _ in "ab"]
        await asyncio.sleep(0.1)
        with pytest.raises(openai.InternalServerError) as full:
            await client.chat.completions.create(model="light", messages=messages)
        assert (full.value.status_code, full.value.code) == (503, "overloaded")
        rig.upstream.release()
        await asyncio.gather(*held)
