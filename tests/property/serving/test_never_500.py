"""For any input the response is 200 or an error object with 4xx; no exception, no lost slot."""

from __future__ import annotations

import asyncio
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from tierserve_serving.config import PoolConfig
from tierserve_serving.engines.emulated import EmulatedEngine
from tierserve_serving.openai.app import Ingress
from tierserve_serving.replica.worker import Worker

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KNOWN = [
    "model",
    "messages",
    "prompt",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "seed",
    "n",
    "stop",
    "stream",
    "stream_options",
    "tools",
    "logprobs",
    "response_format",
    "best_of",
    "echo",
    "suffix",
    "tool_choice",
    "modalities",
    "logit_bias",
]
contents = st.text(max_size=30) | st.lists(
    st.fixed_dictionaries({"type": st.just("text"), "text": st.text(max_size=9)}), max_size=3
)
roles = st.sampled_from(["system", "user", "assistant", "developer", "tool"])
messages = st.lists(st.fixed_dictionaries({"role": roles, "content": contents | anything}), max_size=3)
likely = {
    "model": st.sampled_from(["m", "s", "other"]),
    "messages": messages,
    "prompt": st.text(max_size=20)
    | st.lists(st.integers(-1, 2**40), max_size=4)
    | st.lists(st.text(max_size=5) | st.lists(st.integers(0, 9), max_size=3), max_size=3),
    "n": st.integers(-1, 3),
    "echo": st.booleans(),
    "max_tokens": st.integers(-1, 40),
    "stream": st.booleans(),
    "stop": st.text(max_size=3) | st.lists(st.text(max_size=3), max_size=5),
    "seed": st.integers(-(2**63), 2**64),
}
bodies = st.fixed_dictionaries({}, optional={name: likely.get(name, anything) | anything for name in KNOWN})


async def ask(worker: Worker, path: str, body: bytes, headers: list, method: str = "POST") -> tuple[int, bytes]:
    inbox: asyncio.Queue = asyncio.Queue()
    inbox.put_nowait({"type": "http.request", "body": body})
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": headers}
    await asyncio.wait_for(Ingress(worker)(scope, inbox.get, send), 5)
    starts = [message for message in sent if message["type"] == "http.response.start"]
    assert len(starts) == 1
    assert not sent[-1].get("more_body", False)
    return starts[0]["status"], b"".join(message.get("body", b"") for message in sent)


def check(path: str, body: bytes, headers: list = (), method: str = "POST") -> None:
    async def main() -> None:
        config = PoolConfig(
            service="s",
            tier="t",
            model="m",
            slots=1,
            max_queue=0,
            profile={"alpha": 1e-6},
            output_tokens=3,
            max_output_tokens=50,
            max_body_bytes=100_000,
        )
        worker = Worker(config, EmulatedEngine.of(config))
        status, answer = await ask(worker, path, body, list(headers), method)
        assert status == 200 or 400 <= status < 500
        if status != 200:
            assert set(json.loads(answer)["error"]) == {"message", "type", "param", "code"}
        assert worker.report()["running"] == worker.report()["waiting"] == 0

    asyncio.run(main())


paths = st.sampled_from(["/v1/chat/completions", "/v1/completions"])


@settings(max_examples=150, deadline=None)
@given(paths, bodies)
def test_no_json_object_makes_a_500(path, body):
    check(path, json.dumps(body).encode())


@settings(max_examples=50, deadline=None)
@given(paths, st.characters(categories=["Cs"]) | st.text(max_size=5))
def test_no_lone_surrogate_makes_a_500(path, text):
    body = {"model": "m", "messages": [{"role": "user", "content": text}], "prompt": text, "stop": text, "user": text}
    check(path, json.dumps(body).encode())


@settings(max_examples=50, deadline=None)
@given(paths, anything.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60))
def test_no_other_body_makes_a_500(path, body):
    check(path, body)


@settings(max_examples=60, deadline=None)
@given(
    st.text(max_size=30).map(lambda text: "/" + text) | paths,
    st.sampled_from(["GET", "POST", "PUT", "HEAD", "DELETE", "BREW"]),
    st.lists(
        st.tuples(
            st.sampled_from([b"content-type", b"content-length", b"x-request-id", b"x-request-start", b"x"]),
            st.binary(max_size=20) | st.sampled_from([b"9" * 6000, b"t=1e999", b"application/json; charset=x"]),
        ),
        max_size=4,
    ),
)
def test_no_path_method_or_header_makes_a_500(path, method, headers):
    check(path, b'{"model": "m", "prompt": "a"}', headers, method)
