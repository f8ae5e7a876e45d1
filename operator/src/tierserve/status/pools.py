"""One status entry per pool: replicas, current decision, gateway figures, resource usage (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tierserve.api.v1alpha1.tiers import Tier
from tierserve.plan.energy import energy_of
from tierserve.plan.placement import Placement
from tierserve.state import Observed, PoolObserved
from tierserve.status.profile import profile_status
from tierserve.status.text import figures

STALE_AFTER_S = 15.0
"""Age from which a decision, made every half second, is not shown any more and is not taken for a current one."""
UNKNOWN_AFTER_S = 60.0
"""Age from which a pool is not Ready either: a Serve controller that is restarted takes up to half a minute, in which
replicas serve on, and after that nobody knows whether they do."""
RESOURCES = ("watts", "costPerHour", "carbonGramsPerHour")
_NOT_SHOWN = frozenset({"t", "gateways", "pool"})
"""Of a decision: its time changes though nothing happens, and each gateway's requests are for the gateways' agents."""


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


def is_unknown(seen: PoolObserved) -> bool:
    """Whether the policy has been silent for so long that its figures tell nothing."""
    return seen.decision is not None and (seen.decision_age_s is None or seen.decision_age_s > UNKNOWN_AFTER_S)


def _is_serving(placement: Placement, seen: PoolObserved) -> bool:
    """Whether the pool answers with its minimum of replicas, by Serve, by the policy and by the gateway's checks."""
    if seen.app != "RUNNING" or seen.running is None or seen.running < placement.min_replicas or is_unknown(seen):
        return False
    return is_scaled_to_zero(placement, seen) or not is_down(seen.gateway)


def is_down(gateway: Mapping[str, Any] | None) -> bool:
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
        or (is_down(seen.gateway) and seen.running > 0)
        for seen in observed.pools.values()
    )


def resource_usage(tier: Tier, seen: PoolObserved) -> dict[str, float | None]:
    """What the replicas that serve take: watts as used, money and grams of CO2e an hour; None where not known."""
    decision = _fresh_decision(seen)
    rho = decision.get("rho")
    if seen.running is None or rho is None:
        return dict.fromkeys(RESOURCES)
    energy = energy_of(tier, seen.running, min(1.0, float(rho)), float(decision.get("lambda", 0.0)))
    values = (energy.watts, energy.cost_per_hour, energy.carbon_g_per_hour)
    return {name: round(value, 2) for name, value in zip(RESOURCES, values, strict=True)}


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
