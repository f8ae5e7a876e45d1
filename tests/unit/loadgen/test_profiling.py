"""Measurement of a replica, against a server in this process that counts what it gets."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from tierserve.loadgen.errors import LoadError
from tierserve.loadgen.profiling import Endpoint, Grid, connect, doubling


@dataclass
class Completions:
    """A server of text completions; each takes `step_s` per token."""

    step_s: float = 0.001
    token_ids: bool = True
    context: int = 10_000
    slots: int | None = 4
    fails: bool = False
    url: str = ""
    prompts: list[object] = field(default_factory=list)
    bodies: list[dict] = field(default_factory=list)
    in_flight: int = 0
    peak: int = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        prompt = body["prompt"]
        self.prompts.append(prompt)
        ids = isinstance(prompt, list)
        tokens = len(prompt) if ids else 2 * len(prompt.split())
        if self.fails or (ids and not self.token_ids) or tokens > self.context:
            return web.json_response({"error": {"message": "cannot"}}, status=400)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            for _ in range(body["max_tokens"]):
                await asyncio.sleep(self.step_s)
                await response.write(b'data: {"choices":[{"text":" word"}]}\n\n')
            usage = f'{{"prompt_tokens": {tokens}, "completion_tokens": {body["max_tokens"]}}}'
            await response.write(f'data: {{"choices": [], "usage": {usage}}}\n\ndata: [DONE]\n\n'.encode())
            return response
        finally:
            self.in_flight -= 1

    async def models(self, _request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "light"}]})

    async def health(self, _request: web.Request) -> web.Response:
        return web.json_response({"slots": self.slots} if self.slots else {})


@pytest.fixture
async def server() -> AsyncIterator[Completions]:
    completions = Completions()
    app = web.Application()
    app.router.add_post("/v1/completions", completions.answer)
    app.router.add_get("/healthz", completions.health)
    app.router.add_get("/v1/models", completions.models)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    completions.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield completions
    await runner.cleanup()


async def test_slots_and_model_are_those_that_the_server_reports(server):
    async with connect(Endpoint(server.url)) as replica:
        assert (replica.slots, replica.model, replica.token_ids) == (4, "light", True)


async def test_a_server_that_reports_no_slots_has_unknown_ones(server):
    server.slots = None
    async with connect(Endpoint(server.url)) as replica:
        assert replica.slots is None


async def test_a_closed_loop_keeps_its_connections_in_the_batch_and_no_more(server):
    async with connect(Endpoint(server.url)) as replica:
        replies = await replica.closed_loop(3, 16, 8, 9)
    assert len(replies) == 9
    assert server.peak == 3


async def test_every_cell_of_the_grid_is_measured_with_its_sizes(server):
    grid = Grid((1, 2), (8, 16), output=4, long_output=12, rounds=2)
    async with connect(Endpoint(server.url)) as replica:
        measured = await replica.measure(grid)
    assert [(one.cell.batch, one.cell.input, one.cell.output) for one in measured] == list(grid.cells())
    assert {one.cell.output for one in measured if one.cell.input == 16} == {4, 12}
    assert all(one.first_token_s < one.cell.mean for one in measured)
    assert all(len(one.cell.times) >= 8 for one in measured)


async def test_no_two_prompts_are_alike_and_stop_tokens_are_ignored(server):
    async with connect(Endpoint(server.url)) as replica:
        await replica.closed_loop(2, 16, 2, 8)
    assert len({str(prompt) for prompt in server.prompts}) == len(server.prompts)
    assert all(body["ignore_eos"] and body["temperature"] == 0 for body in server.bodies)


async def test_without_token_ids_prompts_are_text_of_about_that_length(server):
    server.token_ids = False
    async with connect(Endpoint(server.url)) as replica:
        replies = await replica.closed_loop(1, 100, 2, 2)
    assert not replica.token_ids
    assert [reply.input for reply in replies] == [100, 100]


async def test_prompts_that_the_server_refuses_are_left_out_with_its_reason(server):
    server.context = 100
    async with connect(Endpoint(server.url)) as replica:
        taken, refused = await replica.accepted((16, 512))
    assert taken == (16,)
    assert "cannot" in refused[512]


async def test_a_request_that_fails_ends_the_measurement(server):
    async with connect(Endpoint(server.url)) as replica:
        server.fails = True
        with pytest.raises(LoadError, match="status 400"):
            await replica.closed_loop(2, 16, 2, 4)


async def test_a_server_that_answers_no_completions_is_an_error(server):
    server.fails = True
    with pytest.raises(LoadError, match="status 400"):
        async with connect(Endpoint(server.url)):
            pass


async def test_load_does_not_leave_this_machine(server):
    with pytest.raises(LoadError, match="not this machine"):
        async with connect(Endpoint("http://192.0.2.1")):
            pass


async def test_an_open_loop_counts_from_the_intended_arrival_and_keeps_to_the_slots(server):
    server.step_s = 0.01
    async with connect(Endpoint(server.url)) as replica:
        run = await replica.open_loop(((1.0, 16.0, 2.0),), 60.0, 1.0, slots=1)
    assert server.peak == 1
    assert run.mean_s > 0.05  # 20 ms each, at most 50 a second: they queue
    assert run.sizes == ((1.0, 16.0, 2.0),)
    assert run.failed == 0


async def test_a_mean_of_few_responses_has_no_interval(server):
    async with connect(Endpoint(server.url)) as replica:
        run = await replica.open_loop(((1.0, 16.0, 2.0),), 10.0, 1.0, slots=4)
    assert run.requests < 20
    assert math.isnan(run.half_width_s)


async def test_an_open_loop_counts_failures(server):
    async with connect(Endpoint(server.url)) as replica:
        server.context = 20
        run = await replica.open_loop(((0.5, 16.0, 1.0), (0.5, 64.0, 1.0)), 100.0, 1.0, slots=4)
    assert run.failed > 10
    assert run.sizes == ((1.0, 16.0, 1.0),)


@pytest.mark.parametrize(("largest", "batches"), [(1, (1,)), (8, (1, 2, 4, 8)), (6, (1, 2, 4, 6)), (2, (1, 2))])
def test_batches_double_up_to_the_largest(largest, batches):
    assert doubling(largest) == batches
