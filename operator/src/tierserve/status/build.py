"""Status of a GenAIDeployment: conditions and one entry per pool, from what is desired and what is observed (pure).

Conditions follow the Kubernetes API conventions: `type`, `status` True | False | Unknown, `reason` in CamelCase,
`message` for people, `observedGeneration`, `lastTransitionTime` that moves only when `status` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from tierserve.api import GenAIDeployment, hints
from tierserve.api.errors import Problem
from tierserve.api.v1alpha1.tiers import Tier
from tierserve.plan.energy import energy_of
from tierserve.plan.placement import Placement
from tierserve.state import Observed, PoolObserved
from tierserve.status.profile import OFF, profile_status, profiles_off
from tierserve.status.text import bounded, cause, figures

Truth = Literal["True", "False", "Unknown"]
Status = dict[str, Any]

STALE_AFTER_S = 15.0
"""Age from which a decision, made every half second, is not shown any more and is not taken for a current one."""
UNKNOWN_AFTER_S = 60.0
"""Age from which a pool is not Ready either: a Serve controller that is restarted takes up to half a minute, in which
replicas serve on, and after that nobody knows whether they do."""
_TAKEN = ("watts", "costPerHour", "carbonGramsPerHour")
_FAILED = frozenset({"UNHEALTHY", "DEPLOY_FAILED"})
_KEPT_CONDITIONS = frozenset({"ScalingActive", "SLOMet"})
_NOT_SHOWN = frozenset({"t", "gateways", "pool"})
"""Of a decision: its time changes though nothing happens, and each gateway's requests are for the gateways' agents."""


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
    revisions: Mapping[str, str] | None = None,
    cluster: bool = False,
) -> Status:
    """The whole status of a resource.

    Args:
        gaid: the resource.
        placements: its pools as planned.
        observed: what is observed.
        previous: the status before, for the times of transition and for the generation that was ready.
        revisions: the rendered version of each pool, as `PoolObserved.revision`; None: every version counts.
        cluster: it runs on Kubernetes.

    Returns:
        A JSON-able status: endpoint, conditions, pools, replicas, ready. Every text fits the CRD.
    """
    generation = gaid.metadata.generation or 0
    # Once a generation was Ready, an operator that renders it anew rolls out in the background.
    was_ready = _was_ready(previous, generation)
    pools = []
    for p in placements:
        seen = observed.pools.get(p.pool, PoolObserved())
        current = revisions is None or seen.revision == revisions.get(p.pool)
        pools.append(pool_status(p, seen, current=current, was_ready=was_ready) | taken(gaid.tier(p.tier), seen))
    retiring = sorted(
        name for name, seen in observed.pools.items() if seen.serves and name not in {p.pool for p in placements}
    )
    conditions = [
        _accepted(gaid, cluster=cluster),
        _ready(observed, pools),
        _progressing(gaid, pools, retiring),
        _degraded(observed, pools),
        _scaling_active(pools),
        _slo_met(pools),
        _profile_fits(pools),
    ]
    document = {
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
        "components": dict(observed.components),
    }
    fitted: Status = bounded(document)
    return fitted


def _was_ready(previous: Status | None, generation: int) -> bool:
    return any(
        (c["type"], c["status"], c.get("observedGeneration")) == ("Ready", "True", generation)
        for c in (previous or {}).get("conditions", ())
    )


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
    others = [c for c in (previous or {}).get("conditions", ()) if c["type"] in _KEPT_CONDITIONS]
    document = {**(previous or {}), "observedGeneration": generation, "ready": "False"}
    fitted: Status = bounded(document | {"conditions": [*stamped, *others]})
    return fitted


def _slowest(pools: Sequence[Mapping[str, Any]]) -> str | None:
    """Observed p95 of the slowest pool with traffic, as a duration."""
    seen = [value for p in pools if (value := observed_p95(p)) is not None]
    return f"{max(seen) * 1e3:.0f}ms" if seen else None


def _connections(pools: Sequence[Mapping[str, Any]]) -> int | None:
    """Requests in flight and waiting now; None while the gateway says nothing."""
    known = [p["gateway"] for p in pools if p["gateway"]]
    return sum(int(g.get("in_flight") or 0) + int(g.get("queued") or 0) for g in known) if known else None


def pool_status(
    placement: Placement, seen: PoolObserved, *, current: bool = True, was_ready: bool = False
) -> dict[str, Any]:
    """One pool: desired, running and updated replicas, the policy's figures, predicted and observed p95, the reason.

    Args:
        placement: the pool as planned.
        seen: the pool as observed.
        current: the version that serves is the one rendered last.
        was_ready: this generation was ready before.
    """
    decision = _fresh_decision(seen)
    serving = _is_serving(placement, seen)
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
        "update": seen.update,
        "message": seen.message,
        "desired": seen.desired,
        "running": seen.running,
        "updated": _updated(seen, current=current),
        "ready": serving and (current or was_ready),
        "scaledToZero": is_scaled_to_zero(placement, seen),
        "decision": figures(decision, drop=_NOT_SHOWN) if decision else None,
        "gateway": figures(seen.gateway) if seen.gateway else None,
        "modelError": model_error(decision, seen.gateway or {}),
        **profile_status(placement, decision),
        "targetSeconds": placement.target_s,
        "percentile": placement.percentile,
    }


def _fresh_decision(seen: PoolObserved) -> Mapping[str, Any]:
    """The last decision, empty where it is too old to be the current one."""
    fresh = seen.decision_age_s is not None and seen.decision_age_s <= STALE_AFTER_S
    return seen.decision if seen.decision is not None and fresh else {}


def _is_unknown(seen: PoolObserved) -> bool:
    """Whether the policy has been silent for so long that its figures tell nothing."""
    return seen.decision is not None and (seen.decision_age_s is None or seen.decision_age_s > UNKNOWN_AFTER_S)


def _is_serving(placement: Placement, seen: PoolObserved) -> bool:
    """Whether the pool answers with its minimum of replicas, by Serve, by the policy and by the gateway's checks."""
    if seen.app != "RUNNING" or seen.running is None or seen.running < placement.min_replicas or _is_unknown(seen):
        return False
    return is_scaled_to_zero(placement, seen) or not _is_down(seen.gateway)


def _is_down(gateway: Mapping[str, Any] | None) -> bool:
    """Whether no gateway finds a server of the pool up; not known is not down."""
    return (gateway or {}).get("up") is False


def _updated(seen: PoolObserved, *, current: bool) -> int | None:
    """Replicas that serve the version rendered last."""
    if current:
        return seen.running
    if seen.running is None or seen.previous is None:
        return None
    return max(seen.running - seen.previous, 0)


def is_scaled_to_zero(placement: Placement, seen: PoolObserved) -> bool:
    """Whether a pool has no replica because its floor is 0 and it has no load; the next request starts one."""
    may_be_zero = placement.min_replicas == 0 < placement.max_replicas
    return may_be_zero and seen.app == "RUNNING" and seen.running == 0 and seen.desired == 0


def is_short(observed: Observed) -> bool:
    """Whether a pool has fewer replicas than it should or is not known, or the gateway is away: time to ask why."""
    return not all(observed.components.values()) or any(
        seen.app != "RUNNING"
        or seen.running is None
        or not _fresh_decision(seen)
        or (seen.desired or 0) > seen.running
        or (_is_down(seen.gateway) and seen.running > 0)
        for seen in observed.pools.values()
    )


def taken(tier: Tier, seen: PoolObserved) -> dict[str, float | None]:
    """What the replicas that serve take: watts as used, money and grams of CO2e an hour; None where not known."""
    decision = _fresh_decision(seen)
    rho = decision.get("rho")
    if seen.running is None or rho is None:
        return dict.fromkeys(_TAKEN)
    energy = energy_of(tier, seen.running, min(1.0, float(rho)), float(decision.get("lambda", 0.0)))
    values = (energy.watts, energy.cost_per_hour, energy.carbon_g_per_hour)
    return {name: round(value, 2) for name, value in zip(_TAKEN, values, strict=True)}


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


def _ready(observed: Observed, pools: Sequence[Mapping[str, Any]]) -> Condition:
    waiting = [p for p in pools if not p["ready"]]
    dead = sorted(name for name, alive in observed.components.items() if not alive)
    if dead:
        return Condition("Ready", "False", "ComponentsNotReady", f"not running: {', '.join(dead)}")
    if waiting:
        words = ", ".join(f"{p['pool']} ({_why_not_ready(p, observed)})" for p in waiting)
        return Condition("Ready", "False", "PoolsNotReady", f"{len(pools) - len(waiting)}/{len(pools)} ready: {words}")
    at_zero = [p["pool"] for p in pools if p["scaledToZero"]]
    serving = len(pools) - len(at_zero)
    if not serving:
        return Condition(
            "Ready", "True", "ScaledToZero", f"scaled to zero; a request to {observed.endpoint} starts a replica"
        )
    words = f"{serving} {'pool serves' if serving == 1 else 'pools serve'} at {observed.endpoint}"
    if at_zero:
        words += f"; scaled to zero: {', '.join(at_zero)}"
    return Condition("Ready", "True", "Serving", words)


def _why_not_ready(pool: Mapping[str, Any], observed: Observed) -> str:
    seen = observed.pools.get(pool["pool"], PoolObserved())
    if _is_unknown(seen):
        return f"no decision of the autoscaler for more than {UNKNOWN_AFTER_S:.0f} s"
    old = (seen.running or 0) - (pool["updated"] or 0)
    if pool["app"] == "RUNNING" and pool["updated"] != seen.running and old > 0:
        return f"{_replicas(pool['updated'] or 0, pool)} of this version, {old} of the version before"
    if pool["app"] == "RUNNING" and seen.running and _is_down(seen.gateway):
        return "the gateway's health checks fail"
    return f"{_replicas(seen.running, pool)} ready"


def _replicas(count: int | None, pool: Mapping[str, Any]) -> str:
    desired = max(pool["desired"] or 0, pool["minReplicas"] or 0)
    return f"{'?' if count is None else count}/{desired} replicas"


def _progressing(gaid: GenAIDeployment, pools: Sequence[Mapping[str, Any]], retiring: Sequence[str]) -> Condition:
    if gaid.spec.paused:
        return Condition("Progressing", "False", "Paused", "spec.paused is true: nothing is changed")
    updating = [
        p for p in pools if p["updated"] != p["running"] and p["update"] not in _FAILED and p["app"] not in _FAILED
    ]
    if updating or retiring:
        words = [f"rolling out: {_each(updating, 'updated')}"] if updating else []
        words += [f"serving until replaced: {', '.join(retiring)}"] if retiring else []
        return Condition("Progressing", "True", "RollingOut", "; ".join(words))
    unknown = [p["pool"] for p in pools if p["app"] is None and p["running"] is None]
    if unknown:
        return Condition("Progressing", "Unknown", "NotObserved", f"nothing is known of {', '.join(unknown)}")
    moving = [p for p in pools if p["app"] == "DEPLOYING" or (p["desired"] or 0) != (p["running"] or 0)]
    if moving:
        return Condition("Progressing", "True", "Scaling", f"scaling: {_each(moving, 'running')}")
    return Condition("Progressing", "False", "Settled", "all pools are at their desired replica count")


def _each(pools: Sequence[Mapping[str, Any]], field: str) -> str:
    word = "ready" if field == "running" else field
    return ", ".join(f"{p['pool']} ({_replicas(p[field], p)} {word})" for p in pools)


def _degraded(observed: Observed, pools: Sequence[Mapping[str, Any]]) -> Condition:
    words = [*observed.problems, *filter(None, map(_failure, pools))]
    if words:
        return Condition("Degraded", "True", "Problems", "; ".join(words)[:1000])
    return Condition("Degraded", "False", "AsExpected", "no problem is observed")


def _failure(pool: Mapping[str, Any]) -> str:
    """What is wrong with a pool: its replicas' own error first, empty where nothing is known to be wrong."""
    state = pool["update"] or pool["app"]
    error = cause(pool["message"])
    if state in _FAILED:
        return f"{pool['pool']}: {state}: {error or ' '.join(pool['message'].split()) or 'Ray Serve gives no reason'}"
    return f"{pool['pool']}: a replica does not start: {error}" if error and state != "RUNNING" else ""


def _scaling_active(pools: Sequence[Mapping[str, Any]]) -> Condition:
    without = [p["pool"] for p in pools if not p["decision"] or p["decision"].get("stale")]
    if without:
        words = f"no current decision for {', '.join(without)}: replica counts are held"
        return Condition("ScalingActive", "False", "MetricsMissing", words)
    return Condition("ScalingActive", "True", "Deciding", "every pool has a current decision")


def _slo_met(pools: Sequence[Mapping[str, Any]]) -> Condition:
    seen = {p["pool"]: observed_p95(p) for p in pools}
    measured = {pool: value for pool, value in seen.items() if value is not None}
    if not measured:
        return Condition("SLOMet", "Unknown", "NoTraffic", "no requests in the last minute")
    missed = [
        f"{p['pool']} {measured[p['pool']] * 1e3:.0f} ms of {p['targetSeconds'] * 1e3:.0f} ms"
        for p in pools
        if p["pool"] in measured and measured[p["pool"]] > p["targetSeconds"]
    ]
    if missed:
        return Condition("SLOMet", "False", "TargetMissed", f"over the target: {', '.join(missed)}")
    return Condition("SLOMet", "True", "WithinTarget", "every pool with traffic is within its target")


def _profile_fits(pools: Sequence[Mapping[str, Any]]) -> Condition:
    if all(p["profileError"] is None for p in pools):
        return Condition(
            "ProfileFits", "Unknown", "NotMeasured", "not enough completed requests to evaluate the profile"
        )
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
