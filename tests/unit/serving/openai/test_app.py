from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from tierserve_serving.engines import EngineError
from tierserve_serving.openai.app import Ingress

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


TOOLS = [{"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}]
TOOL_CALL = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
HI = {"role": "user", "content": "hi"}
BODIES = [json.loads(line) for line in (Path(__file__).parent / "bodies.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body["case"])
async def test_bodies_that_other_servers_take_are_taken(client, body):
    content = body["raw"].encode() if "raw" in body else json.dumps(body["body"]).encode()
    content = content.replace(b'"large"', b'"assistant"')
    path = body.get("path", "/v1/chat/completions")
    answer = await client.post(path, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    "changes",
    [
        {"max_tokens": 0},
        {"max_tokens": "3"},
        {"max_completion_tokens": -1},
        {"max_completion_tokens": 4.0},
        {"max_tokens": 10**12, "stop": " "},
        {"temperature": 3},
        {"top_p": 0},
        {"seed": -5},
        {"seed": 2**64 - 1},
        {"n": None, "stop": None, "logit_bias": {}, "tools": [], "stream_options": None, "response_format": None},
        {"user": "u", "metadata": {"a": "b"}, "store": True, "service_tier": "auto", "parallel_tool_calls": False},
        {"stop": ""},
        {"stop": ["", "x" * 1000]},
        {"stream_options": {"include_usage": True}},
        {"tools": TOOLS},
        {"tools": TOOLS, "tool_choice": "auto"},
        {"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}},
        {"functions": [{"name": "f"}], "function_call": "none"},
        {"response_format": {"type": "text"}, "modalities": ["text"]},
        {"logprobs": False, "top_logprobs": 0},
        {"model": None},
        {"top_k": 20, "min_p": 0.1, "repetition_penalty": 1.1, "a field of tomorrow": {"x": [1]}},
        {"messages": [{"role": "developer", "content": "be brief"}, HI]},
        {"messages": [HI, {"role": "assistant", "tool_calls": [TOOL_CALL]}, {"role": "tool", "content": "noon"}]},
        {"messages": [HI, {"role": "function", "name": "clock", "content": "noon"}]},
        {"messages": [HI, {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, HI]},
        {"messages": [{"role": "user", "content": []}, {"role": "user", "content": ["a", "b"]}]},
        {"messages": [{"role": "king", "content": "long live"}]},
    ],
)
async def test_a_field_as_a_client_of_vllm_llamacpp_or_openai_sends_it_is_taken(client, changes):
    answer = await chat(client, **{"max_tokens": 2} | changes)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"max_tokens": -2}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_completion_tokens": -5}, "max_completion_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"seed": "a"}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"n": 0}, "n"),
        ({"n": 10**6}, "n"),
        ({"stream": "sometimes"}, "stream"),
        ({"stream_options": 5}, "stream_options"),
        ({"stream_options": {"include_usage": "x"}}, "stream_options.include_usage"),
        ({"stop": [1]}, "stop"),
        ({"stop": {"a": 1}}, "stop"),
        ({"model": 5}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [7]}, "messages.0"),
        ({"messages": [{"content": "a"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "name": 1, "content": "a"}]}, "messages.0.name"),
    ],
)
async def test_an_invalid_field_is_400_and_named(client, changes, param):
    answer = await chat(client, **changes)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert error["message"]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0"),
        ({"tools": TOOLS, "tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "clock"}}}, "tool_choice"),
        ({"logprobs": True}, "logprobs"),
        ({"best_of": 3}, "best_of"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
    ],
)
async def test_an_unsupported_field_is_400_with_field_and_engine(client, changes, param):
    answer = await chat(client, **changes)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, "unsupported_parameter")
    assert param in error["message"]
    assert "emulated" in error["message"]


@pytest.mark.parametrize(
    ("prompt", "choices", "prompt_tokens"),
    [
        ("a b", 1, 2),
        (["a b"], 1, 2),
        (["a b", "c"], 2, 3),
        ([1, 2, 3, 4], 1, 4),
        ([1.0, 2.0], 1, 2),
        ([[1, 2, 3], [4]], 2, 4),
        ("", 1, 0),
    ],
)
@pytest.mark.parametrize("n", [1, 3])
async def test_every_form_of_prompt_is_answered_n_times(client, prompt, choices, prompt_tokens, n):
    body = {"model": "assistant", "prompt": prompt, "n": n, "max_tokens": 2, "seed": 1}
    whole = (await client.post("/v1/completions", json=body)).json()
    assert [choice["index"] for choice in whole["choices"]] == list(range(choices * n))
    usage = (whole["usage"]["prompt_tokens"], whole["usage"]["completion_tokens"])
    assert usage == (prompt_tokens, 2 * choices * n)  # a prompt counts once for its n answers
    streamed = await client.post(
        "/v1/completions", json=body | {"stream": True, "stream_options": {"include_usage": True}}
    )
    *pieces, last, done = events(streamed.text)
    texts = [""] * (choices * n)
    for piece in map(json.loads, pieces):
        texts[piece["choices"][0]["index"]] += piece["choices"][0]["text"]
    assert texts == [choice["text"] for choice in whole["choices"]]
    assert json.loads(last)["usage"] == whole["usage"]
    assert done == "[DONE]"
    assert len(set(texts)) == choices * n  # one seed does not make n equal answers


@pytest.mark.parametrize("prompt", [None, [], 5, {}, [[]], ["a", 1], [1, -1], [True], [1.5], [2**40], [[1], "a", None]])
async def test_a_prompt_of_no_known_form_is_400(client, prompt):
    answer = await client.post("/v1/completions", json={"model": "assistant", "prompt": prompt})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt")


async def test_echo_puts_the_prompt_before_the_answer(client):
    body = {"model": "assistant", "prompt": ["one two", "three"], "max_tokens": 2, "echo": True}
    whole = (await client.post("/v1/completions", json=body)).json()
    assert [choice["text"].startswith(text) for choice, text in zip(whole["choices"], body["prompt"], strict=True)]
    ids = await client.post("/v1/completions", json=body | {"prompt": [1, 2]})
    assert (ids.status_code, ids.json()["error"]["param"]) == (400, "echo")


async def test_n_chat_answers_are_streamed_with_their_index_and_take_one_slot(client, worker):
    answer = await chat(client, n=2, seed=3, stream=True, max_tokens=2)
    choices = [json.loads(event)["choices"][0] for event in events(answer.text)[:-1]]
    assert [choice["index"] for choice in choices] == [0] * 4 + [1] * 4  # role, two tokens, finish
    assert [choice["delta"].get("role") for choice in choices].count("assistant") == 2
    assert (worker.report()["arrivals_total"], worker.report()["completions_total"]) == (1, 1)
    assert worker.report()["running"] == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff",
        b"[" * 4000,
        b'{"a": NaN}',
        b'"\\ud800"',
        b'{"a": "\\ud800", "b": NaN}',
    ],
)
async def test_what_is_not_a_json_object_is_400(client, body):
    answer = await client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


async def test_an_unknown_model_is_404_with_the_names_that_exist(client):
    answer = await chat(client, model="gpt-17")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert "llama-7b" in answer.json()["error"]["message"]


async def test_a_path_that_the_engine_does_not_have_is_404_and_names_the_engine(client):
    for path in ("/v1/embeddings", "/v1/responses"):
        answer = await client.post(path, json={"model": "assistant", "input": "hello"})
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "unsupported_endpoint"
        assert "emulated" in answer.json()["error"]["message"]


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
async def test_a_disconnect_frees_the_slot_at_once(worker, stream):
    """Driven as a plain ASGI server would: the disconnect is a message, and the server does not cancel the task."""
    body = json.dumps(CHAT | {"max_tokens": 4000, "stream": stream}).encode()
    inbox: asyncio.Queue = asyncio.Queue()
    inbox.put_nowait({"type": "http.request", "body": body})
    sent: asyncio.Queue = asyncio.Queue()
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": []}
    task = asyncio.create_task(Ingress(worker)(scope, inbox.get, sent.put))
    if stream:
        await sent.get()
    while not worker.report()["running"]:
        await asyncio.sleep(0)
    inbox.put_nowait({"type": "http.disconnect"})
    await asyncio.wait_for(task, 30.0)
    assert worker.report()["running"] == 0
    assert worker.report()["cancelled_total"] == 1


async def test_above_the_queue_bound_the_answer_is_503_with_retry_after(client):
    answers = await asyncio.gather(*(chat(client, max_tokens=30, stream=k % 2 == 0) for k in range(6)))
    refused = [answer for answer in answers if answer.status_code == 503]
    assert len(refused) == 3  # two slots, one place in the queue
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)


async def test_health_has_the_pool_and_its_load(client):
    health = (await client.get("/healthz")).json()
    assert health["status"] == "ok"
    assert (health["pool"], health["slots"], health["running"]) == ("edge-default", 2, 0)


async def test_health_and_version_answer_as_vllm_does(client, worker):
    assert (await client.get("/health")).status_code == 200
    assert (await client.get("/version")).json().keys() == {"version"}

    def broken() -> None:
        raise EngineError("out of memory")

    worker.engine.check_health = broken
    answer = await client.get("/health")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unhealthy")
