"""Predictions of each formula for a pool at a rate: mean and p95 of the response, without the overhead of the path."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tierserve.api import GenAIDeployment
from tierserve.plan.capacity import Demand, make_plan
from tierserve.queueing import BatchProfile, batch_queue, erlang_c, mean_wait, mean_wait_general

Floats = NDArray[np.float64]
Q = 0.95
_DRAWS = 100_000

HELD, SPREAD, BATCH = "batch queue, spread and overhead", "batch queue, spread", "batch queue"
PLANNER, SPLIT, FULL, PAPER = "planner", "a queue per replica", "Erlang C, 1 / T(n)", "Erlang C, 1 / T(1)"
NAMES = (HELD, SPREAD, BATCH, PLANNER, SPLIT, FULL, PAPER)


@dataclass(frozen=True)
class Case:
    """A pool and its requests.

    Attributes:
        replicas, slots: R and n.
        input_tokens, output_tokens: of a request, the mean where they vary.
        varied: whether the output is geometric (no memory: a token is the last with the same chance); else all alike.
    """

    replicas: int
    slots: int
    profile: BatchProfile
    input_tokens: int
    output_tokens: int
    varied: bool

    def rates(self, held_s: float = 0.0) -> Floats:
        """r(1), ..., r(n), where a request holds its slot `held_s` longer than its service."""
        batch = np.arange(1, self.slots + 1)
        return batch / (np.array([self.service_s(float(n)) for n in batch]) + held_s)

    @property
    def capacity(self) -> float:
        """Requests per second of all replicas when full."""
        return self.replicas * self.slots / self.service_s(self.slots)

    def service_s(self, n: float) -> float:
        """T(n)."""
        return self.profile.service_time(n, self.input_tokens, self.output_tokens)

    def lengths(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Output tokens of `count` requests."""
        if self.varied:
            return rng.geometric(1.0 / self.output_tokens, count)
        return np.full(count, self.output_tokens)

    @property
    def output_spread(self) -> float:
        """Standard deviation of the output tokens over their mean."""
        return math.sqrt(1.0 - 1.0 / self.output_tokens) if self.varied else 0.0

    @property
    def spread(self) -> float:
        """Squared coefficient of variation of the steps of a request, 1 + its output tokens."""
        mean = self.output_tokens
        return mean * (mean - 1.0) / (mean + 1.0) ** 2 if self.varied else 0.0


@dataclass(frozen=True)
class Forecast:
    """Seconds."""

    mean: float
    p95: float


def forecasts(case: Case, gaid: GenAIDeployment, rate: float, held_s: float = 0.0) -> dict[str, Forecast]:
    """Each formula's forecast at `rate` requests per second; `held_s` of the overhead holds a slot."""
    return {
        HELD: _batches(case, rate, case.replicas, spread=case.spread, held_s=held_s),
        SPREAD: _batches(case, rate, case.replicas, spread=case.spread),
        BATCH: _batches(case, rate, case.replicas),
        PLANNER: _planned(gaid, rate),
        SPLIT: _batches(case, rate / case.replicas, 1),
        FULL: _erlang(case, rate, case.slots),
        PAPER: _erlang(case, rate, 1),
    }


def _batches(case: Case, rate: float, replicas: int, *, spread: float = 1.0, held_s: float = 0.0) -> Forecast:
    """Replicas that slow down as their batches fill; waits as of M/G/c for a spread of the lengths other than 1."""
    rates = case.rates(held_s)
    found = batch_queue(rate, replicas, rates)
    servers, each = replicas * case.slots, float(rates[-1]) / case.slots
    wait_s = found.mean_wait
    if spread != 1.0:
        wait_s *= mean_wait_general(servers, rate, each, spread) / mean_wait(servers, rate, each)
    rng = np.random.default_rng(0)
    there = rng.choice(servers + 1, _DRAWS, p=_chain(rate, replicas, rates))
    waits = np.where(there == servers, wait_s / found.p_wait * rng.exponential(1.0, _DRAWS), 0.0)
    batch = np.minimum((there + 1.0) / replicas, case.slots)
    service = np.interp(batch, np.arange(1, case.slots + 1), np.arange(1, case.slots + 1) / rates)
    service *= found.mean_service / service.mean()
    return _forecast(case, found.mean_service - held_s, wait_s, service - held_s, waits)


def _chain(rate: float, replicas: int, rates: Floats) -> Floats:
    """P(an arrival finds k requests) for k = 0 .. R n, waiting ones included in the last."""
    levels = np.concatenate([[0.0], rates])
    k = np.arange(1, replicas * rates.size + 1)
    low, more = np.divmod(k, replicas)
    mu = (replicas - more) * levels[low] + more * levels[np.minimum(low + 1, rates.size)]
    weight = np.exp(np.concatenate([[0.0], np.cumsum(np.log(rate / mu))]))
    weight[-1] /= 1.0 - rate / (replicas * rates[-1])
    chance: Floats = weight / weight.sum()
    return chance


def _erlang(case: Case, rate: float, n: int) -> Forecast:
    """M/M/c with the service time of a replica that has n in its batch."""
    servers, service_s = case.replicas * case.slots, case.service_s(n)
    p_wait, wait_s = erlang_c(servers, rate * service_s), mean_wait(servers, rate, 1.0 / service_s)
    rng = np.random.default_rng(0)
    each = wait_s / p_wait if p_wait > 0.0 else 0.0
    waits = np.where(rng.random(_DRAWS) < p_wait, each * rng.exponential(1.0, _DRAWS), 0.0)
    return _forecast(case, service_s, wait_s, np.full(_DRAWS, service_s), waits)


def _planned(gaid: GenAIDeployment, rate: float) -> Forecast:
    [pool] = make_plan(gaid, Demand(rate=rate)).pools
    return Forecast(pool.mean_response_s, pool.response_s)


def _forecast(case: Case, service_s: float, wait_s: float, services: Floats, waits: Floats) -> Forecast:
    """From the means, and draws of the service of a mean request and of the wait."""
    steps = 1.0 + case.lengths(_DRAWS, np.random.default_rng(1))
    took = services * steps / (1.0 + case.output_tokens) + waits
    return Forecast(service_s + wait_s, float(np.quantile(took, Q)))
