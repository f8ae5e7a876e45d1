"""Figures of a service and of the fleet for the page (pure); what a status does not have stays None.

Status documents come from operators of other versions too, so every field is read as one that may be missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tierserve.console.sources import Service

Json = dict[str, Any]
_USAGE = ("costPerHour", "carbonGramsPerHour", "watts")


@dataclass(frozen=True, slots=True)
class TierNow:
    """A tier now, over all of its sites.

    Attributes:
        p95_s: of the slowest site with traffic, measured at the gateway.
        target_s: the target less the network time of the tier.
        arrivals_per_s: sum of the sites that report it.
        running, desired: replicas of the sites that report them.
    """

    name: str
    p95_s: float | None
    target_s: float | None
    arrivals_per_s: float | None
    running: int | None
    desired: int | None


def tiers_of(service: Service) -> list[TierNow]:
    """The tiers of a service in the order of its status."""
    by_tier: dict[str, list[Mapping[str, Any]]] = {}
    for pool in pools_of(service):
        by_tier.setdefault(str(pool.get("tier") or pool.get("pool")), []).append(pool)
    return [_tier(name, pools) for name, pools in by_tier.items()]


def pools_of(service: Service) -> Sequence[Mapping[str, Any]]:
    """The pools in the status."""
    return service.status.get("pools") or ()


def arrivals_of(pool: Mapping[str, Any]) -> float | None:
    """Arrivals per second of a pool: of its last decision, else requests per second of the gateway's window."""
    decision, gateway = pool.get("decision") or {}, pool.get("gateway") or {}
    rate = decision.get("lambda", gateway.get("rate"))
    return None if rate is None else float(rate)


def _tier(name: str, pools: Sequence[Mapping[str, Any]]) -> TierNow:
    return TierNow(
        name,
        p95_s=_over(max, ((pool.get("gateway") or {}).get("p95_s") for pool in pools)),
        target_s=_over(min, (pool.get("targetSeconds") for pool in pools)),
        arrivals_per_s=_over(sum, (arrivals_of(pool) for pool in pools)),
        running=_over(sum, (pool.get("running") for pool in pools)),
        desired=_over(sum, (pool.get("desired") for pool in pools)),
    )


def _over(combine: Callable[[list[Any]], Any], values: Iterable[Any]) -> Any:
    """The values that are there, combined; None if there are none."""
    present = [value for value in values if value is not None]
    return combine(present) if present else None


def row(service: Service) -> Json:
    """One line of the list."""
    status, tiers, pools = service.status, tiers_of(service), pools_of(service)
    conditions = {c.get("type"): c for c in status.get("conditions") or ()}
    ready, slo = conditions.get("Ready") or {}, conditions.get("SLOMet") or {}
    return {
        "namespace": service.namespace,
        "name": service.name,
        "ready": status.get("ready") or ready.get("status") or "Unknown",
        "reason": ready.get("reason") or "",
        "message": ready.get("message") or "",
        "sloMet": slo.get("status") or "Unknown",
        "pools": len(pools),
        "poolsReady": sum(1 for pool in pools if pool.get("ready")),
        "running": _over(sum, (tier.running for tier in tiers)),
        "desired": _over(sum, (tier.desired for tier in tiers)),
        "arrivalsPerSecond": _over(sum, (tier.arrivals_per_s for tier in tiers)),
        "connections": status.get("connections"),
        "p95Seconds": _over(max, (tier.p95_s for tier in tiers)),
        "targetSeconds": service.target_s,
        "percentile": service.percentile,
        **{name: status.get(name) for name in _USAGE},
        "problems": list(service.problems),
    }


def fleet(rows: Sequence[Json]) -> Json:
    """Totals over all services. A total of a figure that not all services report has the number that do beside it."""
    totals: Json = {
        "services": len(rows),
        "ready": sum(1 for one in rows if one["ready"] == "True"),
        "running": _over(sum, (one["running"] for one in rows)),
        "desired": _over(sum, (one["desired"] for one in rows)),
    }
    for name in ("arrivalsPerSecond", *_USAGE):
        values = [one[name] for one in rows if one[name] is not None]
        totals[name] = round(sum(values), 3) if values else None
        totals[f"{name}Services"] = len(values)
    return totals


def detail(service: Service) -> Json:
    """A service as the page of one shows it, without its history."""
    return {
        **row(service),
        "endpoint": service.status.get("endpoint"),
        "ageSeconds": service.age_s,
        "conditions": list(service.status.get("conditions") or ()),
        "components": dict(service.status.get("components") or {}),
        "tiers": [asdict(tier) for tier in tiers_of(service)],
        "poolStatus": [dict(pool) for pool in pools_of(service)],
    }
