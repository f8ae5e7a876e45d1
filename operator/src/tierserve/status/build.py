"""What is observed, against what was asked for: conditions, one line per pool, and the words for each (pure).

Conditions follow the Kubernetes API conventions: `type`, `status` True | False | Unknown, `reason` in CamelCase,
`message` for people, `observedGeneration`, `lastTransitionTime` that moves only when `status` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from tierserve.api import GenAIDeployment, hints
from tierserve.api.errors import Problem
from tierserve.api.v1alpha1.tiers import Tier
from tierserve.plan.energy import energy_of
from tierserve.plan.placement import Placement
from tierserve.status.profile import OFF, profile_status, profiles_off

Truth = Literal["True", "False", "Unknown"]
Status = dict[str, Any]

# A decision or a measurement older than this says nothing about now.
STALE_AFTER_S = 15.0
_TAKEN = ("watts", "costPerHour", "carbonGramsPerHour")


@dataclass(frozen=True, slots=True)
class PoolObserved:
    """What is known of one pool; None is "not known", which is not zero.

    Attributes:
        app: state of the Serve application (RUNNING, DEPLOYING, ...), None when Serve does not answer.
        message: Serve's own words when something is wrong.
        running: replicas that serve.
        desired: replicas that Serve aims at.
        decision: the policy's last decision.
        gateway: the gateway's figures of the pool.
    """

    app: str | None = None
    message: str = ""
    running: int | None = None
    desired: int | None = None
    decision: Mapping[str, Any] | None = None
    gateway: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything observed in one pass.

    Attributes:
        now: Unix seconds.
        endpoint: base URL of the service.
        pools: per pool name.
        parts: whether each part (gateway, agent, ray head, nodes) is alive.
        problems: what went wrong in this pass, in words.
    """

    now: float
    endpoint: str
    pools: Mapping[str, PoolObserved] = field(default_factory=dict)
    parts: Mapping[str, bool] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition before it gets its generation and time."""

    type: str
    status: Truth
    reason: str
    message: str


def status(
    gaid: GenAIDeployment,
    placements: Sequence[Placement],
    observed: Observed,
    previous: Status | None = None,
    *,
    cluster: bool = False,
) -> Status:
    """The whole status of a resource.

    Args:
        gaid: what was asked for.
        placements: what the planner made of it.
        observed: what is.
        previous: the status before, for the times of transition.
        cluster: it runs on Kubernetes.

    Returns:
        A JSON-able status: endpoint, conditions, pools, replicas, ready.
    """
    seen = {p.pool: observed.pools.get(p.pool, PoolObserved()) for p in placements}
    pools = [
        pool_status(p, seen[p.pool], observed.now) | taken(gaid.tier(p.tier), seen[p.pool], observed.now)
        for p in placements
    ]
    conditions = [
        _accepted(gaid, cluster=cluster),
        _ready(placements, observed, pools),
        _degraded(observed, pools),
        _scaling_ready(pools),
        _slo_met(pools),
        _profile_fits(pools),
    ]
    conditions.insert(2, _progressing(gaid, pools))
    generation = gaid.metadata.generation or 0
    return {
        "observedGeneration": generation,
        "endpoint": observed.endpoint,
        "ready": conditions[1].status,
        "replicas": sum(p["running"] or 0 for p in pools),
        "tiers": f"{sum(1 for p in pools if p['ready'])}/{len(pools)}",
        "p95": _slowest(pools),
        "connections": _connections(pools),
        **{name: _sum(pools, name) for name in _TAKEN},
        "conditions": [_stamped(c, generation, observed.now, previous) for c in conditions],
        "pools": pools,
        "parts": dict(observed.parts),
    }


def known(value: Any) -> Any:
    """The status as it is written to a cluster: what is not known is left out, since null is no value there."""
    if isinstance(value, Mapping):
        return {name: known(one) for name, one in value.items() if one is not None}
    if isinstance(value, list | tuple):
        return [known(one) for one in value]
    return value


def refused(gaid: Mapping[str, Any], problems: Sequence[Problem], now: float, previous: Status | None = None) -> Status:
    """The status of a resource that cannot be served as it is: which field, what about it, and a hint what to do.

    Args:
        gaid: the resource as it is in the cluster.
        problems: why; what runs already is left as it is.
        now: Unix seconds.
        previous: the status before.
    """
    generation = int(gaid["metadata"].get("generation") or 0)
    words = _in_words(problems)
    conditions = [
        Condition("Accepted", "False", "CannotBePlanned", words),
        Condition("Ready", "False", "CannotBePlanned", "the last spec cannot be served; what ran before is left alone"),
        Condition("Progressing", "False", "CannotBePlanned", "nothing is changed until the spec is corrected"),
        Condition("Degraded", "True", "CannotBePlanned", words),
    ]
    stamped = [_stamped(c, generation, now, previous) for c in conditions]
    others = [c for c in (previous or {}).get("conditions", ()) if c["type"] in {"ScalingReady", "SloMet"}]
    return {**(previous or {}), "observedGeneration": generation, "ready": "False", "conditions": [*stamped, *others]}


def _slowest(pools: Sequence[Mapping[str, Any]]) -> str | None:
    """Observed p95 of the slowest pool with traffic, as a duration."""
    seen = [value for p in pools if (value := observed_p95(p)) is not None]
    return f"{max(seen) * 1e3:.0f}ms" if seen else None


def _connections(pools: Sequence[Mapping[str, Any]]) -> int | None:
    """Requests in flight and waiting now; None while the gateway says nothing."""
    known = [p["gateway"] for p in pools if p["gateway"]]
    return sum(int(g.get("in_flight") or 0) + int(g.get("queued") or 0) for g in known) if known else None


def pool_status(placement: Placement, seen: PoolObserved, now: float) -> dict[str, Any]:
    """One pool: desired and running replicas, the policy's figures, predicted and observed p95, the reason in words."""
    # which gateway has how many requests is for the gateways' agents
    decision = {name: value for name, value in (seen.decision or {}).items() if name != "gateways"}
    fresh = bool(decision) and now - float(decision.get("t", 0.0)) <= STALE_AFTER_S
    floor = max(placement.min_replicas, 0)
    running = seen.running
    return {
        "pool": placement.pool,
        "tier": placement.tier,
        "site": placement.site,
        "kind": placement.kind,
        "model": placement.model,
        "engine": placement.engine,
        "slots": placement.slots,
        "minReplicas": placement.min_replicas,
        "maxReplicas": placement.max_replicas,
        "app": seen.app,
        "message": seen.message,
        "desired": seen.desired,
        "running": running,
        "ready": seen.app == "RUNNING" and running is not None and running >= floor,
        "scaledToZero": is_scaled_to_zero(placement, seen),
        "decision": decision if fresh else None,
        "gateway": dict(seen.gateway) if seen.gateway else None,
        "modelError": model_error(decision if fresh else {}, seen.gateway or {}),
        **profile_status(placement, decision if fresh else {}),
        "targetSeconds": placement.target_s,
        "percentile": placement.percentile,
    }


def is_scaled_to_zero(placement: Placement, seen: PoolObserved) -> bool:
    """Whether a pool has no replica because its floor is 0 and it has no load; the next request starts one."""
    may_be_zero = placement.min_replicas == 0 < placement.max_replicas
    return may_be_zero and seen.app == "RUNNING" and seen.running == 0 and seen.desired == 0


def is_short(observed: Observed, placements: Sequence[Placement]) -> bool:
    """Whether a pool has fewer replicas than it should, says nothing, or the gateway is away: time to ask why."""
    pools = [pool_status(p, observed.pools.get(p.pool, PoolObserved()), observed.now) for p in placements]
    return not all(observed.parts.values()) or any(
        not one["ready"] or one["decision"] is None or (one["desired"] or 0) > (one["running"] or 0) for one in pools
    )


def taken(tier: Tier, seen: PoolObserved, now: float) -> dict[str, float | None]:
    """What the replicas that serve take: watts as used, money and grams of CO2e an hour; None where not known."""
    decision = seen.decision or {}
    rho = decision.get("rho") if now - float(decision.get("t", 0.0)) <= STALE_AFTER_S else None
    if seen.running is None or rho is None:
        return dict.fromkeys(_TAKEN)
    energy = energy_of(tier, seen.running, min(1.0, float(rho)), float(decision.get("lambda", 0.0)))
    figures = (energy.watts, energy.cost_per_hour, energy.carbon_g_per_hour)
    return {name: round(value, 2) for name, value in zip(_TAKEN, figures, strict=True)}


def _sum(pools: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """Over all pools; None where one of them is unknown, since a part would look like the whole."""
    values = [p[name] for p in pools]
    return None if None in values else round(sum(values), 2)


def _accepted(gaid: GenAIDeployment, *, cluster: bool) -> Condition:
    """Whether the spec can be served; fields without effect and values that do not go together are listed."""
    found = hints(gaid, cluster=cluster)
    if found:
        return Condition("Accepted", "True", "AcceptedWithHints", _in_words(found))
    return Condition("Accepted", "True", "Accepted", "every field of the spec is acted on")


def _in_words(problems: Sequence[Problem]) -> str:
    """Field, what about it and hint of each, within the length of a condition's message."""
    return "; ".join(": ".join(filter(None, (p.path, p.message_with_value, p.hint))) for p in problems)[:1000]


def _ready(placements: Sequence[Placement], observed: Observed, pools: Sequence[Mapping[str, Any]]) -> Condition:
    waiting = [p["pool"] for p in pools if not p["ready"]]
    dead = sorted(name for name, alive in observed.parts.items() if not alive)
    if dead:
        return Condition("Ready", "False", "PartsMissing", f"not running: {', '.join(dead)}")
    if waiting:
        return Condition("Ready", "False", "PoolsNotReady", f"waiting for {', '.join(waiting)}")
    at_zero = [p["pool"] for p in pools if p["scaledToZero"]]
    serving = len(placements) - len(at_zero)
    if not serving:
        return Condition(
            "Ready", "True", "ScaledToZero", f"scaled to zero; a request to {observed.endpoint} starts a replica"
        )
    words = f"{serving} {'pool serves' if serving == 1 else 'pools serve'} at {observed.endpoint}"
    if at_zero:
        words += f"; scaled to zero: {', '.join(at_zero)}"
    return Condition("Ready", "True", "Serving", words)


def _progressing(gaid: GenAIDeployment, pools: Sequence[Mapping[str, Any]]) -> Condition:
    if gaid.spec.paused:
        return Condition("Progressing", "False", "Paused", "spec.paused is true: nothing is changed")
    moving = [p["pool"] for p in pools if p["app"] == "DEPLOYING" or (p["desired"] or 0) != (p["running"] or 0)]
    if moving:
        return Condition("Progressing", "True", "Scaling", f"on the way: {', '.join(moving)}")
    return Condition("Progressing", "False", "Settled", "all pools are at their desired replica count")


def _degraded(observed: Observed, pools: Sequence[Mapping[str, Any]]) -> Condition:
    failed = [
        f"{p['pool']}: {p['app']} {p['message']}".strip() for p in pools if p["app"] in {"UNHEALTHY", "DEPLOY_FAILED"}
    ]
    words = [*observed.problems, *failed]
    if words:
        return Condition("Degraded", "True", "Problems", "; ".join(words)[:1000])
    return Condition("Degraded", "False", "AsExpected", "no problem seen")


def _scaling_ready(pools: Sequence[Mapping[str, Any]]) -> Condition:
    blind = [p["pool"] for p in pools if not p["decision"] or p["decision"].get("stale")]
    if blind:
        words = f"no fresh decision for {', '.join(blind)}: replicas are held"
        return Condition("ScalingReady", "False", "MetricsMissing", words)
    return Condition("ScalingReady", "True", "Deciding", "every pool has a fresh decision")


def _slo_met(pools: Sequence[Mapping[str, Any]]) -> Condition:
    seen = {p["pool"]: observed_p95(p) for p in pools}
    measured = {pool: value for pool, value in seen.items() if value is not None}
    if not measured:
        return Condition("SloMet", "Unknown", "NoTraffic", "no requests in the last minute")
    missed = [
        f"{p['pool']} {measured[p['pool']] * 1e3:.0f} ms of {p['targetSeconds'] * 1e3:.0f} ms"
        for p in pools
        if p["pool"] in measured and measured[p["pool"]] > p["targetSeconds"]
    ]
    if missed:
        return Condition("SloMet", "False", "TargetMissed", f"over the target: {', '.join(missed)}")
    return Condition("SloMet", "True", "WithinTarget", "every pool with traffic is within its target")


def _profile_fits(pools: Sequence[Mapping[str, Any]]) -> Condition:
    if all(p["profileError"] is None for p in pools):
        return Condition("ProfileFits", "Unknown", "NotMeasured", "too few requests yet to tell")
    off = profiles_off(pools)
    if off:
        return Condition("ProfileFits", "False", "ProfileOff", "; ".join(off))
    return Condition("ProfileFits", "True", "AsMeasured", f"profiles are within {OFF:.0%} of what replicas show")


def observed_p95(pool: Mapping[str, Any]) -> float | None:
    """Seconds within which 95% of the last window's requests were answered, None without traffic."""
    value = (pool.get("gateway") or {}).get("p95_s")
    return float(value) if value is not None else None


def model_error(decision: Mapping[str, Any], gateway: Mapping[str, Any]) -> float | None:
    """Predicted over observed p95, less 1; None without traffic, or where another percentile is predicted."""
    predicted, observed = decision.get("predicted_p95_s"), gateway.get("p95_s")
    if not predicted or not observed or decision.get("percentile", 95.0) != 95.0:
        return None
    return round(float(predicted) / float(observed) - 1.0, 3)


def _stamped(condition: Condition, generation: int, now: float, previous: Status | None) -> dict[str, Any]:
    before = next((c for c in (previous or {}).get("conditions", ()) if c["type"] == condition.type), None)
    moved = before is None or before["status"] != condition.status
    at = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moved else before["lastTransitionTime"]  # type: ignore[index]
    return {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        "observedGeneration": generation,
        "lastTransitionTime": at,
    }
