"""The gateway sample: the agent sends the fields that the policy reads."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator

import pytest

from tierserve.autoscale.types import COUNTERS, GatewaySample
from tierserve_serving.gateway.access_log import RequestRecord
from tierserve_serving.gateway.admin import PoolState
from tierserve_serving.gateway.agent import Agent
from tierserve_serving.gateway.agent_config import AgentConfig, AgentPool
from tierserve_serving.gateway.demand import AnswerCounter
from tierserve_serving.policy_runtime.demand import DemandPoller

POOL = AgentPool(name="edge", tier="edge", slots=2, target_s=1.0)
CONFIG = AgentConfig(service="s", port=0, admin_socket="/none.sock", pools=(POOL,), classes=())
SAMPLE = GatewaySample(t=5.0, arrivals=7.5, queued=3.0, in_flight=4.0, answered=6.0, late=2.0, bypassed=1.0)


def record(duration_s: float = 0.5, code: int = 200, pool: str = "edge", end: str = "--") -> RequestRecord:
    return RequestRecord(pool, "chat", code, duration_s, 0.0, 0.1, 1, end, 0, "id", "*", "/v1/completions")


def test_a_report_is_the_same_before_and_after_it_was_sent():
    assert GatewaySample.from_json(json.loads(json.dumps(SAMPLE.to_json()))) == SAMPLE
    assert len(set(dataclasses.asdict(SAMPLE).values())) == len(dataclasses.fields(SAMPLE))  # none for another


def test_every_report_must_have_every_figure_and_a_gateway_of_others_the_first_three():
    with pytest.raises(TypeError):
        GatewaySample(5.0, 7.0, 3.0, 2.0)  # type: ignore[call-arg]
    bare = GatewaySample.from_json({"arrivals_total": 3, "queued": 1, "in_flight": 2})
    assert (bare.arrivals, bare.queued, bare.in_flight, bare.answered, bare.late) == (3.0, 1.0, 2.0, 0.0, 0.0)
    with pytest.raises(KeyError):
        GatewaySample.from_json({"arrivals_total": 3, "queued": 1})


@pytest.mark.parametrize(
    ("given", "answered", "late"),
    [
        (record(), 1, 0),
        (record(duration_s=1.0), 1, 0),
        (record(duration_s=1.01), 1, 1),
        (record(code=503), 1, 1),  # no server was free in time
        (record(code=504), 1, 1),
        (record(code=502, duration_s=9.0), 0, 0),  # an engine that fails needs no more replicas
        (record(code=404, duration_s=9.0), 0, 0),
        (record(end="CD", duration_s=9.0), 0, 0),  # the client left
        (record(pool="other"), 0, 0),
    ],
)
def test_answers_and_late_ones_are_counted_per_pool(given, answered, late):
    counter = AnswerCounter(CONFIG)
    counter.add(given)
    assert (counter.answered["edge"], counter.late["edge"]) == (answered, late)
    counter.configure(CONFIG)  # a changed file keeps the counts of the pools that stay
    assert counter.answered["edge"] == answered


@pytest.fixture
async def agent() -> AsyncIterator[Agent]:
    made = Agent(CONFIG)
    runner = await made._serve()
    made.states["edge"] = PoolState(in_flight=4, queued=3, max_in_flight=4, up=True, drained=False, total=9)
    made.polled = 5.0
    yield made
    await runner.cleanup()


async def test_what_the_agent_sends_is_what_the_policy_reads(agent):
    agent.offered.totals["edge"], agent.offered.bypassed["edge"] = 7.5, 1.0
    for duration_s in (0.5, 0.5, 0.5, 0.5, 3.0, 3.0):
        agent._take(record(duration_s))
    poller = DemandPoller(f"http://127.0.0.1:{agent.port}/pools/edge")
    assert dataclasses.replace(await asyncio.to_thread(poller._read), t=SAMPLE.t) == SAMPLE
    assert poller.requests == {agent.name: 7.0}


async def test_counters_continue_after_a_restart_of_a_gateway(agent):
    poller = DemandPoller(f"http://127.0.0.1:{agent.port}/pools/edge")
    for _ in range(3):
        agent._take(record(3.0))
    before = await asyncio.to_thread(poller._read)
    agent.answers = AnswerCounter(CONFIG)
    agent._take(record(0.5))
    after = await asyncio.to_thread(poller._read)
    assert (before.answered, before.late, after.answered, after.late) == (3.0, 3.0, 4.0, 3.0)
    assert all(getattr(after, name) >= getattr(before, name) for name in COUNTERS)
