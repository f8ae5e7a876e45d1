"""The load, the measurements and their evaluation: one cell for each pool and load."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from bench.prediction.formulas import Case, Forecast, Q, forecasts
from bench.prediction.twin import Twin
from tierserve.api import GenAIDeployment
from tierserve.loadgen import Trace
from tierserve.simulate.types import Workload

Floats = NDArray[np.float64]
BATCHES = 10
LONG_RUN = 30_000
"""Requests of the long run, over 1 - load: the higher the load, the longer busy and quiet periods last."""


@dataclass(frozen=True)
class Part:
    """A load as a share of the capacity, its length and warm-up; seconds."""

    load: float
    steady_s: float
    warmup_s: float

    @property
    def length_s(self) -> float:
        """Warm-up and steady part."""
        return self.warmup_s + self.steady_s


@dataclass(frozen=True)
class Trial:
    """A pool and its requests, by seed."""

    name: str
    case: Case
    parts: tuple[Part, ...]
    seed: int

    def rate(self, part: Part) -> float:
        """Requests per second."""
        return part.load * self.case.capacity

    def asked(self, rate: float, length_s: float, seed: int) -> Workload:
        """Poisson arrivals over `length_s` seconds, and the tokens of each."""
        rng = np.random.default_rng([self.seed, self.case.replicas, seed])
        times = np.sort(rng.random(rng.poisson(rate * length_s))) * length_s
        prompts, answers = np.full(times.size, self.case.input_tokens), self.case.lengths(times.size, rng)
        return Workload(times, prompts, answers, length_s)

    def trace(self, index: int) -> Trace:
        """What clients send in one part."""
        part = self.parts[index]
        asked = self.asked(self.rate(part), part.length_s, index)
        return Trace(f"{part.load:g}", "", asked.times_s, asked.input_tokens, asked.output_tokens, part.length_s)


@dataclass(frozen=True)
class Measured:
    """A run on real Ray Serve; seconds.

    Attributes:
        alone_s, serve_s: mean response of one request at a time, through the gateway and directly to Ray Serve's proxy.
        intended_s, response_s, output_tokens, part: of each request in order of arrival, warm-ups included; shape (n,).
        steady_s: where the steady part of each part begins.
        failed: requests that were not answered.
        busy: share of all cores' CPU time used in each part, by any process.
        lag_s: how late the client sent at worst.
    """

    alone_s: float
    serve_s: float
    intended_s: list[float]
    response_s: list[float]
    output_tokens: list[int]
    part: list[int]
    steady_s: list[float]
    failed: int
    busy: list[float]
    lag_s: float

    def way_s(self, case: Case) -> float:
        """Overhead of the path."""
        return self.alone_s - case.service_s(1)

    def held_s(self, case: Case) -> float:
        """Of that, the overhead behind the gateway: a request holds its slot so much longer than its work."""
        return min(max(0.0, self.serve_s - case.service_s(1)), self.way_s(case))


@dataclass(frozen=True)
class Cell:
    """One load of one pool; seconds.

    Attributes:
        rate: intended requests per second.
        requests: of the steady part.
        mean, half: measured mean and half the width of its 95% interval, by batch means.
        adjusted_half: the same of `adjusted`.
        p95: measured.
        same_mean, same_p95: the same arrivals and lengths in virtual time, with the overhead.
        long_mean, long_p95: very many requests in virtual time, likewise.
        way_s: the overhead; it is in every figure here but those of `said`.
        said: of each formula, without the overhead.
    """

    load: float
    rate: float
    requests: int
    busy: float
    mean: float
    half: float
    adjusted_half: float
    p95: float
    same_mean: float
    same_p95: float
    long_mean: float
    long_p95: float
    way_s: float
    said: dict[str, Forecast]

    @property
    def adjusted(self) -> float:
        """The measured mean less the sampling error: the same arrivals in virtual time less the long run."""
        return self.mean + self.long_mean - self.same_mean

    @property
    def adjusted_p95(self) -> float:
        """The same of the p95."""
        return self.p95 + self.long_p95 - self.same_p95

    def error(self, name: str, *, way: bool = True) -> float:
        """Of a formula's mean, relative to the measured one."""
        return (self.said[name].mean + way * self.way_s) / self.mean - 1.0

    def adjusted_error(self, name: str) -> float:
        """The same, relative to the adjusted mean."""
        return (self.said[name].mean + self.way_s) / self.adjusted - 1.0

    def p95_error(self, name: str) -> float:
        """Of a formula's p95, relative to the measured one."""
        return (self.said[name].p95 + self.way_s) / self.p95 - 1.0

    def adjusted_p95_error(self, name: str) -> float:
        """The same, relative to the adjusted p95."""
        return (self.said[name].p95 + self.way_s) / self.adjusted_p95 - 1.0


def cells(trial: Trial, seen: Measured, gaid: GenAIDeployment) -> list[Cell]:
    """Evaluate a run."""
    case = trial.case
    way_s, held_s = seen.way_s(case), seen.held_s(case)
    times, took, part = np.array(seen.intended_s), np.array(seen.response_s), np.array(seen.part)
    prompts = np.full(times.size, case.input_tokens)
    asked = Workload(times, prompts, np.array(seen.output_tokens), float(times[-1]))
    same = _twin(case, asked, way_s, held_s)
    found = []
    for index, one in enumerate(trial.parts):
        steady = (part == index) & (times >= seen.steady_s[index])
        rate = trial.rate(one)
        long = _long(trial, one, way_s, held_s)
        found.append(
            Cell(
                load=one.load, rate=rate, requests=int(steady.sum()), busy=seen.busy[index],
                mean=float(took[steady].mean()), half=half_width(took[steady]), p95=p95(took[steady]),
                adjusted_half=math.hypot(half_width((took - same)[steady]), half_width(long)),
                same_mean=float(same[steady].mean()), same_p95=p95(same[steady]),
                long_mean=float(long.mean()), long_p95=p95(long),
                way_s=way_s, said=forecasts(case, gaid, rate, held_s),
            )
        )  # fmt: skip
    return found


def _twin(case: Case, asked: Workload, way_s: float, held_s: float) -> Floats:
    """Responses in virtual time."""
    return Twin(asked, case.profile, case.replicas, case.slots, held_s).run() + way_s - held_s


def _long(trial: Trial, part: Part, way_s: float, held_s: float) -> Floats:
    count, rate = LONG_RUN / (1.0 - part.load), trial.rate(part)
    asked = trial.asked(rate, count / rate, len(trial.parts))
    return _twin(trial.case, asked, way_s, held_s)[round(count / 20) :]


def half_width(values: Floats) -> float:
    """Half of the 95% interval of the mean of correlated values, from the means of ten consecutive batches."""
    means = np.array([batch.mean() for batch in np.array_split(values, BATCHES)])
    return float(student.ppf(0.975, BATCHES - 1) * means.std(ddof=1) / np.sqrt(BATCHES))


def p95(values: Floats) -> float:
    """Nearest rank, as in the load generator."""
    return float(np.quantile(values, Q, method="inverted_cdf"))
