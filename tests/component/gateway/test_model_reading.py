"""Routing by the field `model`, at any position in the body and in any valid JSON."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import openai
import pytest
from aiohttp import web

from tierserve_serving.gateway import model_reader

pytestmark = pytest.mark.haproxy
WORDS = "word " * 60_000


async def two_models(rig, slots=5, **kwargs):
    await rig.start(
        (rig.pool("edge-a", slots, models=("light",)), rig.pool("cloud-a", slots, models=("org/large",))), **kwargs
    )
    await rig.start_agent()


def nested(depth):
    value = {"model": "light"}
    for _ in range(depth):
        value = {"model": value}
    return value


BODIES = {
    "last of a large body": json.dumps({"messages": [{"content": WORDS}], "model": "org/large"}),
    "first of a large body": json.dumps({"model": "org/large", "messages": [{"content": WORDS}]}),
    "an escaped slash": '{"model": "org\\/large"}',
    "an escaped letter": '{"model": "\\u006frg/large"}',
    "an escaped key": '{"mod\\u0065l": "org/large"}',
    "blanks": '\n{ "a" : [ ] ,\t"model"\r\n:  "org/large" }\n',
    "beside a model of a message": '{"messages": [{"model": "light"}], "x": {"model": "light"}, "model": "org/large"}',
    "in a text": json.dumps({"messages": '{"model": "light"}, "model": "light"', "model": "org/large"}),
    "after deep nesting": json.dumps({"tools": nested(60), "model": "org/large"}),
    "beside a quote and a backslash": json.dumps({"messages": '\\"}], "model": "light" \\', "model": "org/large"}),
    "text that is not ASCII": json.dumps({"messages": "größer 模型 " * 9000, "model": "org/large"}, ensure_ascii=False),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_requests_are_routed_by_model_in_any_json_encoding(rig, body):
    await two_models(rig)
    reply = await rig.post(data=body.encode())
    assert (reply.status, reply.pool) == (200, "cloud-a")
    assert rig.upstream.seen == [("cloud-a", json.loads(body))]
    headers = {name.lower(): value for name, value in rig.upstream.headers[0].items()}
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert reply.headers["X-Request-ID"] == headers["x-request-id"]
    assert float(headers["x-request-start"].removeprefix("t=")) > 0
    assert "x-tierserve-model" not in headers


@pytest.mark.parametrize("body", ['{"n": 1}', '{"model": null}'])
async def test_without_a_model_any_tier_may_serve_it_as_with_vllm(rig, body):
    await two_models(rig)
    assert (await rig.post(data=body)).pool == "edge-a"


async def test_a_header_cannot_choose_the_model(rig):
    await two_models(rig)
    assert (await rig.post(model="light", headers={"X-TierServe-Model": "org/large"})).pool == "edge-a"


async def test_a_body_of_the_largest_size_arrives_whole(rig):
    size = 8 * 2**20
    await two_models(rig, max_body_bytes=size)
    tail = '", "model": "org/large"}'
    body = '{"x": "' + "a" * (size - 7 - len(tail)) + tail
    reply = await rig.post(data=body)
    assert (reply.status, reply.pool) == (200, "cloud-a")
    assert len(rig.upstream.seen[0][1]["x"]) == size - 7 - len(tail)


async def test_a_large_request_of_the_official_client_is_streamed_token_for_token(rig):
    await two_models(rig)
    go_on = asyncio.Event()

    async def answer(request, body):
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        for word in ("one ", "two"):
            chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
            chunk["choices"] = [{"index": 0, "delta": {"content": word}, "finish_reason": None}]
            await stream.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
            await asyncio.wait_for(go_on.wait(), 20)
        await stream.write(b"data: [DONE]\n\n")
        return stream

    rig.upstream.answer = answer
    async with openai.AsyncOpenAI(base_url=rig.url + "/v1", api_key="none", max_retries=0) as client:
        messages = [{"role": "user", "content": WORDS}]
        stream = await client.chat.completions.create(model="org/large", messages=messages, stream=True)
        first = await anext(stream)  # it comes while the second is held back
        go_on.set()
        rest = [chunk.choices[0].delta.content async for chunk in stream]
    assert (first.choices[0].delta.content, rest) == ("one ", ["two"])
    assert rig.upstream.by_pool() == {"cloud-a": 1}


async def test_a_large_request_is_counted_once_and_waits_as_others_do(rig, poll):
    await two_models(rig, slots=1)
    rig.upstream.hold()
    tasks = [rig.send(data=BODIES["last of a large body"]) for _ in range(2)]
    await poll(lambda: rig.agent.states["cloud-a"].queued == 1)
    assert rig.agent.offered.arrivals == {"edge-a": 0, "cloud-a": 2}
    rig.upstream.release()
    assert {reply.pool for reply in await asyncio.gather(*tasks)} == {"cloud-a"}
    await poll(lambda: rig.agent.status()["pools"]["cloud-a"]["count"] == 2)
    assert rig.agent.status()["not_routed"] is None


async def test_a_disconnect_cancels_a_large_request_too(rig, poll):
    await two_models(rig, slots=1)
    rig.upstream.hold()
    task = rig.send(data=BODIES["last of a large body"])
    await poll(lambda: rig.upstream.seen)
    task.cancel()
    await poll(lambda: rig.upstream.cancelled == 1)
    await poll(lambda: rig.agent.states["cloud-a"].in_flight == 0)


async def test_an_incomplete_response_is_incomplete_for_the_client(rig):
    await two_models(rig)

    async def answer(request, body):
        stream = web.StreamResponse()
        await stream.prepare(request)
        await stream.write(b"data: one\n\n")
        request.transport.abort()
        return stream

    rig.upstream.answer = answer
    with pytest.raises(aiohttp.ClientError):
        await rig.post(data=BODIES["last of a large body"])
    assert len(rig.upstream.seen) == 1


async def test_bodies_above_the_memory_limit_are_503_and_other_requests_are_served(rig, poll, monkeypatch):
    monkeypatch.setattr(model_reader, "MOST_HELD_BYTES", 500_000)
    await two_models(rig)
    rig.upstream.hold()
    held = rig.send(data=BODIES["last of a large body"])
    await poll(lambda: rig.upstream.seen)
    refused = await rig.post(data=BODIES["last of a large body"])
    assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
    small = rig.send(model="org/large")
    await poll(lambda: len(rig.upstream.seen) == 2)
    rig.upstream.release()
    assert {reply.status for reply in await asyncio.gather(held, small)} == {200}
    assert (await rig.post(data=BODIES["last of a large body"])).status == 200


async def test_without_the_agent_only_what_haproxy_cannot_read_is_503(rig):
    await two_models(rig)
    await rig.close_agent()
    refused = await rig.post(data=BODIES["last of a large body"])
    assert (refused.status, refused.headers["Retry-After"], refused.error["type"]) == (503, "1", "server_error")
    assert (await rig.post(model="org/large")).pool == "cloud-a"
    assert (await rig.post(data=BODIES["first of a large body"])).pool == "cloud-a"
