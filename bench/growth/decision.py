"""Time of one decision at a million slots: `autoscale.decide` for 15,625 replicas of 64 slots."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from tierserve.autoscale.decide import (
    GatewaySample,
    Observation,
    ReplicaMetrics,
    ReplicaSample,
    Settings,
    State,
    decide,
)
from tierserve_serving.policy_runtime.context import METRICS, ReplicaReports, observation

REPLICAS, SLOTS, LOAD = 15_625, 64, 0.93
SERVICE_S, TICK_S = 10.0, 1.0
STARTUP_S = 103.0
HISTORY_S = 400.0
"""More than a pool's history, so that no decision is cheap for lack of it."""
WARM = 3
"""Decisions on the timed input before the first one that counts."""
SETTINGS = Settings(target_s=30.0, service_s=SERVICE_S, slots=SLOTS, startup_s=STARTUP_S)


@dataclass
class Timing:
    """Milliseconds of one decision: the median, and the 99th percentile."""

    what: str
    slots: int
    median_ms: float
    p99_ms: float


@dataclass
class Point:
    """One value of a series, as in Ray Serve."""

    timestamp: float
    value: float


Ready = Callable[[], Observation]
"""Timed with the decision: the work to make an observation."""


def sample(t: float, growth: float = 0.0) -> ReplicaSample:
    """One replica; all are equally busy, and the rate grows by `growth` a second."""
    rate = LOAD * SLOTS / SERVICE_S
    come, busy = rate * t * (1.0 + growth * t / 2.0), rate * SERVICE_S * (1.0 + growth * t)
    return ReplicaSample(t, come, come, come * SERVICE_S, come * SERVICE_S**2 * 1.25, running=busy, startup_s=STARTUP_S)


def observed(t: float, replicas: Any, growth: float = 0.0, gateway: bool = False) -> Observation:
    come, busy = sample(t, growth).arrivals * REPLICAS, sample(t, growth).running * REPLICAS
    front = GatewaySample(t, come, 0.0, busy, come, 0.0, bypassed=0.0) if gateway else None
    return Observation(t, REPLICAS, REPLICAS, 1, 100_000, replicas, front)


def one_sum(t: float, growth: float = 0.0) -> Ready:
    seen = observed(t, {"all": sample(t, growth)}, growth, gateway=True)
    return lambda: seen


class Columns:
    """A sample of each replica as columns.

    Args:
        made: before the decision; else making `ReplicaMetrics` of nine arrays is timed too.
        gateway: whether it reports as well.
        change: one replica is replaced at each decision.
    """

    def __init__(self, made: bool = True, gateway: bool = False, change: bool = False) -> None:
        self.made, self.gateway, self.change = made, gateway, change
        self.names = [f"r{k}" for k in range(REPLICAS)]
        self.last = ReplicaMetrics(self.names, self.values(0.0))

    @staticmethod
    def values(t: float) -> np.ndarray:
        s = sample(t)
        figures = (t, s.arrivals, s.completions, s.service_s, s.service_sq_s2, 0.0, s.running, 0.0, STARTUP_S)
        return np.repeat(np.array(figures)[:, None], REPLICAS, axis=1)

    def __call__(self, t: float) -> Ready:
        values = self.values(t)
        if self.change:
            self.names = [*self.names[1:], f"n{t:.0f}"]

        def make() -> Observation:
            self.last = ReplicaMetrics(self.names, values) if self.change else self.last.with_values(values)
            return observed(t, self.last, gateway=self.gateway)

        if not self.made:
            return make
        seen = make()
        return lambda: seen


def one_by_one(t: float) -> Ready:
    seen = observed(t, {f"r{k}": sample(t) for k in range(REPLICAS)})
    return lambda: seen


class Reports:
    """Metrics as Ray Serve passes them to its policy: by metric and replica a series of time and value."""

    def __init__(self) -> None:
        self.reports = ReplicaReports()
        self.ids = [f"r{k}" for k in range(REPLICAS)]

    def __call__(self, t: float) -> Ready:
        s = sample(t)
        figures = (s.arrivals, s.completions, s.service_s, s.service_sq_s2, 0.0, s.running, 0.0, STARTUP_S)
        pushed = [[[Point(t, v + 0.0)] for v in figures] for _ in self.ids]  # one report per replica
        ctx = SimpleNamespace(
            raw_metrics={
                m: dict(zip(self.ids, rows, strict=True))
                for m, rows in zip(METRICS, zip(*pushed, strict=True), strict=True)
            },
            current_num_replicas=REPLICAS,
            target_num_replicas=REPLICAS,
            capacity_adjusted_min_replicas=1,
            capacity_adjusted_max_replicas=100_000,
            total_queued_requests=0.0,
        )
        return lambda: observation(ctx, None, t, SETTINGS.stale_after_s, self.reports)


def timed(what: str, ready: Callable[[float], Ready], most: int = 200) -> Timing:
    """Time decisions on the input of `ready`, after a history from the gateway's metrics."""
    state, walls = State(), []
    count = int(HISTORY_S / TICK_S)
    for k in range(1, count + most):
        t = k * TICK_S
        make = ready(t) if k > count - WARM else one_sum(t)
        began = time.perf_counter()
        _, state = decide(make(), state, SETTINGS)
        if k >= count:
            walls.append((time.perf_counter() - began) * 1e3)
    return Timing(what, REPLICAS * SLOTS, statistics.median(walls), statistics.quantiles(walls, n=100)[98])


def timings(quick: bool = False) -> list[Timing]:
    most = 5 if quick else 200
    few = min(most, 30)
    each = f"a sample of each of {REPLICAS:,} replicas"
    return [
        timed("the gateway's figures, one sum of all replicas, constant load", one_sum, most=most),
        timed("the same, growing load", growing, most=most),
        timed(f"{each}, as columns", Columns(), most=most),
        timed("the same and the gateway's figures", Columns(gateway=True), most=most),
        timed("as columns, and making them from nine arrays", Columns(made=False), most=most),
        timed("the same where one replica was replaced", Columns(made=False, change=True), most=most),
        timed("one by one (`ReplicaSample` by name)", one_by_one, most=few),
        timed("metrics as Ray passes them to Serve's policy, read into columns", Reports(), most=few),
    ]


def growing(t: float) -> Ready:
    return one_sum(t, growth=0.002)


if __name__ == "__main__":
    for timing in timings():
        print(f"{timing.what}: {timing.median_ms:.2f} ms, p99 {timing.p99_ms:.2f} ms", flush=True)
