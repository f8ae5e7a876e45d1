"""Plans as JSON: camelCase, base units in the names; what is infinite or unknown is null."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tierserve.api import GenAIDeployment
from tierserve.plan.allocation.baseline import Beside, InOrder
from tierserve.plan.allocation.types import Allocation, Infeasible, PoolShare
from tierserve.plan.capacity import Demand, Plan, PoolPlan, refused_from
from tierserve.plan.paper import PaperTier, criteria_of
from tierserve.plan.placement import Placement, PlacementError
from tierserve.plan.sweep import Sweep, TierCurve

if TYPE_CHECKING:  # they bring more of scipy
    from tierserve.cli.plan.confirm import Simulated
    from tierserve.plan.trace.replay import ReplayResult, Steady
    from tierserve.plan.trace.search import Seen
    from tierserve.simulate.types import Workload

Json = dict[str, object]


def of_plan(gaid: GenAIDeployment, plan: Plan) -> Json:
    """Return the whole plan."""
    each = plan.rate / plan.connections if plan.connections else 1.0
    target = gaid.spec.objective.response_time
    return {
        "service": gaid.name,
        "connections": plan.connections,
        "requestsPerSecond": plan.rate,
        "thinkSeconds": plan.think_s,
        "objective": {"percentile": target.percentile, "targetSeconds": target.target.value},
        "pools": [_pool(gaid, one, each) for one in plan.pools],
        "unservedRequestsPerSecond": plan.unserved_rate,
        "exhaustedAtConnections": dict(plan.exhausted_at),
        "servedUpToConnections": plan.served_up_to,
        "classesRefusedFromConnections": refused_from(gaid, plan.exhausted_at),
    }


def of_best(gaid: GenAIDeployment, demand: Demand, best: Allocation, other: Beside) -> Json:
    """Return the best allocation, and what the order of the file comes to."""
    missed = 1.0 - gaid.spec.objective.response_time.percentile / 100.0
    return {
        **_asked(gaid, demand, best.rate),
        "feasible": True,
        "value": best.value,
        "costPerHour": best.cost_per_hour,
        "watts": best.watts,
        "carbonGramsPerHour": best.carbon_g_per_hour,
        "meanResponseSeconds": best.mean_response_s,
        "quality": best.quality,
        "binding": list(best.binding),
        "gap": best.gap,
        "lateShareAllowed": missed,
        "pools": [_share(best, one) for one in best.pools],
        "fileOrder": _order(other.order),
        "steps": list(other.steps),
        "fileOrderAfterSteps": _order(other.turned),
    }


def of_infeasible(gaid: GenAIDeployment, demand: Demand, told: Infeasible) -> Json:
    """Return why there is no plan, and the smallest change that makes one possible."""
    return {
        **_asked(gaid, demand, told.rate),
        "feasible": False,
        "reason": told.reason,
        "changes": [
            {
                "path": one.path,
                "before": one.before,
                "after": one.after,
                "relative": one.relative,
                "message": one.message,
            }
            for one in told.changes
        ],
    }


def of_trace(
    gaid: GenAIDeployment,
    work: Workload,
    copies: int,
    pools: Sequence[ReplayResult],
    by: Sequence[Simulated],
    *,
    feasible: bool,
) -> Json:
    """Return what a trace needs of each pool, each asked alone for all of it; `by` is empty if none was simulated."""
    from tierserve.plan.trace.replay import ERROR

    target = gaid.spec.objective.response_time
    found = [_confirmed(one) for one in by] or [None] * len(pools)
    return {
        "service": gaid.name,
        "trace": work.name,
        "copies": copies,
        "requests": len(work),
        "seconds": work.length_s,
        "requestsPerSecond": len(work) / work.length_s,
        "objective": {"percentile": target.percentile, "targetSeconds": target.target.value},
        "eachPoolAlone": True,
        "relativeErrorOfP95": ERROR,
        "feasible": feasible,
        "pools": [{**_replayed(one), "confirmed": each} for one, each in zip(pools, found, strict=True)],
    }


def of_pooled(gaid: GenAIDeployment, tiers: Sequence[PaperTier]) -> Json:
    """Return the paper's form."""
    return {"service": gaid.name, "form": "pooled", "tiers": [_paper(one) for one in tiers]}


def of_sweep(gaid: GenAIDeployment, sweep: Sweep, picture: str | None) -> Json:
    """Return the curves of a sweep and the path of its picture, None where it could not be written."""
    return {
        "service": gaid.name,
        "picture": picture,
        "connections": list(sweep.connections),
        "targetSeconds": sweep.target_s,
        "percentile": sweep.percentile,
        "tiers": [_curve(one) for one in sweep.tiers],
        "unservedShare": list(sweep.unserved),
        "exhaustedAtConnections": dict(sweep.limits.exhausted_at),
        "servedUpToConnections": sweep.limits.served_up_to,
        "classesRefusedFromConnections": refused_from(gaid, sweep.limits.exhausted_at),
    }


def _pool(gaid: GenAIDeployment, one: PoolPlan, per_connection: float) -> Json:
    energy = one.energy
    return {
        **_placement(one.placement),
        "requestsPerSecond": one.rate,
        "mostRequestsPerSecond": one.capacity,
        "replicas": one.replicas,
        "servers": one.servers,
        "offeredLoad": one.offered_load,
        "utilisation": one.utilisation,
        "pWait": one.p_wait,
        "uplinkSeconds": one.placement.uplink_s,
        "waitSeconds": finite(one.wait_s),
        "inferenceSeconds": finite(one.inference_s),
        "downlinkSeconds": one.placement.downlink_s,
        "responseSeconds": finite(one.response_s),
        "meanResponseSeconds": finite(one.mean_response_s),
        "replicasForLongPrompts": one.for_long_prompts,
        "meetsTarget": one.meets,
        "binds": one.binds,
        "watts": energy.watts,
        "idleWatts": energy.idle_watts,
        "costPerHour": energy.cost_per_hour,
        "carbonGramsPerHour": energy.carbon_g_per_hour,
        "embodiedGramsPerHour": energy.embodied_g_per_hour,
        "joulesPerRequest": energy.joules_per_request,
        "joulesPerToken": energy.joules_per_token,
        "carbonGramsPerRequest": energy.carbon_g_per_request,
        "costPerRequest": energy.cost_per_request,
        "criteria": [
            {"name": c.name, "connections": finite(c.connections), "message": c.message}
            for c in criteria_of(gaid, one.placement, per_connection)
        ],
    }


def _asked(gaid: GenAIDeployment, demand: Demand, rate: float) -> Json:
    objective = gaid.spec.objective
    target = objective.response_time
    return {
        "service": gaid.name,
        "connections": demand.connections,
        "requestsPerSecond": rate,
        "thinkSeconds": demand.think_s,
        "objective": {
            "percentile": target.percentile,
            "targetSeconds": target.target.value,
            "optimize": objective.optimize.by,
        },
    }


def _share(best: Allocation, one: PoolShare) -> Json:
    return {
        **_placement(one.placement),
        "replicas": one.replicas,
        "requestsPerSecond": one.rate,
        "classes": {
            name: {"requestsPerSecond": rate, "share": best.shares(name).get(one.placement.pool, 0.0)}
            for name, rate in one.rates.items()
        },
        "overflowRequestsPerSecond": one.overflow,
        "peakedness": one.peakedness,
        "work": one.work,
        "capacity": one.capacity,
        "meanResponseSeconds": finite(one.mean_response_s),
        "lateShare": one.late,
        "binds": one.binds,
        "watts": one.energy.watts,
        "costPerHour": one.energy.cost_per_hour,
        "carbonGramsPerHour": one.energy.carbon_g_per_hour,
    }


def _replayed(one: ReplayResult) -> Json:
    return {
        **_placement(one.placement),
        "neededReplicas": one.needed,
        "neededReplicasWithMargin": one.needed_with_margin,
        "replicas": one.replicas,
        "meetsTarget": one.meets,
        "responseSeconds": finite(one.response_s),
        "meanResponseSeconds": finite(one.mean_response_s),
        "withinShare": one.within,
        "lateShare": one.late,
        "lateAloneShare": one.late_alone,
        "utilisation": one.utilisation,
        "utilisationBusiestMinute": one.utilisation_busiest,
        "planAtMeanRate": _steady(one.mean),
        "planAtBusiestTenMinutes": _steady(one.busiest),
    }


def _confirmed(by: Simulated) -> Json | None:
    found = by.found
    return {
        "neededReplicas": found.needed,
        "replicas": found.replicas,
        "meetsTarget": found.seen.meets,
        **_seen(found.seen),
        "atNeeded": None if found.needed is None else _seen(found.at),
        "atOneFewer": None if found.fewer is None else _seen(found.fewer),
        "simulations": found.runs,
        "simulationSeconds": by.seconds,
    }


def _seen(one: Seen) -> Json:
    return {"responseSeconds": finite(one.response_s), "withinShare": one.within, "lateShare": 1.0 - one.within}


def _steady(one: Steady) -> Json:
    return {"requestsPerSecond": one.rate, "replicas": one.replicas, "withinShare": one.within}


def _order(order: InOrder | PlacementError) -> Json:
    if isinstance(order, PlacementError):
        return {
            "keepsAll": False,
            "problems": [{"path": one.path, "message": one.message, "hint": one.hint} for one in order.problems],
        }
    return {
        "keepsAll": order.keeps,
        "value": finite(order.value),
        "costPerHour": order.cost_per_hour,
        "watts": order.watts,
        "carbonGramsPerHour": order.carbon_g_per_hour,
        "meanResponseSeconds": finite(order.mean_response_s),
        "quality": order.quality,
        "requestsPerSecond": order.rate,
        "unservedRequestsPerSecond": order.unserved_rate,
        "poolsThatMissTheTarget": list(order.late),
        "capsBroken": list(order.over),
        "models": dict(order.models),
    }


def _placement(one: Placement) -> Json:
    return {
        "pool": one.pool,
        "tier": one.tier,
        "site": one.site,
        "kind": one.kind,
        "model": one.model,
        "engine": one.engine,
        "slots": one.slots,
        "slotsBoundBy": one.bound,
        "slotBounds": one.bounds,
        "profile": {"alpha": one.profile.alpha, "beta": one.profile.beta, "gamma": one.profile.gamma},
        "profileMeasured": one.measured,
        "minReplicas": one.min_replicas,
        "maxReplicas": one.max_replicas,
    }


def _paper(one: PaperTier) -> Json:
    return {
        "tier": one.tier,
        "servers": one.servers,
        "serversPackedPerAccelerator": one.servers_packed,
        "requestsPerSecond": one.rate,
        "serviceRate": one.service_rate,
        "offeredLoad": one.offered_load,
        "utilisation": finite(one.utilisation),
        "log10PWait": finite(one.log10_p_wait),
        "responseSeconds": finite(one.response_s),
    }


def _curve(one: TierCurve) -> Json:
    return {
        "tier": one.tier,
        "responseSeconds": _all(one.response_s),
        "replicas": list(one.replicas),
        "utilisation": _all(one.utilisation),
        "requestsPerSecond": list(one.rate),
    }


def _all(values: Iterable[float]) -> list[float | None]:
    return [finite(value) for value in values]


def finite(value: float) -> float | None:
    """Return the value, or None for what JSON has no number for."""
    return value if math.isfinite(value) else None
