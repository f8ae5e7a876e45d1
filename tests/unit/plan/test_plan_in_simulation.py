"""The plan against a pool of batching replicas that is simulated event by event."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable

import numpy as np
import pytest

from tierserve.api import GenAIDeployment
from tierserve.plan.capacity import pool_plan
from tierserve.plan.placement import Placement, place


class Replica:
    """Requests that share a replica: each does 1 / T(n) of its work per second while n are in it."""

    def __init__(self, times: list[float]) -> None:
        self.times, self.done, self.now, self.ends = times, 0.0, 0.0, list[float]()

    def advance(self, now: float) -> None:
        if self.ends:
            self.done += (now - self.now) / self.times[len(self.ends)]
        self.now = now

    def admit(self) -> None:
        heapq.heappush(self.ends, self.done + 1.0)

    def next_end(self) -> float:
        return self.now + (self.ends[0] - self.done) * self.times[len(self.ends)] if self.ends else float("inf")


def simulated(one: Placement, replicas: int, rate: float, customers: int, seed: int) -> np.ndarray:
    """Wait + service of each request: the least loaded replica with a free slot takes it, else one queue for all."""
    times = [one.profile.service_time(n, one.input_tokens, one.output_tokens) for n in range(one.slots + 1)]
    pool = [Replica(times) for _ in range(replicas)]
    arrivals = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, customers)).tolist()
    queue: deque[float] = deque()
    inside: list[deque[float]] = [deque() for _ in pool]  # equal work: first in, first out
    ends = [float("inf")] * replicas
    responses: list[float] = []

    def enter(k: int, now: float, arrived: float) -> None:
        pool[k].advance(now)
        pool[k].admit()
        inside[k].append(arrived)
        ends[k] = pool[k].next_end()

    for arrived in arrivals:
        while min(ends) <= arrived:
            k = int(np.argmin(ends)) if replicas > 30 else ends.index(min(ends))
            now = ends[k]
            pool[k].advance(now)
            heapq.heappop(pool[k].ends)
            responses.append(now - inside[k].popleft())
            ends[k] = pool[k].next_end()
            if queue:
                enter(k, now, queue.popleft())
        least = min(range(replicas), key=lambda k: len(inside[k]))
        if len(inside[least]) < one.slots:
            enter(least, arrived, arrived)
        else:
            queue.append(arrived)
    return np.array(responses[customers // 5 :])


@pytest.mark.parametrize("rate", [2.0, 25.0, 80.0])
def test_planned_replicas_keep_the_objective(service: Callable[..., GenAIDeployment], rate: float) -> None:
    gaid = service({"spec.models.0.maxConcurrency": 24})
    plan = pool_plan(gaid, place(gaid)[0], rate)
    times = simulated(plan.placement, plan.replicas, rate, customers=12_000, seed=5) + plan.placement.network_s
    assert np.quantile(times, 0.95) <= 3.0
    assert np.quantile(times, 0.95) == pytest.approx(plan.response_s, rel=0.15)
    assert times.mean() == pytest.approx(plan.mean_response_s, rel=0.15)
