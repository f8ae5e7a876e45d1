"""From Ray Serve's autoscaling context to an Observation of the pure core.

What the context holds (Ray Serve 2.60): `raw_metrics[name][replica]` is the time series that each RUNNING replica
pushed last (one point per `min(0.2 look_back_period_s, metrics_interval_s)`, pushed per `metrics_interval_s`), with the
numbers of the deployment's `record_autoscaling_stats` and, where replicas take requests directly (HAProxy),
`running_requests`. `total_num_requests` is a mean over `look_back_period_s`, 0 both for no traffic and for no report.
`current_num_replicas` counts the replicas that run; `target_num_replicas` is the target in force.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tierserve.autoscale.decide import GatewaySample, Observation, ReplicaMetrics
from tierserve.autoscale.types import StepCounts

Raw = Mapping[str, Mapping[Any, Any]]
"""By metric and replica its time series, the newest value last."""
_RUNNING_REQUESTS = "running_requests"  # Ray's own name
_NAN = float("nan")
METRICS = (
    "arrivals_total",
    "completions_total",
    "service_seconds_total",
    "service_seconds_sq_total",
    "gateway_wait_seconds_total",
    "running",
    "waiting",
    "startup_seconds",
)
"""Names that a replica gives to the figures of `ReplicaSample`, in their order, all but the time."""
STARTUP_PARTS = ("download", "load", "warmup")
_STEPS = tuple(f"{name}_total" for name in StepCounts._fields)


def _name(replica_id: Any) -> str:
    return str(getattr(replica_id, "unique_id", replica_id))


def _series(raw: Raw, metric: str, ids: Sequence[Any]) -> Iterable[Sequence[Any] | None]:
    """Return a metric's time series in the order of `ids`: Ray lists the same replicas in the same order for all
    metrics."""
    by_replica = raw.get(metric, {})
    return by_replica.values() if list(by_replica) == ids else map(by_replica.get, ids)


class Receptions:
    """When the reports of replicas were received, by the clock of this process.

    A report has the time of the machine that its replica is on, whose clock may differ from ours by more than a report
    may be old. So only whether that time has changed since the last call counts.
    """

    def __init__(self) -> None:
        self._ids: list[Any] = []
        self._reported = self._received = np.empty(0)

    def times(self, ids: list[Any], reported: Sequence[float], now: float) -> np.ndarray:
        """Return the time of reception of each report.

        Args:
            ids: the replicas. reported: time of the last report of each, by its own clock. now: Unix seconds.
        """
        stamps = np.array(reported, dtype=float)
        if ids == self._ids:
            received = np.where(stamps == self._reported, self._received, now)
        else:
            before = dict(zip(self._ids, zip(self._reported, self._received, strict=True), strict=True))
            pairs = (before.get(replica, (None, now)) for replica in ids)
            received = np.array(
                [at if old == t else now for (old, at), t in zip(pairs, stamps, strict=True)], dtype=float
            )
        self._ids, self._reported, self._received = ids, stamps, received
        return received


class ReplicaReports:
    """What replicas pushed last, as columns.

    It remembers their names, which rarely change from one call to the next: keep one for each pool.
    """

    def __init__(self) -> None:
        self.names: dict[str, Any] = {}
        self.running = Receptions()  # of Ray's own count of requests
        self._receptions = Receptions()
        self._ids: list[Any] = []
        self._last = ReplicaMetrics.of({})

    def read(self, raw: Raw, now: float) -> ReplicaMetrics:
        """Return the last figures of every replica that pushed some, with the time of their reception.

        `names` then holds Ray's id of each.
        """
        ids = [replica for replica, series in raw.get("arrivals_total", {}).items() if series]
        series = [_series(raw, metric, ids) for metric in METRICS]
        # replica by replica, for what one has pushed lies together in memory
        last = [float(one[-1].value) if one else 0.0 for row in zip(*series, strict=True) for one in row]
        figures = np.array(last, dtype=float).reshape(len(ids), len(METRICS)).T
        figures[-1, figures[-1] == 0.0] = _NAN  # 0: the replica does not report its start-up time
        reported = [float(one[-1].timestamp) for one in _series(raw, "arrivals_total", ids) if one]
        columns = np.vstack([self._receptions.times(ids, reported, now), figures])
        if ids == self._ids:
            self._last = self._last.with_values(columns)
        else:
            self.names = {_name(replica): replica for replica in ids}
            self._ids, self._last = ids, ReplicaMetrics([_name(replica) for replica in ids], columns)
        return self._last


class StepReports(Mapping[str, StepCounts]):
    """Step counters of replicas, read on access: a decision reads a few of thousands.

    A replica without one of the counters is not contained: missing is not 0.
    """

    def __init__(self, raw: Raw, replica_ids: Mapping[str, Any]) -> None:
        self._raw, self._ids = raw, replica_ids

    def __getitem__(self, name: str) -> StepCounts:
        """Return the counters of a replica. Raises `KeyError` if it does not report all of them."""
        replica_id = self._ids[name]
        series = [self._raw[metric][replica_id] for metric in _STEPS]
        if not all(series):
            raise KeyError(name)
        return StepCounts(*(float(one[-1].value) for one in series))

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)


def _ongoing(ctx: Any, raw: Raw, now: float, stale_after_s: float, receptions: Receptions) -> float | None:
    """Return the requests in the deployment; None if the replicas that count them stopped reporting."""
    found = {replica: s for replica, s in raw.get(_RUNNING_REQUESTS, {}).items() if s}
    series = list(found.values())
    if not series:
        return float(ctx.total_num_requests)
    received = receptions.times(list(found), [float(s[-1].timestamp) for s in series], now)
    fresh = [s[-1].value for s, at in zip(series, received, strict=True) if now - at <= stale_after_s]
    if not fresh:
        return None
    return float(sum(fresh)) * len(series) / len(fresh) + float(ctx.total_queued_requests or 0.0)


def startup_parts(raw: Raw) -> dict[str, float]:
    """Return the median seconds of each part of a replica's start-up, of the parts that replicas report."""
    parts = {}
    for name in STARTUP_PARTS:
        values = [float(series[-1].value) for series in raw.get(f"{name}_seconds", {}).values() if series]
        if values:
            parts[f"{name}_s"] = float(np.median(values))
    return parts


def observation(
    ctx: Any,
    gateway: GatewaySample | None,
    now: float,
    stale_after_s: float,
    reports: ReplicaReports | None = None,
    *,
    downloading: bool = False,
) -> Observation:
    """Return the observation of context and gateway at `now` (Unix seconds); `reports` is the pool's own."""
    raw = ctx.raw_metrics or {}
    reports = reports if reports is not None else ReplicaReports()
    replicas = reports.read(raw, now)
    return Observation(
        t=now,
        running=int(ctx.current_num_replicas),
        target=int(ctx.target_num_replicas),
        min_replicas=int(ctx.capacity_adjusted_min_replicas),
        max_replicas=int(ctx.capacity_adjusted_max_replicas),
        replicas=replicas,
        gateway=gateway,
        ongoing=None if replicas else _ongoing(ctx, raw, now, stale_after_s, reports.running),
        queued=float(ctx.total_queued_requests or 0.0) if replicas and gateway is None else None,
        steps=StepReports(raw, reports.names) if _STEPS[-1] in raw else {},
        downloading=downloading,
    )
