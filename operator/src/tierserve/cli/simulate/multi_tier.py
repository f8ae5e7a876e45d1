"""`tierserve simulate` with all pools of a file behind one gateway: runs, a table and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from rich.progress import Progress
from rich.table import Table

from tierserve.api import Duration, GenAIDeployment, Quantity
from tierserve.cli.errors import UserError
from tierserve.cli.output import console, emit
from tierserve.cli.pictures import Picture
from tierserve.cli.simulate import inputs
from tierserve.cli.simulate.options import Options
from tierserve.plan.placement import Placement
from tierserve.render.haproxy.from_deployment import gateway_classes
from tierserve.simulate.footprint import Footprint, footprint
from tierserve.simulate.policies.base import Rule
from tierserve.simulate.slow_loop import SlowLoop
from tierserve.simulate.types import Floats, Ints, Objective
from tierserve.simulate.workload import among, zipf

if TYPE_CHECKING:
    from tierserve.simulate.multi_tier import Gateway, Site, Traffic
    from tierserve.simulate.results import Mask, TiersResult

_CLASSES, _PROMPTS, _PREFIXES = range(4, 7)
"""Streams of dice, so that one is not told by another."""


@dataclass(frozen=True, slots=True)
class Part:
    """Results of the requests of a tier, of the response cache, of those refused, or of all; seconds, with network.

    Attributes:
        name: of the tier, or `cache`, `refused` or `all`.
        requests, share: number and share of all.
        within: share of them within the target; None if there are none.
        passed_on: requests that overflowed from the tier to another or were refused; of all: at least once.
        prefix_hits: requests whose prefix was in the pool's cache.
        gpu_hours, kwh, carbon_g, cost: what the tier's pools took, with the prices and intensities of the file.
        replicas_max: maximum of the desired replicas, summed over sites.
    """

    name: str
    requests: int
    share: float
    within: float | None
    response_p95_s: float
    ttft_p95_s: float
    itl_p95_s: float
    gpu_hours: float
    kwh: float
    carbon_g: float
    cost: float
    replicas_max: int
    passed_on: int
    prefix_hits: int


@dataclass(frozen=True, slots=True)
class TiersOutcome:
    """One rule's run in all tiers; changes: seconds at which objective.optimize changed the order of the tiers."""

    policy: str
    knob: str
    value: float
    total: Part
    parts: tuple[Part, ...]
    aborted: int
    changes: tuple[tuple[float, tuple[str, ...]], ...] = ()


def execute_tiers(gaid: GenAIDeployment, placements: Sequence[Placement], options: Options, picture: Picture) -> None:
    """Run each rule on all pools at once and show it."""
    from tierserve.report.simulated import draw_tiers

    traffic = _traffic(gaid, placements, options)
    gateway = _gateway(gaid, options)
    chosen = [inputs.chosen(text) for text in options.policies]
    goal = _goal(gaid, options)
    found, outcomes = {}, []
    for rule, value in chosen:
        loop = SlowLoop(gaid, placements) if gaid.spec.objective.optimize.mode == "apply" else None
        run = _run(traffic, _sites(gaid, placements, options, rule, value), gateway, rule, options, loop=loop)
        found[inputs.label(rule, value)] = run
        used = {
            one.pool: footprint(pool, gaid.tier(one.tier), one.slots)
            for one, pool in zip(placements, run.pools, strict=True)
        }
        changes = tuple(loop.changes) if loop else ()
        outcomes.append(_outcome(rule, value, run, goal, used=used, changes=changes))
    picture.draw(lambda path: draw_tiers(found, traffic.work.length_s, path))
    _show(outcomes, options, traffic, picture.written)
    picture.report()


def _goal(gaid: GenAIDeployment, options: Options) -> Objective:
    response = gaid.spec.objective.response_time
    response_s = float("inf") if options.ttft else response.target.value
    return Objective(response_s, inputs.first_token_s(gaid, options), percentile=response.percentile)


def _traffic(gaid: GenAIDeployment, placements: Sequence[Placement], options: Options) -> Traffic:
    from tierserve.simulate.multi_tier import Traffic

    work = inputs.requests(options, 1.0, 1.0)
    n = len(work)
    class_id = among([one.share for one in gaid.spec.traffic], n, (options.seed, _CLASSES))
    if options.rate is not None:
        tokens = np.array(_tokens(gaid, placements))[class_id]
        work = replace(work, input_tokens=tokens[:, 0], output_tokens=tokens[:, 1])
    prompt = None
    if options.prompts is not None:
        _at_least(1, "--prompts", options.prompts)
        if options.answer_cache is None:
            raise UserError("--prompts: requires --answer-cache", "for example --answer-cache edge=10m,2Gi")
        prompt = zipf(options.prompts, _exponent(options), n, (options.seed, _PROMPTS))
    classes = {one.name: one.tiers for one in gateway_classes(gaid)}
    prefix, shared = _shared(options, n)
    return Traffic(work, classes, class_id, prompt, prefix, shared)


def _tokens(gaid: GenAIDeployment, placements: Sequence[Placement]) -> list[tuple[int, int]]:
    """Input and output tokens of each class, the output that of its first tier's model where it gives none."""
    model = {one.tier: gaid.model(one.model) for one in placements}
    return [(one.input, one.output or model[gaid.tiers_for(one)[0].name].output.tokens) for one in gaid.spec.traffic]


def _shared(options: Options, n: int) -> tuple[Ints | None, Ints | None]:
    if options.prefixes is None:
        return None, None
    count, tokens = _count_and_tokens(options.prefixes)
    prefix = zipf(count, _exponent(options), n, (options.seed, _PREFIXES))
    return prefix, np.full(n, tokens, dtype=np.int64)


def _count_and_tokens(text: str) -> tuple[int, int]:
    count, _, tokens = text.partition("=")
    if not (count.isdecimal() and tokens.isdecimal() and int(count) > 0 and int(tokens) > 0):
        raise UserError(
            f"--prefixes: must be COUNT=TOKENS ({text!r})", "for example 50=1000: 50 prefixes of 1000 tokens"
        )
    return int(count), int(tokens)


def _exponent(options: Options) -> float:
    _at_least(0.0, "--zipf", options.zipf)
    return options.zipf


def _at_least(least: float, option: str, value: float) -> None:
    if not value >= least:
        raise UserError(f"{option}: must be at least {least:g} ({value:g})", f"give {least:g} or more")


def _sites(
    gaid: GenAIDeployment, placements: Sequence[Placement], options: Options, rule: Rule, value: float
) -> list[Site]:
    from tierserve.simulate.multi_tier import Site

    ttft_s = inputs.first_token_s(gaid, options)
    pools = {one.pool: inputs.pool_of(gaid, one, options, ttft_s - one.network_s) for one in placements}
    setup = inputs.setups(options, pools, _first(gaid, placements))
    if options.router != "central":
        raise UserError(
            f"--router: must be central where tiers overflow ({options.router!r})",
            "leave it out, or simulate one pool with --pool",
        )
    return [
        Site(
            name=one.pool,
            tier=one.tier,
            pool=pools[one.pool],
            policy=rule.make(pools[one.pool], value),
            setup=setup[one.pool],
            uplink_s=one.uplink_s,
            downlink_s=one.downlink_s,
            mean_service_s=one.service_s,
            prefix_tokens=_kept(options),
        )
        for one in placements
    ]


def _first(gaid: GenAIDeployment, placements: Sequence[Placement]) -> str:
    names = {one.pool for one in placements}
    return next(name for tier in gaid.overflow for name in tier.pools if name in names)


def _kept(options: Options) -> int:
    if options.prefix_cache is not None:
        _at_least(0, "--prefix-cache", options.prefix_cache)
        return options.prefix_cache
    if options.prefixes is None:
        return 0
    count, tokens = _count_and_tokens(options.prefixes)
    return count * tokens


def _gateway(gaid: GenAIDeployment, options: Options) -> Gateway:
    from tierserve.simulate.multi_tier import AnswerCache, Gateway

    if options.answer_cache is None:
        return Gateway(gaid.spec.gateway.max_queue)
    if options.prompts is None:
        raise UserError(
            "--answer-cache: requires --prompts (distinct prompts give no cache hits)", "for example --prompts 1000"
        )
    tier, ttl_s, size = _answer_cache(options.answer_cache, [one.name for one in gaid.spec.tiers])
    model = gaid.models_of(gaid.tier(tier))[0]
    per_token = model.output_bytes / model.output.tokens
    return Gateway(gaid.spec.gateway.max_queue, AnswerCache(tier, ttl_s, int(size), per_token))


def _answer_cache(text: str, tiers: Sequence[str]) -> tuple[str, float, float]:
    """Tier, seconds and bytes of ``TIER=TTL,SIZE``."""
    tier, _, rest = text.partition("=")
    ttl, _, size = rest.partition(",")
    try:
        seconds, held = Duration(ttl).value, Quantity(size).value
    except ValueError as error:
        raise UserError(
            f"--answer-cache: must be TIER=TTL,SIZE ({text!r}): {error}", "for example edge=10m,2Gi"
        ) from error
    if tier not in tiers:
        raise UserError(f"--answer-cache: tier is not in the file ({tier!r})", f"choose one of {', '.join(tiers)}")
    return tier, seconds, held


def _run(
    traffic: Traffic,
    sites: Sequence[Site],
    gateway: Gateway,
    rule: Rule,
    options: Options,
    *,
    loop: SlowLoop | None,
) -> TiersResult:
    from tierserve.simulate.multi_tier import simulate_tiers

    work = traffic.work
    with Progress(transient=True, disable=options.output != "table") as bar:
        task = bar.add_task(f"{rule.title}: {work.length_s / 3600:.2g} h of {work.name}", total=work.length_s)
        return simulate_tiers(
            traffic,
            sites,
            gateway,
            progress=lambda t: bar.update(task, completed=t),
            reorder=None if loop is None else lambda t, seen: _classes(loop(t, seen)),
        )


def _classes(changed: GenAIDeployment | None) -> Mapping[str, tuple[str, ...]] | None:
    return None if changed is None else {one.name: one.tiers for one in gateway_classes(changed)}


def _outcome(
    rule: Rule,
    value: float,
    found: TiersResult,
    goal: Objective,
    *,
    used: Mapping[str, Footprint],
    changes: tuple[tuple[float, tuple[str, ...]], ...],
) -> TiersOutcome:
    tiers = list(dict.fromkeys(found.tiers))
    passed = {name: found.passed_by(name) for name in tiers}
    parts = [
        _part(name, found, goal, _in_tier(found, name), name, used=used, passed_on=int(passed[name].sum()))
        for name in tiers
    ]
    if found.cached.any():
        parts.append(_part("cache", found, goal, found.cached, used=used))
    if found.refused.any():
        parts.append(_part("refused", found, goal, found.refused, used=used))
    everyone = np.ones(found.pool.size, dtype=np.bool_)
    once = int(np.logical_or.reduce(list(passed.values())).sum())
    total = _part("all", found, goal, everyone, *tiers, used=used, passed_on=once)
    aborted = sum(one.aborted for one in found.pools)
    return TiersOutcome(rule.name, rule.knob, value, total, tuple(parts), aborted, changes)


def _in_tier(found: TiersResult, name: str) -> Mask:
    here = [p for p, tier in enumerate(found.tiers) if tier == name]
    mine: Mask = np.isin(found.pool, here)
    return mine


def _part(
    name: str,
    found: TiersResult,
    goal: Objective,
    mine: Mask,
    *tiers: str,
    used: Mapping[str, Footprint],
    passed_on: int = 0,
) -> Part:
    pools = [pool for pool, tier in zip(found.pools, found.tiers, strict=True) if tier in tiers]
    took = [used[site] for site, tier in zip(found.sites, found.tiers, strict=True) if tier in tiers]
    count = int(mine.sum())
    return Part(
        name=name,
        requests=count,
        share=count / max(mine.size, 1),
        within=found.attainment(goal, mine) if count else None,
        response_p95_s=inputs.p95(found.response_s[mine]),
        ttft_p95_s=inputs.p95(found.ttft_s[mine]),
        itl_p95_s=inputs.p95(found.itl_s[mine]),
        gpu_hours=sum(pool.gpu_hours() for pool in pools),
        kwh=sum(one.kwh for one in took),
        carbon_g=sum(one.carbon_g for one in took),
        cost=sum(one.cost for one in took),
        replicas_max=sum(int(pool.target.max()) for pool in pools),
        passed_on=passed_on,
        prefix_hits=int(found.prefix_hit[mine].sum()),
    )


def _show(outcomes: Sequence[TiersOutcome], options: Options, traffic: Traffic, picture: str | None) -> None:
    work = traffic.work
    if options.output != "table":
        body = {"requests": len(work), "seconds": work.length_s, "picture": picture,
                "policies": [_document(one) for one in outcomes]}  # fmt: skip
        emit(body, options.output)
        return
    out = console()
    out.print(f"{len(work):,} requests of {work.name} in {work.length_s / 3600:.2f} h; times with the network")
    table = Table("policy", "where", "requests", "within target", "response p95", "first token p95",
                  "between tokens p95", "GPU-hours", "most replicas", "passed on", "prefix hits",
                  box=None, pad_edge=False)  # fmt: skip
    for one in outcomes:
        for part in (*one.parts, one.total):
            table.add_row(f"{one.policy}={one.value:g}" if part is one.parts[0] else "", *_cells(part))
    out.print(table)
    for one in outcomes:
        whole = one.total
        out.print(
            f"{one.policy}={one.value:g}: {whole.kwh:,.3g} kWh, {whole.carbon_g / 1e3:,.3g} kg CO2e, "
            f"cost {whole.cost:,.2f}{_turns(one)}",
            markup=False,
        )
    if picture:
        out.print(f"picture: {picture}")


def _turns(one: TiersOutcome) -> str:
    """What objective.optimize changed, in words."""
    if not one.changes:
        return ""
    return "; order of tiers changed: " + ", ".join(
        f"{int(t // 3600)}:{int(t % 3600 // 60):02d} {' > '.join(order)}" for t, order in one.changes
    )


def _document(one: TiersOutcome) -> Mapping[str, object]:
    """The figures of all at the same names as those of a single pool, and each part's beside them."""
    total: dict[str, object] = {"policy": one.policy, "knob": one.knob, "value": one.value, "aborted": one.aborted}
    total |= {name: getattr(one.total, name) for name in Part.__slots__ if name not in ("name", "share")}
    return {**total, "parts": one.parts, "changes": [{"seconds": t, "overflow": order} for t, order in one.changes]}


def _cells(part: Part) -> Sequence[str]:
    def of(times: Floats | float, unit: str, scale: float, digits: int) -> str:
        return f"{float(times) * scale:.{digits}f} {unit}" if part.requests and part.name != "refused" else ""

    return (
        part.name,
        f"{part.requests:,} ({part.share:.1%})",
        "" if part.within is None else f"{part.within:.2%}",
        of(part.response_p95_s, "s", 1.0, 2),
        of(part.ttft_p95_s, "s", 1.0, 2),
        of(part.itl_p95_s, "ms", 1e3, 0),
        f"{part.gpu_hours:.2f}" if part.replicas_max or part.gpu_hours else "",
        f"{part.replicas_max}" if part.replicas_max else "",
        f"{part.passed_on:,}" if part.passed_on else "",
        f"{part.prefix_hits:,}" if part.prefix_hits else "",
    )
