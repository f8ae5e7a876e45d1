"""The profile of a file is wrong; what emulated replicas count teaches the policy the engine's. In virtual time."""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import dataclass, field

import pytest

from tierserve.autoscale.decide import Decision, Observation, ReplicaSample, Settings, State, decide
from tierserve.autoscale.types import StepCounts
from tierserve.queueing.batching.profile import BatchProfile
from tierserve_serving.config import PoolConfig
from tierserve_serving.engines.base import COMPLETIONS, Timing, Usage
from tierserve_serving.engines.emulated import EmulatedEngine
from tierserve_serving.engines.generation import Generation
from tierserve_serving.replica.stats import ReplicaStats
from tierserve_serving.replica.worker import Worker

TRUE = BatchProfile(alpha=0.012, beta=4e-4, gamma=6e-6)
SLOTS, INPUT, OUTPUT = 8, 60, 40
FULL_S = TRUE.service_time(SLOTS, INPUT, OUTPUT)


def settings(configured: BatchProfile) -> Settings:
    return Settings(
        2.0 * FULL_S,
        service_s=configured.service_time(SLOTS, INPUT, OUTPUT),
        slots=SLOTS,
        profile=configured,
        input_tokens=INPUT,
        output_tokens=OUTPUT,
    )


def counts(report: dict[str, float]) -> StepCounts:
    return StepCounts(*(report[f"{name}_total"] for name in StepCounts._fields))


@dataclass
class Pool:
    """Replicas under a Poisson load that comes and goes, looked at every half second by the real decision."""

    configured: BatchProfile
    replicas: int = 4
    spread: float = 0.0
    seed: int = 1
    workers: list[Worker] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    asked: list[asyncio.Task[None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        config = PoolConfig(service="a", tier="edge", model="m", slots=SLOTS, max_queue=1000)
        self.workers = [Worker(config, EmulatedEngine(TRUE)) for _ in range(self.replicas)]
        self.chance = random.Random(self.seed)

    async def run(self, seconds: float) -> Pool:
        loop = asyncio.get_running_loop()
        load = loop.create_task(self._load())
        state = State()
        while loop.time() < seconds:
            await asyncio.sleep(0.5)
            decision, state = decide(self._seen(loop.time()), state, settings(self.configured))
            self.decisions.append(decision)
        for task in (load, *self.asked):
            task.cancel()
        await asyncio.gather(load, *self.asked, return_exceptions=True)
        return self

    async def _load(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            share = 0.45 + 0.35 * math.sin(loop.time() / 20.0)
            await asyncio.sleep(self.chance.expovariate(share * self.replicas * SLOTS / FULL_S))
            self.asked = [one for one in self.asked if not one.done()]
            worker = min(self.workers, key=lambda w: w.slots.running + w.slots.waiting)
            self.asked.append(loop.create_task(self._ask(worker)))

    async def _ask(self, worker: Worker) -> None:
        i, o = INPUT, OUTPUT
        if self.spread:
            i, o = (max(1, round(self.chance.gammavariate(self.spread**-2, m * self.spread**2))) for m in (i, o))
        answer = worker.engine.respond(COMPLETIONS, {"prompt": "w " * i, "max_tokens": o})
        async for _ in worker.serve(answer):
            pass

    def _seen(self, now: float) -> Observation:
        reports = {f"r{k}": w.report() for k, w in enumerate(self.workers)}
        samples = {
            name: ReplicaSample(now, r["arrivals_total"], r["completions_total"], running=r["running"])
            for name, r in reports.items()
        }
        n = len(samples)
        return Observation(now, n, n, 1, 100, samples, steps={name: counts(r) for name, r in reports.items()})


@pytest.mark.slow
@pytest.mark.parametrize(
    "configured",
    [
        BatchProfile(TRUE.alpha * 0.6, TRUE.beta * 0.6, TRUE.gamma * 0.6),
        BatchProfile(TRUE.alpha * 1.5, TRUE.beta * 1.5, TRUE.gamma * 1.5),
        BatchProfile(TRUE.alpha * 1.4, TRUE.beta * 0.5, TRUE.gamma * 0.7),
        BatchProfile(TRUE.alpha * 0.7, TRUE.beta * 1.5, TRUE.gamma * 1.5),
    ],
    ids=["too fast", "too slow", "too fast in full batches", "too slow in full batches"],
)
@pytest.mark.parametrize(("spread", "within"), [(0.0, 0.03), (0.7, 0.1)], ids=["alike", "varied sizes"])
def test_a_profile_that_is_wrong_is_left_behind_for_the_engines_own(configured, spread, within, in_virtual_time):
    pool = in_virtual_time(Pool(configured, spread=spread).run(300.0))
    first = next(k for k, d in enumerate(pool.decisions) if d.calibration and d.calibration.used)
    assert first / 2 < 60.0  # seconds
    found = pool.decisions[-1].calibration
    assert found.used
    assert not found.drift
    got = BatchProfile(found.alpha, found.beta, found.gamma)
    for n in (1, 4, SLOTS):
        assert got.service_time(n, INPUT, OUTPUT) == pytest.approx(TRUE.service_time(n, INPUT, OUTPUT), rel=0.05)
    assert (got.alpha, got.beta, got.gamma) == pytest.approx((TRUE.alpha, TRUE.beta, TRUE.gamma), rel=within)
    off = configured.service_time(SLOTS, INPUT, OUTPUT) / FULL_S - 1.0
    assert found.profile_error == pytest.approx(off, abs=0.05)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_profile_that_is_right_stays(seed, in_virtual_time):
    pool = in_virtual_time(Pool(TRUE, seed=seed, replicas=1, spread=0.7).run(300.0))
    off = [d.calibration.profile_error for d in pool.decisions if d.calibration and d.calibration.used]
    assert off
    assert max(map(abs, off)) < 0.08


async def test_the_last_chunk_has_the_times_of_the_engine(worker):
    chunks = [chunk async for chunk in worker.engine.generate(Generation("one two", max_tokens=4, streamed=True))]
    assert all(chunk.timing is None for chunk in chunks[:-1])
    timing = chunks[-1].timing
    assert (timing.prefill_s, timing.decode_s) == (pytest.approx(0.002), pytest.approx(0.008))
    assert (timing.steps, timing.prefill_batch, timing.decode_batch) == (4, pytest.approx(1.0), pytest.approx(1.0))


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -1.0])
def test_a_time_that_is_none_does_not_spoil_the_sums(bad):
    stats = ReplicaStats()
    stats.completed(1.0, Usage(3, 5, (Timing(0.2, 1.5, 0.8, 5, 2.0),)))
    before = stats.report(running=0, waiting=0, slots=1)
    stats._timed(Timing(bad, 1.0, bad, 5, 1.0))
    stats._timed(Timing(None, bad, 0.5, 5, bad))
    assert stats.report(running=0, waiting=0, slots=1) == before
    assert (before["prefills_total"], before["decode_steps_total"], before["decode_batch_total"]) == (1, 5, 10)
