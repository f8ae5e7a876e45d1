"""Status of a GenAIDeployment: conditions and one entry per pool, from the desired and the observed state (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tierserve.api import GenAIDeployment
from tierserve.api.errors import Problem
from tierserve.plan.placement import Placement
from tierserve.state import Observed, PoolObserved
from tierserve.status.conditions import Status, conditions, rejected_conditions, stamped
from tierserve.status.optimization import caps_conditions, optimize_conditions
from tierserve.status.pools import RESOURCES, download_text, observed_p95, pool_status, resource_usage
from tierserve.status.text import bounded

_KEPT_CONDITIONS = frozenset({"ScalingActive", "SLOMet"})
"""Conditions of what runs, which a rejected spec does not change."""


def status(
    gaid: GenAIDeployment,
    placements: Sequence[Placement],
    observed: Observed,
    previous: Status | None = None,
    *,
    revisions: Mapping[str, str] | None = None,
    cluster: bool = False,
) -> Status:
    """The whole status of a resource.

    Args:
        gaid: the resource.
        placements: its pools as planned.
        observed: the observed state.
        previous: the previous status, for transition times and for the generation that was ready.
        revisions: the rendered revision of each pool, as `PoolObserved.revision`; None: any revision is current.
        cluster: it runs on Kubernetes.

    Returns:
        A JSON-able status: endpoint, conditions, pools, replicas, ready. Every string is within the CRD's limits.
    """
    generation = gaid.metadata.generation or 0
    # A generation that was Ready stays Ready while a new operator version rolls out its own rendering of it.
    was_ready = _was_ready(previous, generation)
    pools = []
    for p in placements:
        pool = observed.pools.get(p.pool, PoolObserved())
        current = revisions is None or pool.revision == revisions.get(p.pool)
        entry = pool_status(p, pool, current=current, was_ready=was_ready)
        pools.append(entry | resource_usage(p, gaid.tier(p.tier), pool, observed.carbon.get(p.tier)))
    desired = {p.pool for p in placements}
    retiring = sorted(name for name, pool in observed.pools.items() if pool.serves and name not in desired)
    current_conditions = conditions(gaid, observed, pools, retiring, cluster=cluster)
    document = {
        "observedGeneration": generation,
        "endpoint": observed.endpoint,
        "ready": next(c.status for c in current_conditions if c.type == "Ready"),
        "replicas": sum(p["running"] or 0 for p in pools),
        "tiers": f"{sum(1 for p in pools if p['ready'])}/{len(pools)}",
        "p95": _slowest(pools),
        "download": download_text(pools),
        "connections": _connections(pools),
        **{name: _sum(pools, name) for name in RESOURCES},
        "conditions": [stamped(c, generation, observed.now, previous) for c in current_conditions],
        "pools": pools,
        "components": dict(observed.components),
    }
    fitted: Status = bounded(document)
    return fitted


def with_optimization(
    gaid: GenAIDeployment, status: Status, optimization: Mapping[str, Any], now: float, previous: Status | None
) -> Status:
    """The status with what `objective.optimize` found, and its conditions.

    Args:
        gaid: the resource as its spec has it.
        status: its status.
        optimization: as `plan.optimizer.step` gives it, empty if the mode is `off`.
        now: Unix seconds.
        previous: the previous status.
    """
    added = [*caps_conditions(gaid, status), *optimize_conditions(gaid, optimization, now)]
    generation = gaid.metadata.generation or 0
    conditions = [*status["conditions"], *(stamped(c, generation, now, previous) for c in added)]
    fitted: Status = bounded({**status, **optimization, "conditions": conditions})
    return fitted


def _was_ready(previous: Status | None, generation: int) -> bool:
    return any(
        (c["type"], c["status"], c.get("observedGeneration")) == ("Ready", "True", generation)
        for c in (previous or {}).get("conditions", ())
    )


def without_nulls(value: Any) -> Any:
    """The status as it is written to a cluster: unknown values are left out, because the CRD allows no null."""
    if isinstance(value, Mapping):
        return {name: without_nulls(child) for name, child in value.items() if child is not None}
    if isinstance(value, list | tuple):
        return [without_nulls(item) for item in value]
    return value


def rejected(
    gaid: Mapping[str, Any], problems: Sequence[Problem], now: float, previous: Status | None = None
) -> Status:
    """The status of a resource whose spec is invalid or cannot be placed: field, error and hint of each problem.

    Args:
        gaid: the resource as it is in the cluster.
        problems: the errors; what already runs stays unchanged.
        now: Unix seconds.
        previous: the previous status.
    """
    generation = int(gaid["metadata"].get("generation") or 0)
    current = [stamped(c, generation, now, previous) for c in rejected_conditions(problems)]
    kept = [c for c in (previous or {}).get("conditions", ()) if c["type"] in _KEPT_CONDITIONS]
    document = {**(previous or {}), "observedGeneration": generation, "ready": "False"}
    fitted: Status = bounded(document | {"conditions": [*current, *kept]})
    return fitted


def _slowest(pools: Sequence[Mapping[str, Any]]) -> str | None:
    """Observed p95 of the slowest pool with traffic, as a duration."""
    measured = [value for p in pools if (value := observed_p95(p)) is not None]
    return f"{max(measured) * 1e3:.0f}ms" if measured else None


def _connections(pools: Sequence[Mapping[str, Any]]) -> int | None:
    """Requests in flight and queued now; None while no gateway agent reports."""
    reports = [p["gateway"] for p in pools if p["gateway"]]
    return sum(int(g.get("in_flight") or 0) + int(g.get("queued") or 0) for g in reports) if reports else None


def _sum(pools: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """Sum over all pools; None where one of them is unknown: a partial sum would be read as the total."""
    values = [p[name] for p in pools]
    return None if None in values else round(sum(values), 2)
