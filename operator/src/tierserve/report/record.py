"""A run as plain values: steps, what each pool did over time, and every response time. Saved as JSON."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from tierserve.loadgen.samples import Outcome
from tierserve.loadgen.summary import LoadResult, StepResult, Summary

FLAT_WITHIN = 0.15
"""The curve counts as flat when every step stays within this share of the median over the steps."""


@dataclass(frozen=True, slots=True)
class PoolPoint:
    """What one pool was at one moment.

    Attributes:
        t: seconds since the run began.
        replicas, desired: replicas that serve, and the policy's desired number.
        rate, rho: arrivals per second and utilisation, as the policy saw them; None when it gave no fresh decision.
        predicted_p95_s: the policy's prediction, network included.
        observed_p95_s: of the gateway's last window.
    """

    t: float
    replicas: int
    desired: int | None = None
    rate: float | None = None
    rho: float | None = None
    predicted_p95_s: float | None = None
    observed_p95_s: float | None = None


def pool_point(pool: Mapping[str, Any], at: float, target_s: float) -> PoolPoint | None:
    """A pool of the status document as a point with unix time; None while nothing is known of its replicas.

    What the objective leaves a pool is `targetSeconds`; the difference is the network, which the policy does not see
    and clients do.
    """
    if pool.get("running") is None:
        return None
    decision, gateway = pool.get("decision") or {}, pool.get("gateway") or {}
    predicted, network_s = decision.get("predicted_p95_s"), max(0.0, target_s - float(pool["targetSeconds"]))
    return PoolPoint(
        at, int(pool["running"]), pool.get("desired"), decision.get("lambda"), decision.get("rho"),
        None if predicted is None else float(predicted) + network_s, gateway.get("p95_s"),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class StepRecord:
    """The steady part of one step; `connections` is None for a trace."""

    name: str
    connections: int | None
    start_s: float
    steady_s: float
    end_s: float
    requests: int
    rate: float
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    within_slo: float | None
    errors: int
    observed_p95_s: Mapping[str, float] = field(default_factory=dict)
    predicted_p95_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Everything a report shows.

    Attributes:
        target_s, percentile: the objective.
        traffic: name of the traffic the curve is of; `beside` has the figures of the others, by name.
        pools: points per pool, in order of time.
        samples: (end, response time) in seconds of the requests answered, for the scatter.
        texts: answers worth showing, as (question, answer).
        notes: what a reader must know (a limit that was met, a step that was left out).
    """

    title: str
    target_s: float
    percentile: float
    traffic: str
    steps: tuple[StepRecord, ...]
    pools: Mapping[str, tuple[PoolPoint, ...]]
    samples: tuple[tuple[float, float], ...]
    machine: str = ""
    beside: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    texts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def connection_steps(self) -> tuple[StepRecord, ...]:
        """The steps of growing connections; traces are left out."""
        return tuple(step for step in self.steps if step.connections is not None)

    @property
    def end_s(self) -> float:
        """End of the last step, seconds."""
        return self.steps[-1].end_s if self.steps else 0.0

    def replica_seconds(self) -> dict[str, float]:
        """Integral of the serving replicas over the run, per pool."""
        return {pool: replica_seconds(points, self.end_s) for pool, points in self.pools.items()}

    def misses(self) -> tuple[StepRecord, ...]:
        """Steps of connections whose p95 missed the target."""
        return tuple(s for s in self.connection_steps if s.p95_s is None or s.p95_s > self.target_s)

    def share_within(self, steps: Sequence[StepRecord] | None = None) -> float:
        """Share of the requests of the steady parts within the objective (of the steps of connections); 0 without."""
        steps = self.connection_steps if steps is None else steps
        requests = sum(s.requests for s in steps)
        return sum((s.within_slo or 0.0) * s.requests for s in steps) / requests if requests else 0.0

    def share_of_all(self) -> float:
        """Share of all answered requests within the objective, the moments of scaling included; 0 without any."""
        within = sum(latency <= self.target_s for _, latency in self.samples)
        return within / len(self.samples) if self.samples else 0.0

    def spread(self) -> float:
        """Largest distance of a step's p95 from the median over the steps, as a share of it; NaN without steps."""
        values = [s.p95_s for s in self.connection_steps if s.p95_s is not None]
        middle = statistics.median(values) if values else math.nan
        return max((abs(v - middle) / middle for v in values), default=math.nan)

    def write(self, path: Path) -> None:
        """Keep the record as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY))

    @classmethod
    def read(cls, path: Path) -> RunRecord:
        """A record written before."""
        raw = orjson.loads(path.read_bytes())
        raw["steps"] = tuple(StepRecord(**step) for step in raw["steps"])
        raw["pools"] = {name: tuple(PoolPoint(**point) for point in points) for name, points in raw["pools"].items()}
        pairs = {key: tuple((a, b) for a, b in raw[key]) for key in ("samples", "texts")}
        lists = {key: tuple(raw[key]) for key in ("notes", "sources")}
        return cls(**{**raw, **pairs, **lists})


def replica_seconds(points: Sequence[PoolPoint], end_s: float) -> float:
    """Each point holds until the next, the last until the end; time before second 0 does not count."""
    ends = [*(point.t for point in points[1:]), end_s][: len(points)]
    return sum(p.replicas * max(0.0, min(e, end_s) - max(p.t, 0.0)) for p, e in zip(points, ends, strict=True))


def from_load(
    result: LoadResult, pools: Mapping[str, Sequence[PoolPoint]], *, title: str, traffic: str, percentile: float = 95.0,
    target_s: float, **more: Any,
) -> RunRecord:  # fmt: skip
    """A record of a load and of the pools' points beside it; `traffic` names the traffic the curve is of."""
    names = {name for step in result.steps for name in step.by_traffic} - {traffic}
    answered = result.samples.where(result.samples.outcome == Outcome.OK).of_traffic(traffic)
    return RunRecord(
        title=title,
        target_s=target_s,
        percentile=percentile,
        traffic=traffic,
        steps=tuple(_step(result, step, traffic, pools) for step in result.steps if step.complete),
        pools={name: tuple(points) for name, points in pools.items()},
        samples=tuple(zip(answered.end.tolist(), answered.latency.tolist(), strict=True)),
        beside={name: _whole_run(result, name) for name in sorted(names)},
        **more,
    )


def _step(result: LoadResult, step: StepResult, traffic: str, pools: Mapping[str, Sequence[PoolPoint]]) -> StepRecord:
    from tierserve.loadgen.scenario import ClosedLoop

    planned = {s.name: s for s in result.plan.steps}[step.name]
    loop = next((t.loop for t in planned.traffic if t.name == traffic), None)
    figures = step.by_traffic.get(traffic, step.all)
    observed = {pool: s.p95_s for pool, s in step.by_pool.items() if pool and s.requests >= 5}
    p50, p95, p99, within = (_number(v) for v in (figures.p50_s, figures.p95_s, figures.p99_s, figures.within_slo))
    predicted = {pool: _predicted(pools.get(pool, ()), step) for pool in observed}
    return StepRecord(
        name=step.name,
        connections=loop.connections if isinstance(loop, ClosedLoop) else None,
        start_s=step.start_s,
        steady_s=step.steady_s,
        end_s=step.end_s,
        requests=figures.requests,
        rate=figures.rate,
        p50_s=p50,
        p95_s=p95,
        p99_s=p99,
        within_slo=within,
        errors=figures.errors,
        observed_p95_s=observed,
        predicted_p95_s={pool: value for pool, value in predicted.items() if value is not None},
    )


def _predicted(points: Sequence[PoolPoint], step: StepResult) -> float | None:
    """Median prediction over the steady part."""
    span = [p.predicted_p95_s for p in points if step.steady_s <= p.t <= step.end_s and p.predicted_p95_s is not None]
    finite = [value for value in span if math.isfinite(value)]
    return statistics.median(finite) if finite else None


def _whole_run(result: LoadResult, traffic: str) -> dict[str, float | None]:
    from tierserve.loadgen.summary import slos, summarise

    summary: Summary = summarise(result.samples.of_traffic(traffic), result.steps[-1].end_s, slos(result.plan))
    return {"requests": summary.requests, "p50_s": _number(summary.p50_s), "p95_s": _number(summary.p95_s),
            "within_slo": _number(summary.within_slo), "errors": summary.errors}  # fmt: skip


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def headline(record: RunRecord) -> str:
    """One sentence with the figures."""
    steps = [s for s in record.connection_steps if s.p95_s is not None]
    if not steps:
        return "No step was completed."
    values = [(s.p95_s or 0.0) * 1e3 for s in steps]
    low, high, target = min(values), max(values), record.target_s * 1e3
    missed = ", ".join(s.name for s in record.misses())
    verdict = f"missing the {target:.0f} ms target at {missed}" if missed else f"under the {target:.0f} ms target"
    most = {pool: max((p.replicas for p in points), default=0) for pool, points in record.pools.items()}
    replicas = ", ".join(f"{count} {pool.removesuffix('-default')}" for pool, count in most.items())
    total = sum(record.replica_seconds().values())
    traces = [s for s in record.steps if s.connections is None]
    beside = f" ({record.share_within(traces):.1%} in the trace)" if traces else ""
    return (
        f"From {steps[0].connections} to {steps[-1].connections} connections p{record.percentile:g} was between "
        f"{low:.0f} and {high:.0f} ms (±{record.spread():.0%} around its median), {verdict}; "
        f"{record.share_within():.1%} of the requests of the steady parts met it{beside}, {record.share_of_all():.1%} "
        f"of all, the moments of scaling included, with at most {replicas} replicas and {total:,.0f} replica-seconds."
    )
