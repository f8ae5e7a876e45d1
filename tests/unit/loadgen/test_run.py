from __future__ import annotations

import asyncio
import math

import aiohttp
import numpy as np
import pytest

from tierserve.loadgen import (
    ClosedLoop,
    LoadError,
    LoadPlan,
    OpenLoop,
    Outcome,
    Replay,
    Step,
    Trace,
    Traffic,
    connection_steps,
    run_load,
)
from tierserve.loadgen.http import first_model
from tierserve.loadgen.scenario import DEFAULT_PROMPT


@pytest.fixture(scope="module")
def event_loop_policy(virtual_time):
    return virtual_time


def plan(url: str, *steps: Step, **more: object) -> LoadPlan:
    return LoadPlan(url, steps, **{"slo_s": 0.2, "timeout_s": 5.0, **more})  # type: ignore[arg-type]


async def test_an_open_loop_shows_the_stall_that_waiting_users_hide(chat):
    """The same stall of 1 s, seen by both loops: coordinated omission, measured."""
    chat.service_s, chat.stall_at, chat.stall_s = 0.01, 0.6, 1.0
    users = await run_load(plan(chat.url, Step("closed", 2.0, (Traffic("u", ClosedLoop(1)),))))
    chat.began = None
    arrivals = await run_load(plan(chat.url, Step("open", 2.0, (Traffic("a", OpenLoop(50, process="constant")),))))

    closed, opened = users.steps[0].all, arrivals.steps[0].all
    assert closed.p95_s < 0.1, "one user waits once and its other requests hide the stall"
    assert closed.within_slo > 0.95
    # 50/s over 2 s; those meant to start in the stalled second waited on average half of it
    assert opened.p95_s > 0.8
    assert opened.p50_s < opened.p95_s
    assert opened.within_slo == pytest.approx(1 - 0.8 / 2, abs=0.08)


async def test_an_open_loop_sends_on_time_whatever_the_service_does(chat):
    chat.service_s = 0.5
    result = await run_load(plan(chat.url, Step("s", 0.4, (Traffic("a", OpenLoop(50, process="constant")),))))
    starts = result.samples.start[np.argsort(result.samples.intended)]
    assert len(starts) == 20
    late = starts - np.sort(result.samples.intended)
    assert np.max(late) < 0.01
    assert chat.peak == 20


async def test_latency_counts_from_the_intended_start(chat):
    trace = Trace("t", "made", np.zeros(5), np.full(5, 3), np.full(5, 7), 0.3)
    result = await run_load(plan(chat.url, Step("s", 0.3, (Traffic("a", Replay(trace)),))))
    assert np.all(result.samples.intended == result.samples.intended[0])
    assert np.all(result.samples.latency >= chat.service_s)
    assert {body["max_tokens"] for body in chat.seen} == {7}


async def test_a_closed_loop_keeps_its_number_of_users_in_every_step(chat):
    steps = connection_steps([1, 4, 2], 0.5, warmup_s=0.2, traffic=Traffic("u", ClosedLoop(0)))
    result = await run_load(plan(chat.url, *steps))
    assert [s.name for s in result.steps] == ["1", "4", "2"]
    assert chat.peak <= 5  # a retired user may still wait for its last answer
    rates = [s.all.rate for s in result.steps]
    assert rates[1] > 1.5 * rates[0]
    assert rates[2] < rates[1]
    assert not any(s.all.errors for s in result.steps)


async def test_think_time_lowers_the_rate_by_the_interactive_response_time_law(chat):
    """X = N / (Z + W), Little's law over users and thoughts."""
    chat.service_s = 0.05
    loop = ClosedLoop(5, think_s=0.15, ramp_s=0.2)
    result = await run_load(plan(chat.url, Step("s", 2.2, (Traffic("u", loop),), 0.2)))
    summary = result.steps[0].all
    assert summary.rate == pytest.approx(5 / (0.15 + summary.mean_s), rel=0.15)


async def test_streams_give_first_token_and_gaps(chat):
    texts: list[tuple[str, str, str]] = []
    traffic = Traffic("u", ClosedLoop(1), streamed=True, keep_text=True)
    result = await run_load(plan(chat.url, Step("s", 0.4, (traffic,))), on_text=lambda *said: texts.append(said))
    summary = result.steps[0].all
    assert chat.service_s < summary.first_token_p50_s < summary.p50_s
    assert summary.token_gap_p50_s == pytest.approx(0.01, abs=0.006)
    assert summary.tokens == 3 * summary.requests
    assert texts[0] == ("u", DEFAULT_PROMPT, "The sky scatters")


async def test_a_stream_without_its_end_is_a_failure(chat):
    chat.cut_stream = True
    result = await run_load(plan(chat.url, Step("s", 0.3, (Traffic("u", ClosedLoop(1), streamed=True),))))
    assert set(result.samples.outcome) == {Outcome.TRUNCATED}
    assert result.steps[0].all.within_slo == 0.0


async def test_refusals_are_misses_and_have_no_response_time(chat):
    chat.status = 503
    result = await run_load(plan(chat.url, Step("s", 0.4, (Traffic("u", ClosedLoop(2)),))))
    summary = result.steps[0].all
    assert summary.within_slo == 0.0
    assert summary.errors == summary.requests
    assert set(summary.errors_by_kind) == {"http_503"}
    assert math.isnan(summary.p95_s)
    assert summary.requests <= 2 * 6, "a refused user pauses before it asks again"


async def test_a_timeout_stays_in_the_tail(chat):
    chat.service_s = 3.0
    result = await run_load(plan(chat.url, Step("s", 0.2, (Traffic("a", OpenLoop(20)),)), timeout_s=0.3))
    summary = result.total()
    assert set(summary.errors_by_kind) == {"timeout"}
    assert summary.p95_s == pytest.approx(0.3, abs=0.1)


async def test_nobody_there_is_counted_as_failed_connections():
    step = Step("s", 0.3, (Traffic("u", ClosedLoop(1)),))
    result = await run_load(plan("http://127.0.0.1:9", step, model="assistant"))
    assert set(result.total().errors_by_kind) == {"connection"}


async def test_a_model_that_nobody_names_is_asked_for_again_and_never_guessed(chat):
    async with aiohttp.ClientSession() as session:
        chat.models_refused = 2
        assert await first_model(session, chat.url) == "assistant"
        chat.models_refused = 1000
        with pytest.raises(LoadError, match=r"/v1/models: no model is listed: 503") as caught:
            await first_model(session, chat.url, patience_s=0.7)
        assert "--model" in caught.value.hint


async def test_classes_run_side_by_side_and_are_told_apart(chat):
    step = Step("s", 0.5, (Traffic("chat", ClosedLoop(3), "chat"), Traffic("me", ClosedLoop(1, 0.1), "personal")))
    result = await run_load(plan(chat.url, step))
    parts = result.steps[0].by_traffic
    assert parts["chat"].requests > parts["me"].requests > 0
    assert {"chat", "personal"} == set(chat.classes)
    assert set(result.steps[0].by_pool) == {"edge-default"}


async def test_stopping_by_hand_returns_what_was_measured(chat):
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.5, stop.set)
    result = await run_load(plan(chat.url, Step("s", 60.0, (Traffic("u", ClosedLoop(2)),))), stop=stop)
    assert result.stopped == "stopped by hand"
    assert not result.steps[0].complete
    assert result.total().requests > 5
    assert result.total().errors == 0
    assert result.steps[0].end_s < 2


async def test_the_bound_of_requests_ends_the_run(chat):
    result = await run_load(plan(chat.url, Step("s", 60.0, (Traffic("u", ClosedLoop(3)),)), max_requests=20))
    assert len(result.samples) == 20
    assert "bound of 20 requests" in result.stopped


async def test_above_the_bound_in_flight_arrivals_are_counted_as_not_sent(chat):
    chat.service_s = 0.5
    step = Step("s", 0.4, (Traffic("a", OpenLoop(50, process="constant")),))
    result = await run_load(plan(chat.url, step, max_in_flight=5))
    assert chat.peak == 5
    assert result.total().errors_by_kind == {"not_sent": 15}


async def test_a_step_that_is_not_admitted_is_skipped_and_named(chat):
    steps = connection_steps([1, 2, 4], 0.3, traffic=Traffic("u", ClosedLoop(0)))
    result = await run_load(plan(chat.url, *steps), admit=lambda step: step.connections < 3)
    assert [s.name for s in result.steps] == ["1", "2"]
    assert result.skipped == ("4",)


async def test_progress_tells_step_rate_and_percentile(chat):
    seen = []
    await run_load(plan(chat.url, Step("only", 1.2, (Traffic("u", ClosedLoop(2)),))), seen.append)
    assert seen[-1].step.name == "only"
    assert seen[-1].rate > 0
    assert chat.service_s < seen[-1].p95_s < 0.5


@pytest.mark.parametrize("url", ["http://192.0.2.7:80", "http://[2001:db8::1]/"])
async def test_load_does_not_leave_this_machine_unasked(url):
    with pytest.raises(LoadError, match="not this machine") as caught:
        await run_load(plan(url, Step("s", 0.2, (Traffic("u", ClosedLoop(1)),))))
    assert "--allow-remote" in caught.value.hint


async def test_an_address_without_scheme_is_named():
    with pytest.raises(LoadError, match="must be an HTTP URL"):
        await run_load(plan("127.0.0.1:8080", Step("s", 0.2, (Traffic("u", ClosedLoop(1)),))))


async def test_too_few_open_files_name_ulimit(monkeypatch):
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda _which: (512, 512))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)  # the limit of this process stays
    with pytest.raises(LoadError, match="open files") as caught:
        await run_load(plan("http://127.0.0.1:9", Step("s", 0.2, (Traffic("u", ClosedLoop(1000)),))))
    assert "ulimit -n 1128" in caught.value.hint


async def test_a_step_is_judged_once_it_has_settled(chat):
    """The warm-up is drawn out, the steady part keeps its length."""
    begin = asyncio.get_running_loop().time()
    step = Step("s", 0.8, (Traffic("u", ClosedLoop(1)),), warmup_s=0.3, settle_s=5.0)
    result = await run_load(plan(chat.url, step), settled=lambda: asyncio.get_running_loop().time() > begin + 1.0)
    done = result.steps[0]
    assert 1.0 <= done.steady_s - done.start_s < 1.6
    assert done.end_s - done.steady_s == pytest.approx(0.5, abs=0.15)
    assert done.warmup.requests > done.all.requests > 0


async def test_a_step_that_never_settles_is_judged_after_its_bound(chat):
    step = Step("s", 0.6, (Traffic("u", ClosedLoop(1)),), warmup_s=0.2, settle_s=0.5)
    result = await run_load(plan(chat.url, step), settled=lambda: False)
    assert result.steps[0].steady_s - result.steps[0].start_s == pytest.approx(0.7, abs=0.3)


def test_a_schedule_of_arrivals_cannot_wait_to_settle():
    with pytest.raises(LoadError, match="settle"):
        Step("s", 5, (Traffic("a", OpenLoop(1)),), settle_s=5)
