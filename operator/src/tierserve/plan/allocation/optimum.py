"""The best plan for one demand: solve, add what overflows between pools as bursts, solve again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tierserve.api.v1alpha1.deployment import GenAIDeployment
from tierserve.api.v1alpha1.tiers import Tier
from tierserve.plan.allocation.candidates import Group, Option, groups_of
from tierserve.plan.allocation.overflow import split, wilkinson
from tierserve.plan.allocation.program import Chosen, Overflow, caps_of, mean_work
from tierserve.plan.allocation.solver import Solution, solve
from tierserve.plan.allocation.types import CAP_NAMES, Allocation, PoolShare
from tierserve.plan.energy import energy_of
from tierserve.queueing.batching.birth_death import loss_queue
from tierserve.queueing.batching.response import batch_response

_FULL = 1.0 - 1e-6
_LEAST_FLOW = 1e-9


def find(
    gaid: GenAIDeployment, rate: float, *, bursty: bool = True, groups: Sequence[Group] | None = None
) -> Allocation | None:
    """Return the best plan, or None where there is none. Arguments as of `best_allocation`."""
    groups = groups_of(gaid) if groups is None else groups
    solution, overflow = solve(gaid, groups, rate), Overflow()
    if solution is not None and bursty:
        overflow = overflow_of(gaid, groups, solution)
        if overflow.parts:
            solution = solve(gaid, groups, rate, overflow, solution)
    return None if solution is None else _allocation(gaid, groups, rate, solution, overflow)


def overflow_of(gaid: GenAIDeployment, groups: Sequence[Group], solution: Solution) -> Overflow:
    """Return what is blocked at each pool of a plan, where it goes, and how bursty it makes the arrivals there."""
    parts: dict[int, list[tuple[int, str, float]]] = {}
    streams: dict[int, list[tuple[float, float]]] = {}
    for chosen in solution.chosen:
        option = groups[chosen.group].options[chosen.option]
        blocked, z = _blocked(option, chosen)
        for name, rate in chosen.rates.items():
            takers = _next(gaid, groups, solution, chosen, name)
            if blocked * rate <= _LEAST_FLOW:
                continue
            sites = sum(len(taker.replicas) for taker in takers)
            for taker in takers:
                share = len(taker.replicas) / sites
                parts.setdefault(taker.group, []).append((chosen.group, name, blocked * share))
                streams.setdefault(taker.group, []).append((blocked * rate * share, split(z, 1.0 / sites)))
    peaks: dict[int, float] = {}
    for g, some in streams.items():
        fresh = sum(sum(one.rates.values()) for one in solution.chosen if one.group == g)
        peak = (fresh + sum(m * z for m, z in some)) / (fresh + sum(m for m, _ in some))
        peaks[g] = math.ceil(peak * 100.0) / 100.0  # a little up, so that derated curves are found again
    return Overflow({g: tuple(some) for g, some in parts.items()}, peaks)


def _blocked(option: Option, chosen: Chosen) -> tuple[float, float]:
    """Part of the arrivals that find all slots of their pool taken, and the peakedness of these (means over sites)."""
    work, most = mean_work(option, chosen.rates), sum(chosen.room)
    lost = peaked = 0.0
    for replicas, room in sorted(set(zip(chosen.replicas, chosen.room, strict=True))):
        rate = work * room / most
        if rate <= 0.0:
            continue
        count = sum(1 for pair in zip(chosen.replicas, chosen.room, strict=True) if pair == (replicas, room))
        queue = loss_queue(rate, replicas, option.rates, 0)
        offered = rate * queue.mean_service
        z = wilkinson(offered, replicas * option.placement.slots, offered * queue.p_loss)
        lost += count * rate * queue.p_loss
        peaked += count * rate * queue.p_loss * z
    return (lost / work, peaked / lost) if lost > 0.0 else (0.0, 1.0)


def _next(
    gaid: GenAIDeployment, groups: Sequence[Group], solution: Solution, chosen: Chosen, name: str
) -> list[Chosen]:
    """The pools that a blocked request of a class goes to: those in use on the next tier in the order that has any."""
    traffic = next(one for one in gaid.spec.traffic if one.name == name)
    order = [tier.name for tier in gaid.tiers_for(traffic)]
    for tier in order[order.index(groups[chosen.group].tier.name) + 1 :]:
        takers = [
            one
            for one in solution.chosen
            if groups[one.group].tier.name == tier and name in groups[one.group].options[one.option].uses
        ]
        if takers:
            return takers
    return []


def _allocation(
    gaid: GenAIDeployment, groups: Sequence[Group], rate: float, solution: Solution, overflow: Overflow
) -> Allocation:
    shrink = gaid.spec.objective.optimize.by != "latency"
    free = {g: list(group.sites) for g, group in enumerate(groups)}
    pools: list[PoolShare] = []
    for chosen in solution.chosen:
        z = overflow.peakedness.get(chosen.group, 1.0)
        pools += _pools(groups[chosen.group], chosen, free[chosen.group], z, shrink=shrink)
    order = {name: at for at, name in enumerate(name for tier in gaid.spec.tiers for name in tier.pools)}
    pools.sort(key=lambda one: order[one.placement.pool])
    return summed(gaid, rate, pools, solution.gap)


def summed(gaid: GenAIDeployment, rate: float, pools: Sequence[PoolShare], gap: float) -> Allocation:
    """Return the allocation that `pools` make up, with its totals; the rates of the pools sum to `rate`."""
    kind = gaid.spec.objective.optimize.by
    used = {
        "cost": sum(one.energy.cost_per_hour for one in pools),
        "energy": sum(one.energy.watts for one in pools),
        "carbon": sum(one.energy.carbon_g_per_hour for one in pools),
    }
    served = sum(one.rate for one in pools) or 1.0
    quality = {one.name: one.quality or 0.0 for one in gaid.spec.models}
    latency = sum(one.rate * one.mean_response_s for one in pools) / served
    return Allocation(
        rate=rate,
        objective=kind,
        value={**used, "latency": latency}[kind],
        pools=tuple(pools),
        cost_per_hour=used["cost"],
        watts=used["energy"],
        carbon_g_per_hour=used["carbon"],
        mean_response_s=latency,
        quality=sum(one.rate * quality[one.placement.model] for one in pools) / served,
        binding=_binding(gaid, pools, used),
        gap=gap,
    )


def _pools(group: Group, chosen: Chosen, free: list[str], z: float, *, shrink: bool) -> list[PoolShare]:
    """The pools of an option; each site gets as much as it can take, and is left no replica that it does not need."""
    option, most, out = group.options[chosen.option], sum(chosen.room), []
    overflow_work, own = chosen.overflow, mean_work(option, chosen.rates)
    for replicas, room in zip(chosen.replicas, chosen.room, strict=True):
        part = room / most if most > 0.0 else 1.0 / len(chosen.replicas)
        work = (own + overflow_work) * part
        needed = option.replicas_for(work, z, replicas) if shrink or own <= 0.0 else replicas
        site = free.pop(0)
        if needed > 0:
            rates = {name: rate * part for name, rate in chosen.rates.items()}
            out.append(
                pool_share(group.tier, option, site, replicas=needed, rates=rates, overflow=overflow_work * part, z=z)
            )
    return out


def pool_share(
    tier: Tier, option: Option, site: str, *, replicas: int, rates: Mapping[str, float], overflow: float, z: float
) -> PoolShare:
    """Return what `replicas` replicas of an option do on a site with these rates, overflow and peakedness z."""
    placement = replace(option.placement, site=site)
    work = mean_work(option, rates) + overflow
    response = batch_response(work, replicas, option.work)
    total = sum(rates.values())
    network = sum(option.uses[name].network_s * rate for name, rate in rates.items()) / total if total > 0 else 0.0
    utilisation = min(1.0, work / (replicas * placement.rate))
    return PoolShare(
        placement=placement,
        replicas=replicas,
        rates=rates,
        overflow=overflow,
        peakedness=z,
        capacity=option.room(replicas, z),
        work=work,
        mean_response_s=network + response.mean_response,
        late=response.wait_survival(option.budget_s),
        binds=_binds(option, replicas, work, z),
        energy=energy_of(
            tier,
            replicas,
            utilisation=utilisation,
            rate=total,
            slots=placement.slots,
            output_tokens=placement.output_tokens,
        ),
        option=option,
    )


def _binds(option: Option, replicas: int, work: float, z: float) -> str:
    place = option.placement
    full = work >= option.room(replicas, z) * _FULL
    if full and option.clip <= option.most(replicas, z):
        return "downlink"
    if full and replicas == place.max_replicas:
        return "replicas.max"
    if replicas == place.min_replicas:
        return "replicas.min"
    return "headroom" if place.headroom > 0 and work <= option.most(replicas - 1, z) else "objective"


def _binding(gaid: GenAIDeployment, pools: Sequence[PoolShare], used: Mapping[str, float]) -> tuple[str, ...]:
    """Fields that hold the plan back: bounds that pools are at, and caps with no room for one more of its replicas."""
    out: list[str] = []
    fields = {"downlink": "network.downlink", "headroom": "replicas.headroom"}
    for index, tier in enumerate(gaid.spec.tiers):
        held = {one.binds for one in pools if one.placement.tier == tier.name}
        out += [f"spec.tiers[{index}].{fields.get(name, name)}" for name in sorted(held - {"objective"})]
    for name, cap in caps_of(gaid).items():
        one_more = {
            "cost": [one.energy.cost_per_hour / one.replicas for one in pools],
            "energy": [one.energy.watts / one.replicas for one in pools],
            "carbon": [one.energy.carbon_g_per_hour / one.replicas for one in pools],
        }[name]
        if used[name] + min(one_more, default=0.0) > cap:
            out.append(f"spec.objective.caps.{CAP_NAMES[name]}")
    if any(one.binds == "objective" for one in pools):
        out.append("spec.objective.responseTime.target")
    return tuple(out)
