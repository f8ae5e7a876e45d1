"""Predicted response times compared with a token-level simulation, on real request traces.

    make bench-traces                            about 5 minutes
    python -m bench.prediction.traces_page --quick     one load, no bootstrap: a minute

A trace, and windows of 15 minutes of it, go to pools of a fixed number of replicas with one queue, empty at first, at
loads of about 0.5, 0.7 and 0.85. Input of the formulas is what a planner has of the same window: rate, tokens, and the
counts of arrivals, per second or as a statistic of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tierserve.loadgen.workloads import traced
from tierserve.queueing import (
    BatchProfile,
    BatchWork,
    batch_response,
    burst_response,
    bursts_of,
    peakedness,
    replay_response,
    sizes_of,
)
from tierserve.simulate.cluster import Setup
from tierserve.simulate.policies.static import Static
from tierserve.simulate.run import simulate
from tierserve.simulate.types import Objective, Pool, Workload
from tierserve.simulate.workload import Sizes, bursts, poisson, thickened

ROOT = Path(__file__).resolve().parents[2]
A100_8B = BatchProfile(alpha=0.0112, beta=1.03e-4, gamma=9.2e-8)
"""The roofline of an 8B model on an A100 (plan/hardware.py)."""
FASTER = BatchProfile(alpha=0.010, beta=2e-5, gamma=1e-7)
"""One with prompts read five times as fast."""
LOADS = (0.5, 0.7, 0.85)
WINDOW_S, SECOND, SHORT_S, MINUTE_S = 900.0, 1.0, 2.0, 60.0
BLOCK_S, RESAMPLES = 120.0, 20
CLOSE = 0.15
Q = 0.95


class Said(Protocol):
    @property
    def mean_response(self) -> float: ...
    def quantile(self, q: float) -> float: ...


@dataclass(frozen=True)
class Case:
    """Requests, and the replicas they go to; `fitted`: used while the formulas were developed."""

    name: str
    about: str
    make: Callable[[], Workload]
    slots: int = 32
    profile: BatchProfile = A100_8B
    windows: bool = False
    fitted: bool = False
    kind: str = "bursty"


def azure(times: int) -> Workload:
    return thickened(traced("azure-code"), times, 5.0)


def mooncake(times: int) -> Workload:
    return thickened(traced("mooncake-conversation"), times, 5.0)


def alternating(low_s: float, high_s: float) -> Workload:
    sizes = Sizes(1000, 300, 0.5)
    return bursts(10.0, 40.0, low_s=low_s, high_s=high_s, length_s=3600.0, sizes=sizes)


def instants() -> Workload:
    return bursts(10.0, 40.0, low_s=5.0, high_s=3.0, length_s=3600.0, sizes=Sizes(500, 200, 0.7))


CASES = (
    Case("azure x10", "Azure code 2023, each request as 10 within 5 s", lambda: azure(10), windows=True, fitted=True),
    Case("mooncake", "Mooncake conversation", lambda: mooncake(1), windows=True, fitted=True, kind="even"),
    Case("mooncake x3", "Mooncake, as 3", lambda: mooncake(3), windows=True, fitted=True, kind="even"),
    Case("azure x4", "Azure code, as 4", lambda: azure(4), 64),
    Case("azure x20", "Azure code, as 20", lambda: azure(20), 32, FASTER, windows=True),
    Case("mooncake x2", "Mooncake, as 2", lambda: mooncake(2), 16, windows=True, kind="even"),
    Case("mooncake x6", "Mooncake, as 6", lambda: mooncake(6), 32, FASTER, kind="even"),
)
SYNTHETIC = (
    Case("poisson", "Poisson, 10/s", lambda: poisson(10.0, 3600.0, Sizes(1000, 300, 0.5)), kind="synthetic"),
    Case("minutes", "10 and 40/s alternating after 400 and 60 s", lambda: alternating(400.0, 60.0), kind="synthetic"),
    Case("seconds", "10 and 40/s alternating after 20 and 10 s", lambda: alternating(20.0, 10.0), kind="synthetic"),
    Case("instants", "10 and 40/s alternating after 5 and 3 s", instants, 16, FASTER, kind="synthetic"),
)


@dataclass(frozen=True)
class Window:
    """Input of a prediction: arrivals in seconds from its start, the tokens, the replicas."""

    times: np.ndarray
    length_s: float
    work: BatchWork
    replicas: int

    @property
    def rate(self) -> float:
        return self.times.size / self.length_s

    def counts(self, window_s: float) -> np.ndarray:
        whole = int(self.length_s / window_s)
        return np.bincount((self.times / window_s).astype(int), minlength=whole)[:whole].astype(float)

    @property
    def z(self) -> float:
        """Peakedness at the service time."""
        service_s = min(batch_response(self.rate, self.replicas, self.work).mean_response, self.work.full_s)
        return max(peakedness(self.counts(max(service_s, SECOND))), 0.3)


class Distribution(Said, Protocol):
    def survival(self, t: float) -> float: ...


class Mixture:
    """Steady states one after another: (share of the requests, their response times)."""

    def __init__(self, parts: list[tuple[float, Distribution]]) -> None:
        self.parts = parts

    @property
    def mean_response(self) -> float:
        return sum(share * one.mean_response for share, one in self.parts)

    def quantile(self, q: float) -> float:
        def late(t: float) -> float:
            return sum(share * one.survival(t) for share, one in self.parts)

        low, high = 0.0, 1.0
        while late(high) > 1.0 - q:
            low, high = high, 2.0 * high
            if high > 1e6:
                return float("inf")
        while high - low > 1e-4 * high:
            mid = 0.5 * (low + high)
            low, high = (mid, high) if late(mid) > 1.0 - q else (low, mid)
        return high


def _minutes(window: Window, z: float) -> Mixture:
    """The distribution of the rates of minutes, in six parts, each as if it lasted."""
    counts = np.sort(window.counts(MINUTE_S))
    parts = [one for one in np.array_split(counts, min(6, counts.size)) if one.sum() > 0.0]
    return Mixture([
        (one.sum() / counts.sum(), burst_response(one.mean() / MINUTE_S, window.replicas, window.work, peakedness=z))
        for one in parts
    ])  # fmt: skip


def _within_minutes(window: Window) -> float:
    """Peakedness at the service time, around the rate of the minute."""
    service_s = min(batch_response(window.rate, window.replicas, window.work).mean_response, 15.0)
    many = max(1, round(MINUTE_S / max(service_s, SECOND)))
    counts = window.counts(MINUTE_S / many)
    table = counts[: counts.size // many * many].reshape(-1, many)
    inside = float(table.var(axis=1, ddof=1).mean()) if many > 1 else 0.0
    return max(inside / float(table.mean()), 0.3)


def _by(window: Window, **arrivals: Any) -> Said:
    return burst_response(window.rate, window.replicas, window.work, **arrivals)


METHODS: dict[str, Callable[[Window], Said]] = {
    "even steps": lambda w: batch_response(w.rate, w.replicas, w.work),
    "prompts": _by,
    "z": lambda w: _by(w, peakedness=w.z),
    "minutes": lambda w: _minutes(w, 1.0),
    "minutes, z": lambda w: _minutes(w, _within_minutes(w)),
    "random rates": lambda w: _by(w, bursts=bursts_of(w.counts(SHORT_S), SHORT_S)),
    "counts": lambda w: replay_response(w.counts(SECOND), SECOND, w.replicas, w.work),
}
ABOUT = {
    "even steps": "`batch_response`: Poisson arrivals, work spread evenly over steps. Used by a plan "
    "where no prompts delay responses",
    "prompts": "`burst_response`: Poisson arrivals, steps as long as the prompts read in them",
    "z": "the same with the peakedness z at the service time (Hayward)",
    "minutes": "`prompts` at each of the rates of the minutes, as if it lasted; never, where one is above the pool's "
    "capacity",
    "minutes, z": "the same with the peakedness within minutes",
    "random rates": "`bursts_of`: eight rates, redrawn at random times, that have the distribution and the dispersion "
    "of the counts of 2 s",
    "counts": "`replay_response`: the counts by the second in their order, as a fluid",
}


@dataclass(frozen=True)
class Cell:
    """One window on one pool: simulated, and predicted by every method (mean, p95)."""

    case: Case
    start_s: float
    length_s: float
    requests: int
    replicas: int
    load: float
    z: float
    mean: float
    p95: float
    said: dict[str, tuple[float, float]]

    def error(self, name: str, which: int = 1) -> float:
        return self.said[name][which] / (self.mean, self.p95)[which] - 1.0


def piece(work: Workload, start_s: float, length_s: float) -> Workload:
    mine = (work.times_s >= start_s) & (work.times_s < start_s + length_s)
    times = work.times_s[mine] - start_s
    return Workload(times, work.input_tokens[mine], work.output_tokens[mine], length_s, work.name, work.source)


def pieces(case: Case, work: Workload) -> Iterator[tuple[float, Workload]]:
    yield 0.0, work
    if case.windows:
        for start in np.arange(0.0, work.length_s - WINDOW_S + 1.0, WINDOW_S):
            yield float(start), piece(work, float(start), WINDOW_S)


def response_s(case: Case, work: Workload, replicas: int) -> np.ndarray:
    pool = Pool(case.profile, case.slots, 0.0, Objective(), 1.0, 1.0)
    return simulate(work, pool, Static(pool, replicas), Setup("tokens", "central", replicas)).response_s


def cells_of(case: Case, loads: tuple[float, ...]) -> Iterator[Cell]:
    for start, work in pieces(case, case.make()):
        batch = BatchWork(case.profile, case.slots, sizes_of(work.input_tokens, work.output_tokens))
        rate = len(work) / work.length_s
        for replicas in dict.fromkeys(max(1, round(rate / load / float(batch.rates[-1]))) for load in loads):
            window = Window(work.times_s, work.length_s, batch, replicas)
            seen = response_s(case, work, replicas)
            said = {name: method(window) for name, method in METHODS.items()}
            found = {name: (one.mean_response, one.quantile(Q)) for name, one in said.items()}
            load = rate / replicas / float(batch.rates[-1])
            yield Cell(case, start, work.length_s, len(work), replicas, load, window.z, float(seen.mean()),
                       float(np.quantile(seen, Q)), found)  # fmt: skip


@dataclass(frozen=True)
class Steady:
    """Poisson arrivals with the tokens of a trace: simulated, and predicted with even steps and with prompts."""

    name: str
    replicas: int
    load: float
    mean: float
    p95: float
    even: tuple[float, float]
    prompts: tuple[float, float]


def steady(name: str, loads: tuple[float, ...]) -> Iterator[Steady]:
    """Forty thousand requests of the sizes of a trace in random order at random times."""
    trace, rng = traced(name), np.random.default_rng(1)
    case = Case(name, "", lambda: trace)
    batch = BatchWork(A100_8B, case.slots, sizes_of(trace.input_tokens, trace.output_tokens))
    for replicas in (1, 4, 16):
        for load in loads:
            rate = load * replicas * float(batch.rates[-1])
            times = np.cumsum(rng.exponential(1.0 / rate, 40_000))
            pick = rng.integers(0, len(trace), times.size)
            work = Workload(times, trace.input_tokens[pick], trace.output_tokens[pick], float(times[-1]))
            seen = response_s(case, work, replicas)[4000:]
            said = batch_response(rate, replicas, batch), burst_response(rate, replicas, batch)
            mean, p95 = float(seen.mean()), float(np.quantile(seen, Q))
            even, prompts = ((one.mean_response / mean - 1.0, one.quantile(Q) / p95 - 1.0) for one in said)
            yield Steady(name, replicas, load, mean, p95, even, prompts)


def resampled_p95(case: Case, loads: tuple[float, ...]) -> list[tuple[str, int, float, float]]:
    """Spread of p95 over resampled traces: blocks of two minutes drawn with replacement.

    Returns the case, replicas, and the tenth and ninetieth percentile of p95 over that of the original trace.
    """
    work, rng = case.make(), np.random.default_rng(1)
    batch = BatchWork(case.profile, case.slots, sizes_of(work.input_tokens, work.output_tokens))
    rows = []
    for load in loads:
        replicas = max(1, round(len(work) / work.length_s / load / float(batch.rates[-1])))
        counts = Window(work.times_s, work.length_s, batch, replicas).counts(SECOND)
        each = int(BLOCK_S / SECOND)
        blocks = counts[: counts.size // each * each].reshape(-1, each)
        draws = [blocks[rng.integers(0, len(blocks), len(blocks))].ravel() for _ in range(RESAMPLES)]
        whole = replay_response(counts, SECOND, replicas, batch).quantile(Q)
        found = [replay_response(draw, SECOND, replicas, batch).quantile(Q) / whole for draw in draws]
        low, high = np.quantile(found, (0.1, 0.9))
        rows.append((case.name, replicas, float(low), float(high)))
    return rows
