"""What-if: a service's spec with another load, target or prices, planned by the planner of `tierserve plan` (pure)."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tierserve.api import Problem, ValidationFailed, parse
from tierserve.plan.capacity import Demand, Plan, PoolPlan, make_plan

Json = dict[str, Any]
MOST_CONNECTIONS = 1e12
_LONGEST_S = 86_400.0
_MOST_PRICE = 1e9
_FIELDS = frozenset({"namespace", "name", "connections", "thinkSeconds", "targetSeconds", "prices"})


def checked(body: Any) -> Json:
    """The request with numbers in range.

    Args:
        body: `namespace`, `name`; optionally `connections`, `thinkSeconds`, `targetSeconds` and `prices`, the price per
            accelerator and hour by tier.

    Raises:
        ValidationFailed: all fields that are wrong.
    """
    if not isinstance(body, Mapping):
        raise ValidationFailed([Problem("", "must be a JSON object", "send namespace, name and what changes")])
    problems = [Problem(str(f), "is not a field", f"use {', '.join(sorted(_FIELDS))}") for f in body.keys() - _FIELDS]
    missing = [name for name in ("namespace", "name") if not isinstance(body.get(name), str) or not body[name]]
    problems += [Problem(name, "is required", "send the namespace and the name of a service") for name in missing]
    problems += _out_of_range("connections", body.get("connections"), MOST_CONNECTIONS, zero=False)
    problems += _out_of_range("thinkSeconds", body.get("thinkSeconds"), _LONGEST_S, zero=True)
    problems += _out_of_range("targetSeconds", body.get("targetSeconds"), _LONGEST_S, zero=False)
    prices = body.get("prices") or {}
    if not isinstance(prices, Mapping):
        problems.append(Problem("prices", "must be an object", "send a price by the name of each tier"))
    else:
        for tier, price in prices.items():
            problems += _out_of_range(f"prices.{tier}", price, _MOST_PRICE, zero=True)
    if body.get("thinkSeconds") is not None and body.get("connections") is None:
        problems.append(Problem("thinkSeconds", "requires connections", "set connections, or leave thinkSeconds out"))
    if problems:
        raise ValidationFailed(problems)
    return dict(body)


def _out_of_range(field: str, value: Any, most: float, *, zero: bool) -> list[Problem]:
    """A problem unless the value is None or a number from 0 (if `zero`), else above it, to `most`."""
    if value is None:
        return []
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and math.isfinite(value) and (0 <= value <= most if zero else 0 < value <= most):
        return []
    least = "from 0" if zero else "above 0"
    hint = f"give a number {least}, at most {most:g}"
    return [Problem(field, f"must be a number {least}", hint, value if number else str(value)[:80])]


def answer(document: Mapping[str, Any], change: Mapping[str, Any], rate: float | None) -> Json:
    """Plan a changed service.

    Args:
        document: a GenAIDeployment.
        change: as `checked` returns it.
        rate: requests per second to plan for if the change has no connections.

    Raises:
        ValidationFailed: the changed spec is not valid or cannot be placed, or there is no load to plan for.
    """
    if change.get("connections") is None and rate is None:
        hint = "set connections; the arrival rate of the service is unknown"
        raise ValidationFailed([Problem("connections", "is required", hint)])
    gaid = parse(changed(document, change))
    if change.get("connections") is None:
        demand = Demand(rate=rate)
    else:
        demand = Demand(connections=change["connections"], think_s=change.get("thinkSeconds"))
    plan = make_plan(gaid, demand)
    objective = gaid.spec.objective.response_time
    tiers = [tier.name for tier in gaid.spec.tiers if any(p.placement.tier == tier.name for p in plan.pools)]
    return {
        "connections": _finite(plan.connections),
        "requestsPerSecond": plan.rate,
        "unservedRequestsPerSecond": plan.unserved_rate,
        "targetSeconds": objective.target.value,
        "percentile": objective.percentile,
        "responseSeconds": _finite(plan.response_s),
        "meets": plan.unserved_rate <= plan.rate * 1e-9 and all(pool.meets for pool in plan.pools),
        "servedUpToConnections": _finite(plan.served_up_to),
        "tiers": [_tier(name, [p for p in plan.pools if p.placement.tier == name], plan) for name in tiers],
        **_usage(plan.pools),
        "replicas": sum(pool.replicas for pool in plan.pools),
    }


def changed(document: Mapping[str, Any], change: Mapping[str, Any]) -> Json:
    """The resource with the target and the prices of a change; raises ValidationFailed for an unknown tier."""
    spec = copy.deepcopy(dict(document["spec"]))
    if change.get("targetSeconds") is not None:
        # A duration of the API has no exponent, which :g would write for small and large numbers.
        milliseconds = f"{change['targetSeconds'] * 1e3:.3f}".rstrip("0").rstrip(".")
        spec["objective"]["responseTime"]["target"] = f"{milliseconds}ms"
    tiers = {tier["name"]: tier for tier in spec["tiers"]}
    for name, price in (change.get("prices") or {}).items():
        if name not in tiers:
            hint = f"use one of {', '.join(tiers)}"
            raise ValidationFailed([Problem(f"prices.{name}", "must name a tier of the service", hint)])
        if price is not None:
            tiers[name]["price"] = price
    metadata = {"name": document["metadata"]["name"]}
    return {"apiVersion": document["apiVersion"], "kind": document["kind"], "metadata": metadata, "spec": spec}


def _tier(name: str, pools: Sequence[PoolPlan], plan: Plan) -> Json:
    serving = [pool for pool in pools if pool.rate > 0]
    return {
        "tier": name,
        "model": pools[0].placement.model,
        "sites": len(pools),
        "replicas": sum(pool.replicas for pool in pools),
        "requestsPerSecond": sum(pool.rate for pool in pools),
        "utilisation": max((pool.utilisation for pool in pools), default=0.0),
        "responseSeconds": _finite(max((pool.response_s for pool in serving), default=math.inf)),
        "meets": all(pool.meets for pool in pools),
        "binds": sorted({pool.binds for pool in pools}),
        "exhaustedAtConnections": _finite(plan.exhausted_at.get(name)),
        **_usage(pools),
    }


def _usage(pools: Sequence[PoolPlan]) -> Json:
    return {
        "costPerHour": sum(pool.energy.cost_per_hour for pool in pools),
        "watts": sum(pool.energy.watts for pool in pools),
        "carbonGramsPerHour": sum(pool.energy.carbon_g_per_hour for pool in pools),
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
