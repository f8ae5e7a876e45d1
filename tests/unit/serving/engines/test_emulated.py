from __future__ import annotations

import asyncio

import pytest

from tierserve.queueing.batching.profile import BatchProfile
from tierserve_serving.engines import RequestError
from tierserve_serving.engines.emulated import EmulatedEngine, count_tokens
from tierserve_serving.engines.generation import Generation

TICK_S = 1.5e-3  # an event so near is delivered at once
PROFILE = BatchProfile(alpha=0.004, beta=1e-4, gamma=1e-6)


async def timed(engine: EmulatedEngine, **fields) -> tuple[float, list[float], str]:
    """Return the time of the answer, the times of its chunks and its text."""
    now = asyncio.get_running_loop().time
    begin, times, text = now(), [], ""
    async for chunk in engine.generate(Generation("one two three four", **fields)):
        times.append(now() - begin)
        text += chunk.text
    return times[-1], times, text


@pytest.mark.parametrize("streamed", [False, True])
def test_a_batch_of_n_takes_t_of_n_by_the_clock(streamed, in_virtual_time):
    async def four() -> list[tuple[float, list[float], str]]:
        engine = EmulatedEngine(PROFILE)
        return await asyncio.gather(*(timed(engine, max_tokens=30, streamed=streamed) for _ in range(4)))

    expected = PROFILE.service_time(4, 4, 30)
    for took, times, _ in in_virtual_time(four()):
        assert took == pytest.approx(expected, abs=TICK_S)
        assert len(times) == (31 if streamed else 1)  # the end comes a step after the last token
        if streamed:
            assert times[0] == pytest.approx(PROFILE.prefill(4, 4, 30), abs=TICK_S)


def test_a_request_speeds_up_when_the_others_are_gone(in_virtual_time):
    async def three_ways() -> tuple[float, float, float]:
        engine = EmulatedEngine(BatchProfile(alpha=0.001, beta=0.0, gamma=1e-4))
        alone, _, _ = await timed(engine, max_tokens=40)
        short = [timed(engine, max_tokens=15) for _ in range(3)]
        for_a_while, _, _ = (await asyncio.gather(timed(engine, max_tokens=40), *short))[0]
        always, _, _ = (await asyncio.gather(*(timed(engine, max_tokens=40) for _ in range(4))))[0]
        return alone, for_a_while, always

    alone, for_a_while, always = in_virtual_time(three_ways())
    assert alone < for_a_while < always


def test_a_cancelled_request_leaves_the_batch_at_once(in_virtual_time):
    async def after_one_that_left() -> float:
        engine = EmulatedEngine(BatchProfile(alpha=1e-3, beta=0.0, gamma=1e-4))
        leaver = asyncio.create_task(timed(engine, max_tokens=4000))
        await asyncio.sleep(0.01)
        leaver.cancel()
        await asyncio.gather(leaver, return_exceptions=True)
        return (await timed(engine, max_tokens=20))[0]

    alone = BatchProfile(1e-3, 0, 1e-4).service_time(1, 4, 20)
    assert in_virtual_time(after_one_that_left()) == pytest.approx(alone, abs=TICK_S)


async def test_the_streamed_text_is_the_text():
    engine = EmulatedEngine(PROFILE)
    _, _, whole = await timed(engine, max_tokens=12, seed=4)
    _, _, streamed = await timed(engine, max_tokens=12, seed=4, streamed=True)
    assert whole == streamed
    assert len(whole.split()) == 12


async def test_the_answer_has_no_more_tokens_than_the_pool_and_the_context_allow():
    text = (await timed(EmulatedEngine(PROFILE, max_output_tokens=7), max_tokens=50))[2]
    assert len(text.split()) == 7
    text = (await timed(EmulatedEngine(PROFILE, context=10), max_tokens=50))[2]
    assert len(text.split()) == 6  # four words of prompt


def test_a_prompt_that_fills_the_context_is_refused():
    with pytest.raises(RequestError, match="context"):
        EmulatedEngine(PROFILE, context=10).check(Generation("word " * 10))


def test_a_text_without_blanks_has_tokens_too():
    assert count_tokens("") == 0
    assert count_tokens("two words") == 2
    assert count_tokens("字" * 80) == 10
