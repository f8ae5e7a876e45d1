"""The best allocation in a terminal: a row per pool, what it is best at, and what the order of the file comes to."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console

from tierserve.api import GenAIDeployment
from tierserve.cli.plan.table import estimated, fitted, ms, rate_of, who
from tierserve.plan.allocation.baseline import Beside, InOrder
from tierserve.plan.allocation.types import Allocation, PoolShare
from tierserve.plan.capacity import Demand
from tierserve.plan.placement import PlacementError

LEAST = {"cost": "least cost", "energy": "least power", "carbon": "least carbon", "latency": "shortest mean response"}


def show_best(console: Console, gaid: GenAIDeployment, demand: Demand, best: Allocation, other: Beside) -> None:
    """Print the allocation, then in words what it is worth beside the order of the file, and how to come near it."""
    target = gaid.spec.objective.response_time
    asked = rate_of(best.rate) if demand.connections is None else who(demand.connections, best.rate, demand.think_s)
    console.print(f"[bold]{gaid.name}[/bold]: {asked}; p{target.percentile:g} within {target.target}")
    if best.pools:
        heads = (
            "tier/site", "model", "replicas\nof max", "rate\n1/s", "classes", "full", "mean\nms",
            f"late\nof {100 - target.percentile:g}%", "set by", "power\nW", "cost\n1/h", "CO2e\ng/h",
        )  # fmt: skip
        console.print(fitted(console, heads, [_row(best, one) for one in best.pools]))
    for line in _sentences(gaid, best, other):
        console.print(line, markup=False)


def _row(best: Allocation, one: PoolShare) -> tuple[str, ...]:
    place = one.placement
    parts = {name: best.shares(name).get(place.pool, 0.0) for name in one.rates}
    return (
        f"{place.tier}/{place.site}",
        place.model,
        f"{one.replicas}/{place.max_replicas}",
        f"{one.rate:,.4g}",
        ", ".join(f"{name} {_part(part)}" for name, part in parts.items() if part > 0.0) or "-",
        f"{one.work / one.capacity:.1%}" if one.capacity > 0.0 else "-",
        ms(one.mean_response_s) if one.rate > 0.0 else "-",
        f"{100.0 * one.late:.2g}%" if one.late >= 1e-4 else "0%",
        one.binds,
        f"{one.energy.watts:,.0f}",
        f"{one.energy.cost_per_hour:,.2f}",
        f"{one.energy.carbon_g_per_hour:,.0f}",
    )


def _sentences(gaid: GenAIDeployment, best: Allocation, other: Beside) -> Iterator[str]:
    yield _value(gaid, best)
    yield _order(gaid, best, other.order, "The order of the file")
    yield from _totals(gaid, best)
    if other.steps:
        yield "The operator and `tierserve up` go by the order of the file. To bring them near this plan:"
        yield from (f"  - {step}" for step in other.steps)
        yield _order(gaid, best, other.turned, "So turned, the file")
    yield from estimated([one.placement for one in best.pools])


def _value(gaid: GenAIDeployment, best: Allocation) -> str:
    target = gaid.spec.objective.response_time
    kept = f"p{target.percentile:g} within {target.target} at {rate_of(best.rate)}"
    told, least = _worth(best.objective, best.value), LEAST[best.objective]
    if best.gap > 0.0:
        return f"{told} keeps {kept}; the {least} may be up to {best.gap:.2%} lower (the search ran out of time)."
    return f"{told} is the {least} that keeps {kept}."


def _order(gaid: GenAIDeployment, best: Allocation, order: InOrder | PlacementError, subject: str) -> str:
    if isinstance(order, PlacementError):
        return f"{subject} has no plan: {order.problems[0].message}."
    told = _worth(best.objective, order.value)
    if order.keeps:
        ratio = order.value / best.value if best.value > 0.0 else 1.0
        return f"{subject} would take {told}{_times(ratio)}."
    faults = []
    if order.unserved_rate > 0.0:
        faults.append(f"leaves {order.unserved_rate:,.3g} of {rate_of(order.rate)} unserved")
    if order.late:
        faults.append(f"misses p{gaid.spec.objective.response_time.percentile:g} at {', '.join(order.late)}")
    if order.over:
        faults.append(f"breaks {', '.join(f'objective.caps.{name}' for name in order.over)}")
    return f"{subject} would take {told}, but {' and '.join(faults)}."


def _times(ratio: float) -> str:
    if ratio > 1.0 + 5e-4:
        return f", {ratio:.3g} times that"
    if ratio > 1.0 - 5e-4:
        return ", the same"
    return (
        f", {ratio:.3g} times that, since it counts neither what overflows in bursts nor traffic[].origin, and keeps "
        "the target for all classes together, not for each"
    )


def _totals(gaid: GenAIDeployment, best: Allocation) -> Iterator[str]:
    joules = f", {best.watts / best.rate:,.3g} J a request" if best.rate > 0.0 else ""
    rated = any(one.quality is not None for one in gaid.spec.models)
    quality = f", mean quality {best.quality:.3g}" if rated and best.rate > 0.0 else ""
    yield (
        f"All tiers: {best.watts / 1e3:,.3g} kW{joules}, {best.cost_per_hour:,.2f} per hour, "
        f"{best.carbon_g_per_hour / 1e3:,.3g} kg CO2e per hour; mean response {ms(best.mean_response_s)} ms{quality}"
    )
    bursts = [f"{one.overflow:,.2g} requests/s to {one.placement.pool}" for one in best.pools if one.overflow > 0.0]
    if bursts:
        yield f"Room is kept for what finds all slots before it taken: {', '.join(bursts)}"
    if best.binding:
        yield f"What holds it back: {', '.join(best.binding)}"


def _worth(objective: str, value: float) -> str:
    """What is minimised as people read it: money, kilowatts, kilograms or milliseconds."""
    return {
        "cost": f"{value:,.2f} per hour",
        "energy": f"{value / 1e3:,.3g} kW",
        "carbon": f"{value / 1e3:,.3g} kg CO2e per hour",
        "latency": f"{ms(value)} ms",
    }[objective]


def _part(part: float) -> str:
    return f"{part:.0%}" if part >= 0.005 else "<1%"
