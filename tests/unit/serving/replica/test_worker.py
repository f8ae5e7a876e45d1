from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from tierserve_serving.config import PoolConfig
from tierserve_serving.engines import EngineError, Part, Usage
from tierserve_serving.engines.base import COMPLETIONS
from tierserve_serving.engines.emulated import EmulatedEngine
from tierserve_serving.replica.metrics import GAUGES
from tierserve_serving.replica.stats import ReplicaStats
from tierserve_serving.replica.worker import Worker


@pytest.fixture(scope="module")
def event_loop_policy(virtual_time):
    return virtual_time


async def answer(worker: Worker, **fields) -> list[Part]:
    engine_answer = worker.engine.respond(COMPLETIONS, {"model": "m", "prompt": "a b c"} | fields)
    async with aclosing(worker.serve(engine_answer)) as parts:
        return [part async for part in parts]


def make(config: PoolConfig, **changes) -> Worker:
    config = config.model_copy(update=changes)
    return Worker(config, EmulatedEngine.of(config))


async def test_waiting_is_counted_apart_from_service(config):
    worker = make(config, slots=1, max_queue=4)
    await asyncio.gather(*(answer(worker, max_tokens=24) for _ in range(3)))  # 50 ms each
    report = worker.report()
    assert report["completions_total"] == report["arrivals_total"] == 3
    assert report["service_seconds_total"] == pytest.approx(0.15)
    assert report["replica_wait_seconds_total"] == pytest.approx(0.15)  # 0 + 50 + 100
    assert report["input_tokens_total"] == 9
    assert report["output_tokens_total"] == 72


class Recorded:
    """Metrics as lists of values."""

    def __init__(self) -> None:
        self.values: list[tuple[str, float, dict[str, str]]] = []
        self.shown: dict[str, float] = {}

    def observe(self, histogram, value, tags=None):
        assert set(tags or {}) == set(histogram.labels), "Ray refuses other tags than a metric has"
        self.values.append((histogram.name, value, dict(tags or {})))

    def show(self, report):
        self.shown = {GAUGES[field][0]: value for field, value in report.items() if field in GAUGES}


async def test_the_time_per_output_token_is_that_of_the_steps_after_the_first(config):
    metrics = Recorded()
    worker = Worker(config, EmulatedEngine.of(config), ReplicaStats(metrics=metrics))
    engine_answer = worker.engine.respond(COMPLETIONS, {"model": "m", "prompt": "a b c", "max_tokens": 24})
    async with aclosing(worker.serve(engine_answer, 0.0, COMPLETIONS, "m")) as parts:
        (part,) = [part async for part in parts]
    values = {name: (value, tags) for name, value, tags in metrics.values}
    timing = part.usage.timings[0]
    each_s, tags = values["gen_ai_server_time_per_output_token_seconds"]
    assert each_s == pytest.approx(timing.decode_s / 24)
    assert tags == {
        "gen_ai_operation_name": "text_completion",
        "gen_ai_provider_name": "tierserve",
        "gen_ai_request_model": "m",
    }
    assert values["tierserve_replica_prompt_tokens"][0] == 3.0
    assert values["tierserve_replica_output_tokens"][0] == 24.0
    assert values["tierserve_replica_batch_size"][0] == 1.0
    worker.report()
    assert metrics.shown == {"tierserve_replica_running": 0.0, "tierserve_replica_waiting": 0.0}, "no cache to report"


async def test_the_emulated_network_is_part_of_the_response_and_not_of_the_service(config):
    worker = make(config, uplink_s=0.05, downlink_s=0.07)
    begin = asyncio.get_running_loop().time()
    (part,) = await answer(worker, max_tokens=4)
    service_s = worker.report()["service_seconds_total"]
    assert part.usage.output_tokens == 4
    assert asyncio.get_running_loop().time() - begin == pytest.approx(0.05 + service_s + 0.07)
    assert 0.0 < service_s < 0.05
    assert worker.report()["replica_wait_seconds_total"] == 0.0


async def test_the_slot_is_released_before_the_emulated_downlink(config):
    worker = make(config, downlink_s=0.5)
    task = asyncio.create_task(answer(worker, max_tokens=1))
    await asyncio.sleep(0.1)
    assert worker.report()["completions_total"] == 1
    assert worker.report()["running"] == 0
    task.cancel()


async def test_cancelling_frees_the_slot_and_is_counted(config):
    worker = make(config)
    task = asyncio.create_task(answer(worker, max_tokens=4000))
    await asyncio.sleep(0.02)
    assert worker.report()["running"] == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    report = worker.report()
    assert (report["running"], report["cancelled_total"], report["errors_total"]) == (0, 1, 1)


async def test_a_request_refused_by_a_full_queue_is_an_arrival_and_an_error(config):
    worker = make(config, slots=1, max_queue=0)
    results = await asyncio.gather(*(answer(worker) for _ in range(3)), return_exceptions=True)
    assert sum(isinstance(result, list) for result in results) == 1
    report = worker.report()
    assert (report["arrivals_total"], report["refused_total"], report["errors_total"]) == (3, 2, 2)


class BrokenEngine:
    def gauges(self):
        return {}

    async def respond(self, path, document):
        yield Part(b"half", True, 1)
        raise ZeroDivisionError("a bug")


async def test_a_failure_of_the_engine_is_an_engine_error_and_frees_the_slot(config):
    worker = Worker(config, BrokenEngine())
    with pytest.raises(EngineError, match="a bug"):
        await answer(worker)
    assert worker.report()["running"] == 0
    assert worker.report()["errors_total"] == 1


async def test_the_retry_after_grows_with_the_queue(config):
    worker = make(config, slots=1, max_queue=100)
    worker.stats.completed(2.0, Usage(1, 1))
    assert worker.retry_after_s() == 2
    tasks = [asyncio.create_task(answer(worker, max_tokens=1000)) for _ in range(4)]
    await asyncio.sleep(0.01)
    assert worker.retry_after_s() == 8
    for task in tasks:
        task.cancel()
