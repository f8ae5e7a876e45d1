"""Real vLLM on a CPU behind the interface of engines, without Ray."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator

import orjson
import psutil
import pytest
import pytest_asyncio

from tierserve_serving.app import build
from tierserve_serving.config import PoolConfig
from tierserve_serving.engines import EngineError, RequestError
from tierserve_serving.engines.base import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES
from tierserve_serving.engines.vllm import VllmEngine
from tierserve_serving.engines.vllm_args import ArgumentError, parse

pytestmark = [pytest.mark.llm, pytest.mark.slow, pytest.mark.timeout(1200), pytest.mark.asyncio(loop_scope="module")]
ASK = [{"role": "user", "content": "What is the capital of France?"}]
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": CITY}}
ON_A_CPU = {"dtype": "float32", "enforce_eager": "true", "kv_cache_memory_bytes": str(2**29)}


def config(model, **changes) -> PoolConfig:
    base = {
        "service": "assistant",
        "tier": "cloud",
        "model": "smollm2",
        "engine": "vllm",
        "source": f"file://{model}",
        "slots": 4,
        "context_tokens": 1024,
        "max_output_tokens": 80,
        "engine_args": ON_A_CPU,
    }
    return PoolConfig.model_validate(base | changes)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(model, adapter) -> AsyncIterator[VllmEngine]:
    tools = {"enable_auto_tool_choice": "true", "tool-call-parser": "hermes"}
    os.environ["OMP_NUM_THREADS"] = "1"  # as in a replica; more would wait for each other on a busy machine
    made = VllmEngine(config(model, adapters={"pirate": f"file://{adapter}"}, engine_args=ON_A_CPU | tools))
    with pytest.raises(EngineError, match="no model"):
        made.check_health()
    await made.load()
    made.check_health()
    yield made
    made.close()


async def parts(engine: VllmEngine, path: str = CHAT, **document):
    document = {"model": "smollm2"} | ({"messages": ASK} if path == CHAT else {}) | document
    return [part async for part in engine.respond(path, document)]


async def whole(engine: VllmEngine, path: str = CHAT, **document):
    (part,) = await parts(engine, path, **document)
    return orjson.loads(part.data), part.usage


async def events(engine: VllmEngine, path: str = CHAT, **document):
    got = await parts(engine, path, stream=True, **document)
    lines = b"".join(part.data for part in got).decode().split("\n")
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [orjson.loads(line) for line in data if line != "[DONE]"], got


def text(answer) -> str:
    return answer["choices"][0]["message"]["content"]


async def settled(condition, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_a_chat_is_the_same_streamed_or_not_and_its_tokens_and_times_are_counted(engine):
    answer, usage = await whole(engine, max_tokens=12, temperature=0.0)
    assert "Paris" in text(answer)
    assert answer["model"] == "smollm2"
    told = answer["usage"]
    assert (usage.input_tokens, usage.output_tokens) == (told["prompt_tokens"], told["completion_tokens"])
    (timing,) = usage.timings
    assert timing.steps == usage.output_tokens - 1
    assert timing.prefill_s > 0.0 < timing.decode_s
    assert timing.decode_batch == pytest.approx(1.0)
    pieces, got = await events(engine, max_tokens=12, temperature=0.0, stream_options={"include_usage": True})
    deltas = [piece["choices"][0]["delta"].get("content") or "" for piece in pieces if piece["choices"]]
    assert "".join(deltas) == text(answer)
    assert pieces[-1]["usage"]["completion_tokens"] == got[-1].usage.output_tokens == usage.output_tokens
    assert sum(part.tokens for part in got) == usage.output_tokens


async def test_log_probabilities_choices_and_echo_are_vllms_own(engine):
    answer, usage = await whole(engine, max_tokens=3, n=2, logprobs=True, top_logprobs=2)
    assert [len(choice["logprobs"]["content"][0]["top_logprobs"]) for choice in answer["choices"]] == [2, 2]
    assert usage.output_tokens == 6
    answer, _ = await whole(engine, COMPLETIONS, prompt="One, two,", max_tokens=3, echo=True)
    assert answer["choices"][0]["text"].startswith("One, two,")


async def test_json_schema_and_a_forced_tool_call_give_json_of_the_schema(engine):
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": CITY}}
    answer, _ = await whole(engine, max_tokens=60, temperature=0.0, response_format=form)
    assert set(orjson.loads(text(answer))) == {"city"}
    forced = {"type": "function", "function": {"name": "get_weather"}}
    answer, _ = await whole(engine, max_tokens=60, temperature=0.0, tools=[WEATHER], tool_choice=forced)
    (call,) = answer["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    assert set(orjson.loads(call["function"]["arguments"])) == {"city"}


async def test_responses_are_served_whole_and_streamed(engine):
    answer, usage = await whole(engine, RESPONSES, input="Say hello", max_output_tokens=5)
    assert usage.output_tokens == answer["usage"]["output_tokens"] == 5
    pieces, got = await events(engine, RESPONSES, input="Say hello", max_output_tokens=5)
    assert pieces[-1]["type"] in ("response.completed", "response.incomplete")
    assert got[-1].usage.output_tokens == 5


async def test_an_adapter_answers_under_its_name(engine):
    plain, _ = await whole(engine, max_tokens=8, temperature=0.0)
    other, _ = await whole(engine, max_tokens=8, temperature=0.0, model="pirate")
    assert other["model"] == "pirate"
    assert text(other) != text(plain)


@pytest.mark.parametrize("stream", [False, True])
async def test_closing_the_answer_frees_the_sequence(engine, stream):
    asked = asyncio.create_task(parts(engine, ignore_eos=True, max_tokens=80, stream=stream))
    await settled(lambda: engine.gauges()["engine_running"] == 1.0)
    assert engine.gauges()["kv_cache_usage"] > 0.0
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await settled(lambda: engine.gauges()["engine_running"] == 0.0, 20.0)
    engine.check_health()


async def test_requests_share_the_batch(engine):
    for got in await asyncio.gather(*(parts(engine, max_tokens=16, ignore_eos=True) for _ in range(3))):
        assert 2.0 < got[-1].usage.timings[0].decode_batch < 3.01


async def test_an_answer_has_at_most_the_pools_tokens(engine):
    _, usage = await whole(engine, max_tokens=90, ignore_eos=True)
    assert usage.output_tokens == 80


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (CHAT, {"messages": 5}, "messages"),
        (CHAT, {"messages": []}, "messages"),
        (CHAT, {"messages": IMAGE}, "messages"),
        (CHAT, {"messages": [{"role": "user", "content": "w " * 2000}]}, "messages"),
        (CHAT, {"top_k": "x"}, "top_k"),
        (CHAT, {"n": -1}, "n"),
        (CHAT, {"temperature": -1}, "temperature"),
        (CHAT, {"response_format": {"type": "yaml"}}, "response_format.type"),
        (CHAT, {"response_format": {"type": "json_schema"}}, "response_format"),
        (CHAT, {"logprobs": True, "top_logprobs": 500}, "top_logprobs"),
        (CHAT, {"top_logprobs": 5}, "top_logprobs"),
        (CHAT, {"tools": [WEATHER], "tool_choice": "sometimes"}, "tool_choice"),
        (CHAT, {"tool_choice": "required"}, "tool_choice"),
        (CHAT, {"stream_options": {"include_usage": True}}, "stream_options"),
        (COMPLETIONS, {"prompt": "a", "suffix": "b"}, "suffix"),
        (COMPLETIONS, {"prompt": "a", "logprobs": 500}, "logprobs"),
        (COMPLETIONS, {"prompt": "w " * 2000}, "prompt"),
        (RESPONSES, {"input": "w " * 2000}, "input"),
    ],
)
async def test_what_vllm_cannot_do_is_an_error_that_names_vllm_and_the_field(engine, path, fields, param):
    with pytest.raises(RequestError) as caught:
        await whole(engine, path, **fields)
    assert (caught.value.status, caught.value.param) == (400, param)
    message = str(caught.value)
    assert message.startswith("vLLM: ")
    assert message.count("vLLM:") == 1
    assert "'loc'" not in message  # pydantic's error as text of Python
    engine.check_health()


async def test_the_cache_that_vllm_has_sized_is_known_in_requests_of_the_full_context(engine):
    a_token = 2 * 30 * 3 * 64 * 4  # bytes: keys and values, layers, heads, size of a head, float32
    assert engine.gauges()["kv_cache_full_contexts"] == pytest.approx(2**29 / (1024 * a_token), rel=0.1)


async def test_a_model_run_for_pooling_gives_embeddings_and_has_no_other_endpoint(model):
    engine = VllmEngine(config(model, engine_args=ON_A_CPU | {"runner": "pooling", "convert": "embed"}))
    await engine.load()
    try:
        assert engine.endpoints == {EMBEDDINGS}
        answer, usage = await whole(engine, EMBEDDINGS, input=["the sky", "a river"])
        assert [len(item["embedding"]) for item in answer["data"]] == [576, 576]
        assert (usage.output_tokens, usage.input_tokens) == (0, answer["usage"]["prompt_tokens"])
    finally:
        engine.close()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_modl_len": "5"}, "unrecognized arguments: --max-modl-len"),
        ({"enforce_eager": "maybe"}, "must be true or false"),
        ({"gpu_memory_utilization": "much"}, "gpu-memory-utilization"),
        ({"max_num_seqs": "5"}, "max_num_seqs: is set by TierServe; hint: set maxConcurrency"),
        ({"port": "8000"}, "port: is set by TierServe"),
        ({"enable_auto_tool_choice": "true"}, "tool-call-parser"),
    ],
)
async def test_an_argument_that_vllm_or_tierserve_refuses_is_named_before_a_replica_starts(given, message):
    with pytest.raises(ArgumentError, match=message):
        build(config("/not/on/this/machine", engine_args=ON_A_CPU | given).model_dump())


async def test_arguments_reach_vllm(model):
    given = {"enable-prefix-caching": "false", "quantization": "awq", "hf_overrides": '{"a": 1}'}
    arguments = parse(config(model, engine_args=given, tensor_parallel=4))
    assert (arguments.enable_prefix_caching, arguments.quantization, arguments.hf_overrides) == (False, "awq", {"a": 1})
    assert (arguments.tensor_parallel_size, arguments.max_num_seqs, arguments.max_model_len) == (4, 4, 1024)


async def test_a_configuration_that_vllm_refuses_is_named(model):
    extended = ON_A_CPU | {"hf_overrides": "{}"}  # so that the context is not refused before vLLM reads it
    with pytest.raises(ArgumentError, match="derived max_model_len"):
        await VllmEngine(config(model, context_tokens=10_000, engine_args=extended)).load()


async def test_a_context_longer_than_the_models_or_than_its_cache_is_named_before_vllm_starts(model):
    with pytest.raises(ValueError, match=r"contextTokens: must be at most 8192.*ContextTooLong.*hint"):
        await VllmEngine(config(model, context_tokens=8193)).load()
    small = ON_A_CPU | {"kv_cache_memory_bytes": str(2**20)}
    with pytest.raises(ValueError, match=r"contextTokens: 1024 tokens need .*KVCacheTooSmall.*hint"):
        await VllmEngine(config(model, engine_args=small)).load()


async def test_an_adapter_of_another_base_is_named_before_vllm_starts(model, adapter, tmp_path):
    other = tmp_path / "base"
    shutil.copytree(model, other, ignore=shutil.ignore_patterns("*.safetensors"))
    document = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(document | {"hidden_size": 2 * document["hidden_size"]}))
    with pytest.raises(ArgumentError, match=r"adapters\.pirate: .*AdapterMismatch.*hint"):
        await VllmEngine(config(other, adapters={"pirate": f"file://{adapter}"})).load()


async def test_an_engine_that_was_killed_fails_its_requests_and_is_unhealthy(engine):
    """The last test of the module: it ends the engine."""
    asked = asyncio.create_task(parts(engine, ignore_eos=True, max_tokens=80, stream=True))
    await settled(lambda: engine.gauges()["engine_running"] == 1.0)
    children = (p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE)
    (core,) = (p for p in children if "EngineCore" in "".join(p.cmdline()))
    core.send_signal(signal.SIGKILL)
    with pytest.raises(EngineError):
        await asked
    with pytest.raises(EngineError):
        engine.check_health()
    with pytest.raises(EngineError):
        await whole(engine)
