"""One status entry per pool: replicas, current decision, gateway figures, resource usage (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tierserve.api.v1alpha1.tiers import Tier
from tierserve.plan.energy import energy_of
from tierserve.plan.placement import Placement
from tierserve.state import Intensity, Observed, PoolObserved
from tierserve.status.profile import profile_status
from tierserve.status.text import figures

STALE_AFTER_S = 15.0
"""Age from which a decision (one is made every half second) is no longer current and no longer shown."""
UNKNOWN_AFTER_S = 60.0
"""Age from which a pool is not Ready either: a restarted Serve controller takes up to half a minute, in which replicas
continue to serve; after that their state is unknown."""
_DEPLOYING = frozenset({"NOT_STARTED", "DEPLOYING", "DEPLOY_FAILED"})
_DOWNLOAD_DIGITS = 3
RESOURCES = ("watts", "idleWatts", "costPerHour", "carbonGramsPerHour", "embodiedGramsPerHour")
"""Of a pool, and summed over all pools."""
_PER_REQUEST = ("joulesPerRequest", "joulesPerToken", "carbonGramsPerRequest", "costPerRequest")
_NOT_SHOWN = frozenset({"t", "gateways", "pool", "download"})
"""Fields of a decision that the status omits: its time always changes, and each gateway's share is for its agent."""


def pool_status(
    placement: Placement, observed: PoolObserved, *, current: bool = True, was_ready: bool = False
) -> dict[str, Any]:
    """Status entry of a pool: desired, running and updated replicas, decision, gateway figures, predicted and observed
    p95.

    Args:
        placement: the pool as planned.
        observed: its observed state.
        current: the revision that serves is the one rendered last.
        was_ready: this generation was ready before.
    """
    decision = _fresh_decision(observed)
    serving = _is_serving(placement, observed)
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
        "app": observed.app,
        "update": observed.update,
        "message": observed.message,
        "desired": observed.desired,
        "running": observed.running,
        "updated": _updated(observed, current=current),
        "ready": serving and (current or was_ready),
        "scaledToZero": is_scaled_to_zero(placement, observed),
        "download": _download(decision),
        "decision": figures(decision, drop=_NOT_SHOWN) if decision else None,
        "gateway": figures(observed.gateway) if observed.gateway else None,
        "modelError": model_error(decision, observed.gateway or {}),
        **profile_status(placement, decision),
        "targetSeconds": placement.target_s,
        "percentile": placement.percentile,
    }


def _download(decision: Mapping[str, Any]) -> dict[str, int] | None:
    """The download that the replicas of a pool report with its decision; rounded, as each change is a write."""
    download = decision.get("download")
    if not download:
        return None
    step = max(10 ** (len(str(download["total_bytes"])) - _DOWNLOAD_DIGITS), 1)
    return {
        "doneBytes": download["done_bytes"] // step * step,
        "totalBytes": download["total_bytes"],
        "nodes": download["nodes"],
    }


def download_text(pools: Sequence[Mapping[str, Any]]) -> str | None:
    """All downloads of a service, e.g. `3.1 of 15 GB on 2 nodes`; None if there is none."""
    downloads = [p["download"] for p in pools if p["download"]]
    if not downloads:
        return None
    done, total, nodes = (sum(one[name] for one in downloads) for name in ("doneBytes", "totalBytes", "nodes"))
    unit, name = (1e9, "GB") if total >= 1e9 else (1e6, "MB")
    return f"{_two_digits(done / unit)} of {_two_digits(total / unit)} {name} on {nodes} node{'s' * (nodes > 1)}"


def _two_digits(value: float) -> str:
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def _fresh_decision(observed: PoolObserved) -> Mapping[str, Any]:
    """The last decision, empty if it is stale."""
    fresh = observed.decision_age_s is not None and observed.decision_age_s <= STALE_AFTER_S
    return observed.decision if observed.decision is not None and fresh else {}


def is_unknown(observed: PoolObserved) -> bool:
    """Whether the last decision is so old that the state of the pool is unknown."""
    return observed.decision is not None and (
        observed.decision_age_s is None or observed.decision_age_s > UNKNOWN_AFTER_S
    )


def _is_serving(placement: Placement, observed: PoolObserved) -> bool:
    """Whether the pool serves with at least its minimum of replicas, and the gateway's health checks pass."""
    if (
        observed.app != "RUNNING"
        or observed.running is None
        or observed.running < placement.min_replicas
        or is_unknown(observed)
    ):
        return False
    return is_scaled_to_zero(placement, observed) or not is_down(observed.gateway)


def is_down(gateway: Mapping[str, Any] | None) -> bool:
    """Whether the health checks of every gateway fail; unknown is not down."""
    return (gateway or {}).get("up") is False


def _updated(observed: PoolObserved, *, current: bool) -> int | None:
    """Running replicas of the revision rendered last; None while it is unknown of which revision they are."""
    if not observed.running:
        return observed.running
    if observed.previous is not None:
        return max(observed.running - observed.previous, 0)
    if current:
        # Until Serve has deployed a revision, replicas of the one before may still run, as they do if it fails.
        return None if observed.app in _DEPLOYING else observed.running
    return None if observed.revision is None else 0


def is_scaled_to_zero(placement: Placement, observed: PoolObserved) -> bool:
    """Whether a pool has no replica because its minimum is 0 and it has no load; the next request starts one."""
    may_be_zero = placement.min_replicas == 0 < placement.max_replicas
    return may_be_zero and observed.app == "RUNNING" and observed.running == 0 and observed.desired == 0


def lacks_replicas(state: Observed) -> bool:
    """Whether pools lack replicas, their state is unknown, or a component is down: then causes are looked up."""
    return not all(state.components.values()) or any(
        pool.app != "RUNNING"
        or pool.running is None
        or not _fresh_decision(pool)
        or (pool.desired or 0) > pool.running
        or (is_down(pool.gateway) and pool.running > 0)
        for pool in state.pools.values()
    )


def resource_usage(
    placement: Placement, tier: Tier, observed: PoolObserved, intensity: Intensity | None = None
) -> dict[str, Any]:
    """Power, cost and emissions of the running replicas at this load, per hour and per request; None if unknown.

    Args:
        placement: the pool.
        tier: its tier.
        observed: its observed state.
        intensity: carbon intensity now; None: that of the tier.
    """
    decision, carbon = _fresh_decision(observed), intensity or Intensity(tier.carbon_g_per_kwh, "constant")
    source = {"carbonIntensity": round(carbon.value, 2), "carbonIntensitySource": carbon.source}
    rho = decision.get("rho")
    if observed.running is None or rho is None:
        return dict.fromkeys((*RESOURCES, *_PER_REQUEST)) | source
    energy = energy_of(
        tier,
        observed.running,
        utilisation=min(1.0, float(rho)),
        rate=float(decision.get("lambda", 0.0)),
        slots=placement.slots,
        output_tokens=placement.output_tokens,
        g_per_kwh=carbon.value,
    )
    hourly = (
        energy.watts, energy.idle_watts, energy.cost_per_hour, energy.carbon_g_per_hour, energy.embodied_g_per_hour
    )  # fmt: skip
    each = (energy.joules_per_request, energy.joules_per_token, energy.carbon_g_per_request, energy.cost_per_request)
    return {
        **{name: None if value is None else round(value, 2) for name, value in zip(RESOURCES, hourly, strict=True)},
        **{n: None if value is None else float(f"{value:.4g}") for n, value in zip(_PER_REQUEST, each, strict=True)},
        **source,
    }


def observed_p95(pool: Mapping[str, Any]) -> float | None:
    """Observed p95 response time of the last window in seconds, None without traffic."""
    value = (pool.get("gateway") or {}).get("p95_s")
    return float(value) if value is not None else None


def model_error(decision: Mapping[str, Any], gateway: Mapping[str, Any]) -> float | None:
    """Relative error of the predicted p95; None without traffic, or if another percentile is predicted."""
    predicted, measured = decision.get("predicted_p95_s"), gateway.get("p95_s")
    if not predicted or not measured or decision.get("percentile", 95.0) != 95.0:
        return None
    return round(float(predicted) / float(measured) - 1.0, 3)
