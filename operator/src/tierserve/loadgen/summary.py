"""Percentiles and shares, from exact samples.

A percentile is the nearest-rank one (numpy's `inverted_cdf`: the least sample that at least a share q of the samples
does not exceed), so it is always a time that some request really took. It is taken over the requests answered and
those given up on, the latter at the time they had waited (a lower bound): a time-out must not vanish from the tail.
Requests refused at once (503, connection refused) have no response time; they and all failures count as misses of
the objective. Requests cut off because the run was stopped by hand are counted apart and not judged.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from tierserve.loadgen.samples import Outcome, RequestLog
from tierserve.loadgen.scenario import LoadPlan, Step

_WAITED = (Outcome.OK, Outcome.TIMEOUT, Outcome.TRUNCATED)


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of a set of requests; seconds, NaN where there is nothing to measure."""

    requests: int
    rate: float
    p50_s: float
    p95_s: float
    p99_s: float
    mean_s: float
    max_s: float
    first_token_p50_s: float
    first_token_p95_s: float
    token_gap_p50_s: float
    token_gap_p95_s: float
    tokens: int
    errors: int
    errors_by_kind: dict[str, int]
    within_slo: float
    unfinished: int


class Span(NamedTuple):
    """When a step began, when its steady part did, and when it ended; seconds since the run began."""

    start_s: float
    steady_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class StepResult:
    """One step: what was asked, when, and the figures of its steady part.

    Attributes:
        start_s, end_s: seconds since the run began; `steady_s` is where the warm-up ended.
        complete: False when the run was stopped inside it.
        all, by_traffic, by_pool: figures of requests meant to start in the steady part.
        warmup: figures of the rest.
    """

    name: str
    connections: int
    start_s: float
    steady_s: float
    end_s: float
    complete: bool
    all: Summary
    warmup: Summary
    by_traffic: dict[str, Summary]
    by_pool: dict[str, Summary]


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What a run measured.

    Attributes:
        t0_unix: unix time of second 0 of the samples.
        stopped: why it ended early, or "".
        skipped: names of steps that were not begun.
        lag_s: the worst lateness of the generator itself, seconds; a large one means this machine was too slow.
    """

    plan: LoadPlan
    t0_unix: float
    samples: RequestLog
    steps: tuple[StepResult, ...]
    skipped: tuple[str, ...] = ()
    stopped: str = ""
    lag_s: float = 0.0

    def total(self) -> Summary:
        """Figures of all requests, warm-up included."""
        seconds = self.steps[-1].end_s if self.steps else 0.0
        return summarise(self.samples, seconds, self._slos())

    def _slos(self) -> dict[str, float | None]:
        return slos(self.plan)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; NaN becomes None."""
        return {
            "url": self.plan.url,
            "slo_s": self.plan.slo_s,
            "t0_unix": self.t0_unix,
            "stopped": self.stopped,
            "skipped": list(self.skipped),
            "generator_lag_s": self.lag_s,
            "steps": [_plain(asdict(step)) for step in self.steps],
            "total": _plain(asdict(self.total())),
        }

    def to_json(self) -> bytes:
        """`to_dict` as JSON."""
        return orjson.dumps(self.to_dict(), option=orjson.OPT_INDENT_2)


def slos(plan: LoadPlan) -> dict[str, float | None]:
    """Objective by name of traffic."""
    return {t.name: t.slo_s if t.slo_s is not None else plan.slo_s for step in plan.steps for t in step.traffic}


def quantile(values: NDArray[np.float64], q: float) -> float:
    """Nearest-rank quantile; NaN of nothing."""
    finite = values[np.isfinite(values)]
    return float(np.quantile(finite, q, method="inverted_cdf")) if finite.size else math.nan


def summarise(samples: RequestLog, seconds: float, objective: dict[str, float | None]) -> Summary:
    """Figures of some requests made over `seconds`; `objective` maps the name of a traffic to seconds or None."""
    unfinished = samples.outcome == Outcome.UNFINISHED
    samples = samples.where(~unfinished)
    waited = np.isin(samples.outcome, _WAITED)
    latency = samples.latency[waited]
    good = samples.outcome == Outcome.OK
    failed = samples.outcome[~good]
    return Summary(
        requests=len(samples),
        rate=float(good.sum() / seconds) if seconds > 0 else 0.0,
        p50_s=quantile(latency, 0.50),
        p95_s=quantile(latency, 0.95),
        p99_s=quantile(latency, 0.99),
        mean_s=float(latency.mean()) if latency.size else math.nan,
        max_s=float(latency.max()) if latency.size else math.nan,
        first_token_p50_s=quantile(samples.first_token_wait[good], 0.50),
        first_token_p95_s=quantile(samples.first_token_wait[good], 0.95),
        token_gap_p50_s=quantile(samples.token_gap[good], 0.50),
        token_gap_p95_s=quantile(samples.token_gap[good], 0.95),
        tokens=int(samples.tokens.sum()),
        errors=int(failed.size),
        errors_by_kind=_kinds(samples),
        within_slo=_within(samples, objective),
        unfinished=int(unfinished.sum()),
    )


def summarise_step(
    index: int, step: Step, samples: RequestLog, *, span: Span, complete: bool, plan: LoadPlan
) -> StepResult:
    """Figures of one step that lasted over `span`."""
    start, steady_from, end = span
    mine = samples.where(samples.step == index)
    steady = mine.where(mine.intended >= steady_from)
    seconds, objective = end - steady_from, slos(plan)
    return StepResult(
        name=step.name,
        connections=step.connections,
        start_s=start,
        steady_s=steady_from,
        end_s=end,
        complete=complete,
        all=summarise(steady, seconds, objective),
        warmup=summarise(mine.where(mine.intended < steady_from), steady_from - start, objective),
        by_traffic={t.name: summarise(steady.of_traffic(t.name), seconds, objective) for t in step.traffic},
        by_pool={
            pool: summarise(steady.where(steady.pool == i), seconds, objective)
            for i, pool in enumerate(steady.pools)
            if (steady.pool == i).any()
        },
    )


def _within(samples: RequestLog, objective: dict[str, float | None]) -> float:
    """Share of requests answered within their objective; NaN without objective or requests."""
    limits = np.array([objective.get(name) or math.nan for name in samples.traffics])
    if not len(samples) or not np.isfinite(limits).any():
        return math.nan
    limit = limits[samples.traffic]
    judged = np.isfinite(limit)
    met = (samples.outcome == Outcome.OK) & (samples.latency <= limit)
    return float(met[judged].mean()) if judged.any() else math.nan


def _kinds(samples: RequestLog) -> dict[str, int]:
    """Failures by kind: `http_503`, `timeout`, `error_in_answer`, ..."""
    kinds: dict[str, int] = {}
    for outcome, status in zip(samples.outcome.tolist(), samples.status.tolist(), strict=True):
        if outcome == Outcome.OK:
            continue
        kind = Outcome(outcome).name.lower()
        if outcome == Outcome.HTTP_ERROR:  # or an error in an answer that began with 200
            kind = f"http_{status}" if status >= 400 else "error_in_answer"
        kinds[kind] = kinds.get(kind, 0) + 1
    return kinds


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
