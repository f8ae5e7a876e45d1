"""`tierserve plan --trace`: what a recorded trace needs of each pool of a tier, as a table, sentences or JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from threading import Timer

import numpy as np
import typer
from rich.console import Console

from tierserve.api import GenAIDeployment
from tierserve.cli.errors import UserError
from tierserve.cli.output import console, emit
from tierserve.cli.plan import confirm as plan_confirm
from tierserve.cli.plan import json_output as plan_json
from tierserve.cli.plan.confirm import Simulated, number
from tierserve.cli.plan.table import estimated, fitted, ms, rate_of
from tierserve.cli.simulate.inputs import recorded
from tierserve.loadgen.errors import LoadError
from tierserve.plan.placement import Placement, place
from tierserve.plan.trace.replay import (
    CLOSE_WINDOWS,
    ERROR,
    LOADS,
    LOW_LOAD,
    LOW_LOAD_ERROR,
    WINDOWS,
    ReplayResult,
    Requests,
    Steady,
    asked,
    replay,
    requests_of,
)
from tierserve.simulate.types import Workload

PATIENCE_S = 2.0


@dataclass(frozen=True, slots=True)
class _Found:
    """What was found of each pool: by the formula, and by simulation, or how to have it simulated."""

    pools: Sequence[ReplayResult]
    by: Sequence[Simulated]
    way: str

    @property
    def short(self) -> ReplayResult | None:
        """The first pool that cannot keep the objective within its ceiling, with what is known best of it."""
        both = zip(self.pools, self.by, strict=True) if self.by else ()
        known = [plan_confirm.judged(*one) for one in both] or self.pools
        return next((one for one in known if not one.meets), None)


def plan_trace(
    file: Path,
    gaid: GenAIDeployment,
    trace: str,
    *,
    copies: int,
    tier: str | None,
    confirm: bool | None,
    output: str,
) -> None:
    """Ask each pool of a tier alone for the whole trace and show what it needs; status 1 where one cannot hold it."""
    try:
        work = recorded(trace, copies)
    except LoadError as error:
        raise UserError(f"--trace: {error.message}", error.hint, error.exit_code) from error
    way = plan_confirm.way_to(work, confirm)
    with _told_after(PATIENCE_S, f"{len(work):,} requests of {work.name} are replayed"):
        requests = requests_of(work.times_s, work.input_tokens, work.output_tokens, work.length_s)
        pools = _each(gaid, _of_tier(gaid, tier), requests)
    by = () if way else plan_confirm.simulated(work, pools, show=output == "table")
    found = _Found(pools, by, way)
    if output != "table":
        emit(plan_json.of_trace(gaid, work, copies, pools, by, feasible=found.short is None), output)
        if found.short is not None:
            raise typer.Exit(1)
        return
    _show(console(), gaid, work, copies, found)
    if found.short is not None:
        raise _too_little(file, gaid, found.short)


def _of_tier(gaid: GenAIDeployment, name: str | None) -> list[Placement]:
    tiers = [one.name for one in gaid.tiers_on]
    if name is not None and name not in tiers:
        raise UserError(f"--tier: is not in the file ({name!r})", f"choose one of {', '.join(tiers)}")
    first = next(iter(gaid.tiers_for(gaid.default_class)), gaid.overflow[0]).name
    return [one for one in place(gaid) if one.tier == (name or first)]


def _each(gaid: GenAIDeployment, placements: Sequence[Placement], requests: Requests) -> list[ReplayResult]:
    """Sites of a tier differ in their names alone: one of those alike is replayed."""

    @lru_cache
    def of(nameless: Placement) -> ReplayResult:
        return replay(nameless, requests)

    pools = [asked(gaid, one, requests.sizes) for one in placements]
    return [replace(of(replace(one, site="")), placement=one) for one in pools]


@contextmanager
def _told_after(seconds: float, text: str) -> Iterator[None]:
    """Show a spinner, on a terminal, once it has taken so long."""
    status = Console(stderr=True).status(text)
    timer = Timer(seconds, status.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        status.stop()


def _show(out: Console, gaid: GenAIDeployment, work: Workload, copies: int, found: _Found) -> None:
    target, pools = gaid.spec.objective.response_time, found.pools
    first = pools[0]
    name = f"{work.name}, each request as {copies} within 5 s" if copies > 1 else work.name
    asked_for = f"{len(work):,} requests of {name}, in {work.length_s / 60.0:,.3g} minutes"
    out.print(f"[bold]{gaid.name}[/bold]: {asked_for}; p{target.percentile:g} within {target.target}")
    heads = (
        "tier/site", "model", "slots", "needed", f"{ERROR:.0%} to\nspare", "replicas\nof max",
        f"p{target.percentile:g}\nms", "mean\nms", "within", "rho\nmean", "rho\nbusiest min",
        f"plan at\n{first.mean.rate:,.3g}/s", "\nwithin", f"plan at\n{first.busiest.rate:,.3g}/s", "\nwithin",
    )  # fmt: skip
    out.print(fitted(out, heads, [_row(one) for one in pools]))
    if found.by:
        out.print(plan_confirm.table(out, target.percentile, pools, found.by))
    for line in _sentences(work, found):
        out.print(line, markup=False)


def _row(one: ReplayResult) -> tuple[str, ...]:
    place = one.placement
    return (
        f"{place.tier}/{place.site}",
        place.model,
        f"{place.slots:,}",
        number(one.needed),
        number(one.needed_with_margin),
        f"{one.replicas}/{place.max_replicas}",
        ms(one.response_s) if one.meets else f"[red]{ms(one.response_s)}[/red]",
        ms(one.mean_response_s),
        f"{one.within:.2%}",
        f"{one.utilisation:.3f}",
        f"{one.utilisation_busiest:.3f}",
        *_plan(one.mean),
        *_plan(one.busiest),
    )


def _plan(one: Steady) -> tuple[str, str]:
    return number(one.replicas), "-" if one.replicas is None else f"{one.within:.2%}"


def _sentences(work: Workload, found: _Found) -> Iterator[str]:
    pools = found.pools
    first = pools[0]
    who = "The pool alone gets" if len(pools) == 1 else "Each pool alone gets"
    yield (
        f"{who} the whole trace with its tokens, in the slots of the file; nothing overflows, and the replicas are "
        "the same number throughout."
    )
    yield (
        f'"plan at": what `tierserve plan` reckons for Poisson arrivals at the mean rate, {rate_of(first.mean.rate)}, '
        f"and at that of the busiest 10 minutes, {rate_of(first.busiest.rate)}; beside it what they would keep here."
    )
    if found.by:
        yield from plan_confirm.sentences(pools, found.by)
    else:
        yield f"How sure: {_how_sure(first)}; {found.way}."
    yield from _beyond(work, first)
    yield from estimated([one.placement for one in pools])


def _how_sure(one: ReplayResult) -> str:
    if one.utilisation >= LOW_LOAD:
        return (
            f"p95 was within {ERROR:.0%} of a simulation on {CLOSE_WINDOWS} of {WINDOWS} windows of real traces "
            f'(docs/benchmarks/trace-prediction.md), and "{ERROR:.0%} to spare" has room for that'
        )
    low, high = LOW_LOAD_ERROR
    return (
        f"at loads as low as this p95 was {-low:.0%} too low to {high:.0%} too high beside a simulation, at loads of "
        f"{LOADS[0]:g} to {LOADS[1]:g} within {ERROR:.0%} (docs/benchmarks/trace-planning.md)"
    )


def _beyond(work: Workload, first: ReplayResult) -> Iterator[str]:
    if first.late_alone > 0.0:
        yield f"{first.late_alone:.2%} of the requests take longer than the target even alone on a replica."
    most = first.placement.context_tokens
    longer = float(np.mean(work.input_tokens + work.output_tokens > most))
    if longer > 0.0:
        yield (
            f"{longer:.2%} of the requests have more tokens than the context of {first.placement.model}, {most:,}; "
            "they are counted as if it took them."
        )


def _too_little(file: Path, gaid: GenAIDeployment, one: ReplayResult) -> UserError:
    place, target = one.placement, gaid.spec.objective.response_time
    over = one.response_s - target.target.value
    message = (
        f"{file}: {place.tier}/{place.site} at its ceiling of {one.replicas:,}: {one.late:.2%} of the "
        f"requests are late, p{target.percentile:g} is {ms(one.response_s)} ms, {ms(over)} ms above the target"
    )
    if one.needed is not None:
        index = [tier.name for tier in gaid.spec.tiers].index(place.tier)
        return UserError(message, f"set spec.tiers[{index}].replicas.max: {one.needed}", code=1)
    alone = f"{one.late_alone:.2%} take longer than the target even alone" if one.late_alone > 0.0 else ""
    why = f"no number of replicas is enough{f' ({alone})' if alone else ''}"
    return UserError(message, f"{why}: give a longer target or a faster model", code=1)
