"""Plans as tables and sentences for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from tierserve.api import GenAIDeployment
from tierserve.plan.capacity import Plan, PoolPlan, refused_from
from tierserve.plan.paper import PaperTier, criteria_of, first_to_bind
from tierserve.plan.placement import Placement
from tierserve.plan.sweep import Sweep, TierCurve

BOUND_WORDS = {
    "memory": "memory",
    "responseTime": "batching",
    "firstToken": "first token",
    "perToken": "per token",
    "engine": "engine",
}

_WORDS = ("model", "bound by", "set by", "classes")  # columns that hold words


def show_plan(console: Console, gaid: GenAIDeployment, plan: Plan) -> None:
    """Print the plan: who asks, a row per pool, then what binds and where it ends in words."""
    target = gaid.spec.objective.response_time
    asked = who(plan.connections, plan.rate, plan.think_s)
    console.print(f"[bold]{gaid.name}[/bold]: {asked}; p{target.percentile:g} within {target.target}")
    console.print(_pools(console, plan, target.percentile))
    for line in _sentences(gaid, plan):
        console.print(line)


def show_pooled(console: Console, gaid: GenAIDeployment, tiers: Sequence[PaperTier]) -> None:
    """Print the paper's form."""
    table = _table(
        "tier", "lambda\n1/s", "c pooled", "c packed", "mu\n1/s", "a = lambda/mu\nerlangs", "rho", "C(c, a)", "W\ns"
    )
    for one in tiers:
        table.add_row(
            one.tier,
            f"{one.rate:,.6g}",
            f"{one.servers:,}",
            f"{one.servers_packed:,}",
            f"{one.service_rate:,.3f}",
            f"{one.offered_load:.9g}",
            f"{one.utilisation:.3g}",
            one.p_wait,
            exponent(one.response_s),
        )
    console.print(f"[bold]{gaid.name}[/bold] in the paper's form: c = G \\ U, mu = P / F, lambda = N")
    console.print(table)
    console.print(
        "c pooled takes the memory of all accelerators as one piece; c packed counts whole models on each of them."
    )
    console.print(
        "mu gives every server a whole accelerator; servers that share one share its FLOP/s (leave --pooled out)."
    )


def show_sweep(console: Console, gaid: GenAIDeployment, sweep: Sweep, picture: str | None) -> None:
    """Print a row per tier, where each is exhausted, and the path of the picture."""
    first, last = sweep.connections[0], sweep.connections[-1]
    console.print(f"[bold]{gaid.name}[/bold]: {first:,.0f} to {last:,.0f} connections")
    table = _table(
        "tier", "exhausted at\nconnections", f"p{sweep.percentile:g}\nms", "replicas", "highest\nutilisation"
    )
    for one in sweep.tiers:
        table.add_row(one.tier, _whole(sweep.limits.exhausted_at[one.tier]), *_ranges(one))
    console.print(table)
    end = sweep.limits.served_up_to
    if end < last:
        refused = _refused(gaid, sweep.limits.exhausted_at, last)
        console.print(f"No room: {refused}; at {last:,.0f} for {sweep.unserved[-1]:.1%} of all requests.")
    else:
        console.print(f"All {last:,.0f} connections are served; the tiers are full at {_count(end)}.")
    if picture:
        console.print(f"picture: {picture}", soft_wrap=True)


def exponent(value: float) -> str:
    """Return a number with twelve digits, below 1e-3 with a bare exponent: 4.19871794872e-5."""
    if not 0.0 < abs(value) < 1e-3:
        return f"{value:.12g}"
    mantissa, _, power = f"{value:.11e}".partition("e")
    return f"{mantissa.rstrip('0')}e{int(power)}"


def who(connections: float, rate: float, think_s: float | None) -> str:
    """Return who asks, and how often."""
    if think_s is None:
        return f"{connections:,.6g} connections that each ask once a second (lambda = N)"
    return f"{connections:,.6g} connections that think {think_s:g} s: {rate_of(rate)}"


def rate_of(rate: float) -> str:
    """Return a rate with four digits, or as a whole number."""
    return f"{rate:,.4g} requests/s" if rate < 1e4 else f"{rate:,.0f} requests/s"


def _pools(console: Console, plan: Plan, percentile: float) -> Table:
    heads = (
        "tier/site", "model", "slots", "bound by", "rate\n1/s", "replicas\nof max", "servers\nc", "rho", "P(wait)",
        f"p{percentile:g}\nms", "t_UL\nms", "inference\nms", "t_DL\nms", "set by", "power\nW", "cost\n1/h",
    )  # fmt: skip
    return fitted(console, heads, [_row(one) for one in plan.pools])


def fitted(console: Console, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table with a row per pool, or on a narrow terminal with a column per pool."""
    table = _table(*heads)
    for row in rows:
        table.add_row(*row)
    if Measurement.get(console, console.options.update(max_width=1000), table).maximum <= console.width:
        return table
    table = _table("", *(row[0] for row in rows))
    for index, head in enumerate(heads[1:], 1):
        table.add_row(head.replace("\n", " "), *(row[index] for row in rows))
    return table


def _row(one: PoolPlan) -> tuple[str, ...]:
    place = one.placement
    style = "" if one.meets else "[red]"
    return (
        f"{place.tier}/{place.site}",
        place.model,
        f"{place.slots:,}",
        BOUND_WORDS[place.bound],
        f"{one.rate:,.4g}",
        f"{one.replicas}/{place.max_replicas}",
        f"{one.servers:,}",
        f"{one.utilisation:.3f}",
        f"{one.p_wait:.3g}",
        f"{style}{ms(one.response_s)}",
        ms(place.uplink_s),
        ms(one.inference_s),
        ms(place.downlink_s),
        one.binds,
        f"{one.energy.watts:,.0f}",
        f"{one.energy.cost_per_hour:,.2f}",
    )


def _sentences(gaid: GenAIDeployment, plan: Plan) -> Iterator[str]:
    yield from _ends(gaid, plan)
    yield from _criteria(gaid, plan)
    yield from _misses(plan)
    yield from _held_up(plan)
    yield from _totals(gaid, plan)


def _ends(gaid: GenAIDeployment, plan: Plan) -> Iterator[str]:
    for name, at in plan.exhausted_at.items():
        if at is None:
            yield f"{name}: no traffic class is routed here (routing.overflow, traffic[].privacy)"
            continue
        one = next(one.placement for one in plan.pools if one.placement.tier == name)
        sites = len(gaid.tier(name).sites_or_default)
        where = f"{_many(one.max_replicas, 'replica')} of {_many(one.slots, 'slot')}"
        where += f" at each of {sites} sites" if sites > 1 else ""
        yield f"{name}: exhausted at {_count(at)} connections ({where}; {_bound_words(one)})"
    if plan.unserved_rate > 0:
        yield (
            f"[red]{plan.unserved_rate:,.4g} of {plan.rate:,.4g} requests/s find no tier that may take them within the "
            f"objective[/red] ({_refused(gaid, plan.exhausted_at, plan.connections)}): raise replicas.max or add a site"
        )


def _bound_words(one: Placement) -> str:
    others = {BOUND_WORDS[name]: n for name, n in one.bounds.items() if name in ("memory", "responseTime")}
    text = ", ".join(f"{name} allows {n}" for name, n in others.items())
    return f"slots bound by {BOUND_WORDS[one.bound]}: {text}"


def _criteria(gaid: GenAIDeployment, plan: Plan) -> Iterator[str]:
    each = plan.rate / plan.connections if plan.connections else 1.0
    for name in plan.exhausted_at:
        one = next(one.placement for one in plan.pools if one.placement.tier == name)
        criteria = criteria_of(gaid, one, each)
        binding = [c for c in criteria if c.binds(plan.connections)]
        if binding:
            words = "; ".join(f"{c.name} binds from {c.connections + 1:,.0f} on ({c.message})" for c in binding)
            yield f"One {name} site cannot hold {plan.connections:,.6g} connections at once: {words}"
        else:
            first = first_to_bind(criteria)
            none = first.connections == math.inf
            words = "nothing binds" if none else f"{first.name} binds above {first.connections:,.0f}"
            yield f"One {name} site can hold them all at once: {words}"


def _misses(plan: Plan) -> Iterator[str]:
    seen: set[tuple[str, str]] = set()
    for pool in plan.pools:
        one = pool.placement
        if (one.tier, one.model) in seen:
            continue
        seen.add((one.tier, one.model))
        if not one.meets_target:
            alone = one.profile.service_time(1, one.input_tokens, one.output_tokens)
            yield (
                f"[red]{one.tier}: {one.model} cannot keep the objective[/red]: an answer takes {ms(alone)} ms alone, "
                f"{ms(one.target_s)} ms are left; give a longer target, fewer output tokens or a faster model"
            )
    yield from estimated([one.placement for one in plan.pools])


def _held_up(plan: Plan) -> Iterator[str]:
    for pool in plan.pools:
        if pool.for_long_prompts:
            one = pool.placement
            read = one.profile.prefill(1, one.input_tokens, one.output_tokens)
            count = pool.for_long_prompts
            more = f"{count:,} more {'replica' if count == 1 else 'replicas'}"
            yield f"{one.pool}: {more} for long prompts: reading one ({ms(read)} ms) holds up the answers beside it"


def estimated(placements: Sequence[Placement]) -> Iterator[str]:
    """Yield which models' times are estimates."""
    guessed = sorted({one.model for one in placements if not one.measured})
    if guessed:
        names = ", ".join(guessed)
        yield f"Times of {names} are estimated from FLOPs and bandwidth: measure them into models[].profile"


def _totals(gaid: GenAIDeployment, plan: Plan) -> Iterator[str]:
    watts = sum(one.energy.watts for one in plan.pools)
    cost = sum(one.energy.cost_per_hour for one in plan.pools)
    grams = sum(one.energy.carbon_g_per_hour for one in plan.pools)
    served = plan.rate - plan.unserved_rate
    joules = f", {watts / served:,.3g} J a request" if served > 0 else ""
    yield f"All tiers: {watts / 1e3:,.3g} kW{joules}, {cost:,.2f} per hour, {grams / 1e3:,.3g} kg CO2e per hour"
    known = [one.energy.embodied_g_per_hour for one in plan.pools if one.energy.embodied_g_per_hour is not None]
    if known:
        of = "" if len(known) == len(plan.pools) else f" of {len(known)} of {len(plan.pools)} pools"
        yield f"Manufacture of the accelerators{of}: {sum(known) / 1e3:,.3g} kg CO2e per hour"
    caps = gaid.spec.objective.caps
    if caps is None:
        return
    limits = (
        ("costPerHour", cost, caps.cost_per_hour, ""),
        ("power", watts, caps.power.value if caps.power else None, " W"),
        ("carbonPerHour", grams, caps.carbon_per_hour.value if caps.carbon_per_hour else None, " g"),
    )
    for name, value, cap, unit in limits:
        if cap is not None and value > cap:
            yield f"[red]objective.caps.{name}: {value:,.4g}{unit} is more than the cap of {cap:,.4g}{unit}[/red]"


def _ranges(one: TierCurve) -> tuple[str, str, str]:
    times = [x for x in one.response_s if math.isfinite(x)]
    busy = [x for x in one.utilisation if math.isfinite(x)]
    span = f"{ms(min(times))} to {ms(max(times))}" if times else "-"
    return span, f"{min(one.replicas):,} to {max(one.replicas):,}", f"{max(busy, default=0.0):.1%}"


def _table(first: str, *others: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="left" if name in _WORDS else "right", overflow="fold")
    return table


def _whole(value: float | None) -> str:
    return "-" if value is None else _count(value)


def _refused(gaid: GenAIDeployment, exhausted_at: Mapping[str, float | None], connections: float) -> str:
    found = sorted(refused_from(gaid, exhausted_at).items(), key=lambda one: one[1])
    return ", ".join(f"class {name} from {_count(at)} connections on" for name, at in found if at < connections)


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def ms(seconds: float) -> str:
    """Return milliseconds with three digits, or whole ones."""
    milliseconds = seconds * 1e3
    if not math.isfinite(milliseconds):
        return "inf"
    if milliseconds >= 1000:
        return f"{milliseconds:,.0f}"
    return f"{milliseconds:.3g}" if milliseconds >= 1 else f"{milliseconds:.2f}"
