from __future__ import annotations

import asyncio
import json
import time

import pytest

from tierserve_serving.ingress import Ingress

CHAT = {"model": "assistant", "messages": [{"role": "user", "content": "hello there"}]}


async def chat(client, **changes):
    return await client.post("/v1/chat/completions", json=CHAT | changes)


def events(text: str) -> list:
    return [line.removeprefix("data: ") for line in text.split("\n\n") if line]


async def test_the_length_is_the_one_asked_for_else_the_pools(client):
    short = (await chat(client, max_tokens=2)).json()
    default = (await chat(client)).json()
    newer = (await chat(client, max_tokens=9, max_completion_tokens=3)).json()
    assert [a["usage"]["completion_tokens"] for a in (short, default, newer)] == [2, 5, 3]
    assert [a["choices"][0]["finish_reason"] for a in (short, default)] == ["length", "stop"]


async def test_the_same_prompt_and_seed_give_the_same_text(client):
    texts = [(await chat(client, seed=seed)).json()["choices"][0]["message"]["content"] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


async def test_the_answer_ends_before_a_stop(client):
    full = (await chat(client, max_tokens=6)).json()["choices"][0]["message"]["content"]
    third = full.split()[2]
    for stream in (False, True):
        answer = await chat(client, max_tokens=6, stop=[third], stream=stream)
        if stream:
            pieces = [json.loads(event)["choices"][0] for event in events(answer.text)[:-1]]
            text = "".join(piece["delta"].get("content") or "" for piece in pieces)
            reason = pieces[-1]["finish_reason"]
        else:
            text, reason = (answer.json()["choices"][0][key] for key in ("message", "finish_reason"))
            text = text["content"]
        assert text == full[: full.index(third)]
        assert reason == "stop"


async def test_a_stream_ends_with_done_and_has_usage_only_when_asked(client):
    bare = events((await chat(client, stream=True, max_tokens=2)).text)
    asked = events((await chat(client, stream=True, max_tokens=2, stream_options={"include_usage": True})).text)
    assert bare[-1] == asked[-1] == "[DONE]"
    assert len(asked) == len(bare) + 1 == 6  # role, two tokens, finish, (usage,) done
    assert json.loads(asked[-2])["usage"]["total_tokens"] == 4


async def test_text_parts_are_joined(client):
    parts = [{"type": "text", "text": "hello "}, {"type": "text", "text": "there"}]
    plain = (await chat(client)).json()["choices"][0]["message"]
    assert (await chat(client, messages=[{"role": "user", "content": parts}])).json()["choices"][0]["message"] == plain


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_completion_tokens": -5}, "max_completion_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"seed": "a"}, "seed"),
        ({"n": 2}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": []}, "stream_options"),
        ({"stop": [1]}, "stop"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"model": None}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [7]}, "messages.0"),
        ({"messages": [{"role": "king", "content": ""}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0"),
        ({"tools": [{}]}, "tools"),
        ({"logprobs": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": [{"role": "user", "content": "word " * 790}], "max_tokens": 1}, None),
    ],
)
async def test_a_wrong_field_is_400_and_named(client, changes, param):
    answer = await chat(client, **changes)
    if param is None:
        assert answer.status_code == 200
        return
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert error["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"[" * 4000, b'{"a": NaN}', b'"\\ud800"'])
async def test_what_is_not_a_json_object_is_400(client, body):
    answer = await client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


async def test_an_unknown_model_is_404_with_the_names_that_exist(client):
    answer = await chat(client, model="gpt-17")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert "llama-7b" in answer.json()["error"]["message"]


async def test_a_huge_body_is_413_whether_its_length_is_declared_or_not(client):
    async def pieces():
        for _ in range(10):
            yield b" " * 1000

    for body in (b" " * 10_000, pieces()):
        answer = await client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


async def test_another_content_type_is_415(client):
    answer = await client.post("/v1/chat/completions", data={"a": "b"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (415, "Content-Type")


async def test_the_wrong_method_is_405_and_an_unknown_path_404(client):
    wrong = await client.get("/v1/chat/completions")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert (await client.delete("/v1/models")).status_code == 405
    assert (await client.get("/v2/anything")).json()["error"]["code"] == "unknown_url"
    assert (await client.post("/")).status_code == 404


async def test_a_sane_request_id_is_taken_over_and_another_is_replaced(client):
    sane = await client.get("/healthz", headers={"X-Request-ID": "abc-1.2:3_4"})
    assert sane.headers["x-request-id"] == "abc-1.2:3_4"
    for strange in ("a b", "x" * 200, '"><script>'):
        answer = await client.get("/healthz", headers={"X-Request-ID": strange})
        assert len(answer.headers["x-request-id"]) == 32


async def test_the_wait_at_the_gateway_is_counted_and_nonsense_is_not(client, worker):
    for start in (f"t={time.time() - 2:.3f}", f"{time.time() - 1:.3f}", "t=yesterday", "t=5", f"t={time.time() + 50}"):
        await client.post("/v1/chat/completions", json=CHAT | {"max_tokens": 1}, headers={"X-Request-Start": start})
    assert worker.report()["gateway_wait_seconds_total"] == pytest.approx(3.0, abs=0.1)


async def test_a_route_prefix_is_no_part_of_the_path(worker):
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/edge/v1/models", "root_path": "/edge", "headers": []}
    await Ingress(worker)(scope, None, send)
    assert sent[0]["status"] == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_frees_its_slot_at_once(worker, stream):
    """Driven as a plain ASGI server would: the disconnect is a message and nobody cancels the task."""
    body = json.dumps(CHAT | {"max_tokens": 4000, "stream": stream}).encode()
    inbox: asyncio.Queue = asyncio.Queue()
    inbox.put_nowait({"type": "http.request", "body": body})
    sent: asyncio.Queue = asyncio.Queue()
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": []}
    task = asyncio.create_task(Ingress(worker)(scope, inbox.get, sent.put))
    await (sent.get() if stream else asyncio.sleep(0.02))
    assert worker.report()["running"] == 1
    inbox.put_nowait({"type": "http.disconnect"})
    await asyncio.wait_for(task, 1.0)
    assert worker.report()["running"] == 0
    assert worker.report()["cancelled_total"] == 1


async def test_above_the_queue_bound_the_answer_is_503_with_retry_after(client):
    answers = await asyncio.gather(*(chat(client, max_tokens=30, stream=k % 2 == 0) for k in range(6)))
    refused = [answer for answer in answers if answer.status_code == 503]
    assert len(refused) == 3  # two slots, one place in the queue
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)


async def test_health_tells_the_pool_and_its_load(client):
    health = (await client.get("/healthz")).json()
    assert health["status"] == "ok"
    assert (health["pool"], health["slots"], health["running"]) == ("edge-default", 2, 0)
