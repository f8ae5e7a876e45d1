"""From Ray Serve's autoscaling context to an Observation of the pure core.

What the context holds (Ray Serve 2.60): `raw_metrics[name][replica]` is the time series that each RUNNING replica
pushed last (one point per `min(0.2 look_back_period_s, metrics_interval_s)`, pushed per `metrics_interval_s`), with the
numbers of the deployment's `record_autoscaling_stats` and, where replicas take requests directly (HAProxy),
`running_requests`. `total_num_requests` is a mean over `look_back_period_s`, 0 both for no traffic and for no report.
`current_num_replicas` counts the replicas that run; `target_num_replicas` is the target in force.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from tierserve.plan.autoscale import GatewaySample, Observation, ReplicaSample
from tierserve.plan.autoscale_model import StepCounts

_RUNNING_REQUESTS = "running_requests"  # Ray's own name
_NAN = float("nan")
_STEPS = tuple(f"{name}_total" for name in StepCounts._fields)


def _name(replica_id: Any) -> str:
    return str(getattr(replica_id, "unique_id", replica_id))


def _last(raw: Mapping[str, Mapping[Any, Any]], metric: str, replica_id: Any, default: float = 0.0) -> float:
    series = raw.get(metric, {}).get(replica_id)
    return float(series[-1].value) if series else default


def _replica(raw: Mapping[str, Mapping[Any, Any]], replica_id: Any) -> ReplicaSample | None:
    series = raw["arrivals_total"].get(replica_id)
    if not series:
        return None
    startup = _last(raw, "startup_seconds", replica_id, _NAN)
    return ReplicaSample(
        t=float(series[-1].timestamp),
        arrivals=float(series[-1].value),
        completions=_last(raw, "completions_total", replica_id),
        service_s=_last(raw, "service_seconds_total", replica_id),
        service_sq_s2=_last(raw, "service_seconds_sq_total", replica_id),
        gateway_wait_s=_last(raw, "gateway_wait_seconds_total", replica_id),
        running=_last(raw, "running", replica_id),
        waiting=_last(raw, "waiting", replica_id),
        startup_s=None if math.isnan(startup) else startup,
    )


def replica_samples(raw: Mapping[str, Mapping[Any, Any]], replica_ids: Mapping[str, Any]) -> dict[str, ReplicaSample]:
    """Return the last figures of every replica, by its name."""
    found = {name: _replica(raw, r) for name, r in replica_ids.items()}
    return {name: sample for name, sample in found.items() if sample is not None}


class StepReports(Mapping[str, StepCounts]):
    """What replicas tell of their steps, read when asked for: a decision asks for a few of thousands.

    A replica that leaves out one of the counters is not there: what is missing is not 0.
    """

    def __init__(self, raw: Mapping[str, Mapping[Any, Any]], replica_ids: Mapping[str, Any]) -> None:
        self._raw, self._ids = raw, replica_ids

    def __getitem__(self, name: str) -> StepCounts:
        """Return the counters of a replica. Raises `KeyError` if it does not tell all of them."""
        replica_id = self._ids[name]
        series = [self._raw[metric][replica_id] for metric in _STEPS]
        if not all(series):
            raise KeyError(name)
        return StepCounts(*(float(one[-1].value) for one in series))

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)


def _ongoing(ctx: Any, raw: Mapping[str, Mapping[Any, Any]], now: float, stale_after_s: float) -> float | None:
    """Return the requests in the deployment; None if replicas that count them have gone silent."""
    series = [s for s in raw.get(_RUNNING_REQUESTS, {}).values() if s]
    if not series:
        return float(ctx.total_num_requests)
    fresh = [s[-1].value for s in series if now - s[-1].timestamp <= stale_after_s]
    if not fresh:
        return None
    return float(sum(fresh)) * len(series) / len(fresh) + float(ctx.total_queued_requests or 0.0)


def observation(ctx: Any, gateway: GatewaySample | None, now: float, stale_after_s: float) -> Observation:
    """Return what the context and the gateway tell at `now` (Unix seconds)."""
    raw = ctx.raw_metrics or {}
    ids = {_name(r): r for r in raw.get("arrivals_total", {})}
    replicas = replica_samples(raw, ids)
    return Observation(
        t=now,
        running=int(ctx.current_num_replicas),
        target=int(ctx.target_num_replicas),
        floor=int(ctx.capacity_adjusted_min_replicas),
        ceiling=int(ctx.capacity_adjusted_max_replicas),
        replicas=replicas,
        gateway=gateway,
        ongoing=None if replicas else _ongoing(ctx, raw, now, stale_after_s),
        queued=float(ctx.total_queued_requests or 0.0) if replicas and gateway is None else None,
        steps=StepReports(raw, ids) if _STEPS[-1] in raw else {},
    )
