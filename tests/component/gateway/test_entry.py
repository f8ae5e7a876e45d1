"""Requests that the gateway answers itself: they are no demand on any tier."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest

pytestmark = pytest.mark.haproxy
ORIGIN = "http://localhost:3000"


async def ask(rig, method, path, **kwargs):
    async with rig.client.request(method, rig.url + path, **kwargs) as answer:
        return answer.status, dict(answer.headers), await answer.text()


async def scaled_to_zero(rig, poll, **kwargs):
    await rig.start((rig.pool("edge-a", 0, slots=2, scale_to_zero=True, models=("light", "org/large")),), **kwargs)
    rig.decisions = {"edge-a": {"running": 0, "startup_s": 7.0}}
    await rig.start_decisions()
    await rig.start_agent()
    await poll(lambda: rig.agent.states["edge-a"].start_s)


UNANSWERABLE = [
    ("POST", "/v1/moderations", 404, "unknown_url"),
    ("POST", "/v1/audio/speech", 404, "unknown_url"),
    ("GET", "/v1/.env", 404, "unknown_url"),
    ("GET", "/", 404, "unknown_url"),
    ("GET", "/metrics", 404, "unknown_url"),
    ("POST", "/v1/chat/completions/", 404, "unknown_url"),
    ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
    ("OPTIONS", "/v1/chat/completions", 405, "method_not_allowed"),
    ("DELETE", "/v1/completions", 405, "method_not_allowed"),
    ("POST", "/v1/models", 405, "method_not_allowed"),
    ("DELETE", "/v1/models/light", 405, "method_not_allowed"),
    ("GET", "/v1/models/huge", 404, "model_not_found"),
]


async def test_invalid_requests_are_refused_at_once_and_are_no_demand_on_any_tier(rig, poll):
    await scaled_to_zero(rig, poll)
    for method, path, status, code in UNANSWERABLE:
        body = '{"model": "light"}' if method == "POST" else None
        headers = {"Content-Type": "application/json", "Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
        got, found, text = await ask(rig, method, path, data=body, headers=headers)
        error = json.loads(text)["error"]
        assert (got, error["code"], error["type"]) == (status, code, "invalid_request_error"), (method, path)
        assert ("Allow" in found) == (status == 405)
    for body in ({"model": "gpt-4o-mini"}, {"model": 5}, {"model": ["light"]}, {"model": {}}, [], "light", None):
        reply = await rig.post(data=json.dumps(body))
        assert reply.status == (404 if body == {"model": "gpt-4o-mini"} else 400), body
        assert reply.error["type"] == "invalid_request_error"
    garbage = await rig.post(data='{"model": ')
    assert (garbage.status, garbage.error["code"]) == (400, "invalid_json")
    form = await rig.post(headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert (form.status, form.error["code"]) == (415, "unsupported_media_type")
    seen = rig.agent.polled
    await poll(lambda: rig.agent.polled > seen + 0.2)  # the counters have been read since
    assert (rig.agent.offered.totals, rig.agent.offered.arrivals) == ({"edge-a": 0}, {"edge-a": 0})
    assert rig.agent.states["edge-a"].total == 0
    assert rig.upstream.seen == []


async def test_the_body_of_a_refused_request_is_read_before_the_response(rig):
    """A client that is still sending when the connection is closed sees a reset, not the error."""
    await rig.start((rig.pool("edge-a", 5),), max_body_bytes=2**20)
    await rig.start_agent()
    for size in (1_000, 60_000, 300_000, 3_000_000):
        body, known = b'{"model": "assistant", "x": "' + b"x" * size + b'"}', 200 if size < 2**20 else 413
        for method, path, kind, status in (
            ("POST", "/v1/moderations", "application/json", 404 if size < 2**20 else 413),
            ("PUT", "/v1/completions", "application/json", 405 if size < 2**20 else 413),
            ("POST", "/v1/models", "application/json", 405 if size < 2**20 else 413),
            ("POST", "/v1/completions", "text/plain", 415 if size < 2**20 else 413),
            ("POST", "/v1/completions", "application/json", known),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", rig.spec.port)
            head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode())
            await writer.drain()
            for at in range(0, len(body), 40_000):
                writer.write(body[at : at + 40_000])
                await writer.drain()
            line = await reader.readline()
            writer.close()
            assert line.startswith(f"HTTP/1.1 {status} ".encode()), (size, method, path, kind, line)


async def test_an_unknown_model_is_named_with_those_that_exist(rig):
    await rig.start((rig.pool("edge-a", 5, models=("light",)),))
    await rig.start_agent()
    async with openai.AsyncOpenAI(base_url=rig.url + "/v1", api_key="none", max_retries=0) as client:
        messages = [{"role": "user", "content": "word " * 60_000}]
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.chat.completions.create(model="gpt-4o", messages=messages)
        assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.NotFoundError) as path:
            await client.moderations.create(model="light", input="word " * 60_000)
        assert path.value.code == "unknown_url"
    assert rig.upstream.seen == []


async def test_health_models_and_version_are_answered_for_a_tier_scaled_to_zero(rig, poll):
    await scaled_to_zero(rig, poll, version="1.2.3")
    for path in ("/health", "/healthz", "/readyz"):
        assert (await ask(rig, "GET", path))[0] == 200
        assert (await ask(rig, "HEAD", path))[0] == 200
    assert json.loads((await ask(rig, "GET", "/version"))[2]) == {"version": "1.2.3"}
    status, listed = await rig.get_json(rig.url + "/v1/models")
    assert (status, [m["id"] for m in listed["data"]]) == (200, ["assistant", "light", "org/large"])
    assert (await rig.get_json(rig.url + "/v1/models/org/large"))[1]["id"] == "org/large"
    async with openai.AsyncOpenAI(base_url=rig.url + "/v1", api_key="none", max_retries=0) as client:
        assert (await client.models.retrieve("org/large")).id == "org/large"
    assert rig.agent.offered.totals == {"edge-a": 0}
    assert rig.upstream.seen == []


async def test_health_is_503_while_no_tier_can_serve(rig, poll):
    await rig.start((rig.pool("edge-a", 5),))
    rig.upstream.sick.add("edge-a")
    await rig.start_agent()
    await poll(lambda: not rig.agent.states["edge-a"].up)
    assert [(await ask(rig, "GET", path))[0] for path in ("/health", "/readyz", "/healthz")] == [503, 503, 200]


@pytest.mark.parametrize(
    "path", ["/edge-a/v1/completions", "/v1/../edge-a/v1/completions", "/v1/%2E%2e/edge-a/healthz"]
)
async def test_no_path_climbs_out_of_the_prefix_of_its_pool(rig, path):
    await rig.start((rig.pool("edge-a", 5),))
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.spec.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    assert answer.startswith("HTTP/1.1 404")
    assert rig.upstream.seen == []


async def test_a_body_over_the_limit_is_413(rig):
    await rig.start((rig.pool("edge-a", 5),), max_body_bytes=10_000)
    await rig.start_agent()
    large = await rig.post(data="x" * 10_001)
    assert (large.status, large.error["code"]) == (413, "request_too_large")

    async def parts():
        for _ in range(11):
            yield b" " * 1000

    chunked = await rig.post(data=parts())
    assert (chunked.status, chunked.error["code"]) == (413, "request_too_large")


PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
}


@pytest.mark.parametrize("origins", [(ORIGIN, "https://chat.example.com"), ("*",)])
async def test_a_page_of_an_allowed_origin_may_call_and_reads_errors_and_streams(rig, origins):
    await rig.start((rig.pool("edge-a", 5),), cors_origins=origins)
    await rig.start_agent()
    shown = "*" if origins == ("*",) else ORIGIN
    status, headers, _ = await ask(rig, "OPTIONS", "/v1/chat/completions", headers=PREFLIGHT)
    assert (status, headers["Access-Control-Allow-Origin"]) == (204, shown)
    assert "POST" in headers["Access-Control-Allow-Methods"]
    assert headers["Access-Control-Allow-Headers"] == PREFLIGHT["Access-Control-Request-Headers"]
    assert rig.upstream.seen == []
    model_last = json.dumps({"x": "a" * 100_000, "model": "assistant"})
    calls = [
        await rig.post(headers={"Origin": ORIGIN}),
        await rig.post(data=model_last, headers={"Origin": ORIGIN}),
        await rig.post(model="unknown", headers={"Origin": ORIGIN}),
        await rig.post(cls="unknown", headers={"Origin": ORIGIN}),
    ]
    assert [reply.status for reply in calls] == [200, 200, 404, 400]
    assert {reply.headers["Access-Control-Allow-Origin"] for reply in calls} == {shown}
    assert {reply.headers.get("Vary") for reply in calls} == {None if shown == "*" else "Origin"}
    assert "X-TierServe-Pool" in calls[0].headers["Access-Control-Expose-Headers"]


@pytest.mark.parametrize("origins", [(), ("https://chat.example.com",)])
async def test_a_page_of_another_origin_is_not_let_in(rig, origins):
    await rig.start((rig.pool("edge-a", 5),), cors_origins=origins)
    status, headers, _ = await ask(rig, "OPTIONS", "/v1/chat/completions", headers=PREFLIGHT)
    assert (status, "Access-Control-Allow-Origin" in headers) == (405, False)
    assert "Access-Control-Allow-Origin" not in (await rig.post(headers={"Origin": ORIGIN})).headers
