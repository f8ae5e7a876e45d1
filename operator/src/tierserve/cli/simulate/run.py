"""The work of `tierserve simulate`: options, runs, a table and a picture; all pools at once are in
`cli.simulate.multi_tier`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import Progress
from rich.table import Table

from tierserve.api import GenAIDeployment, ValidationFailed
from tierserve.cli.errors import UserError, invalid
from tierserve.cli.files import read
from tierserve.cli.output import console, emit
from tierserve.cli.pictures import Picture
from tierserve.cli.simulate import inputs
from tierserve.cli.simulate.options import Options
from tierserve.loadgen.errors import LoadError
from tierserve.plan.placement import Placement, place
from tierserve.simulate.engine.jit import NumbaMissingError
from tierserve.simulate.policies.base import Rule
from tierserve.simulate.types import Objective, Pool, Workload

if TYPE_CHECKING:
    from tierserve.simulate.run import Result


@dataclass(frozen=True, slots=True)
class Outcome:
    """One rule's run in figures; times in seconds."""

    policy: str
    knob: str
    value: float
    within: float
    response_p95_s: float
    ttft_p95_s: float
    itl_p95_s: float
    gpu_hours: float
    replicas_max: int
    turns_per_hour: float
    aborted: int


def execute(options: Options) -> None:
    """Run what was asked for and show it."""
    if options.policies == ("list",):
        _list()
        return
    gaid = read(options.file)
    picture = Picture(options.out, Path("out") / f"simulate-{gaid.name}.png")
    try:
        placements = place(gaid)
        if options.pool is None and (len(placements) > 1 or options.prompts or options.prefixes):
            from tierserve.cli.simulate.multi_tier import execute_tiers

            execute_tiers(gaid, placements, options, picture)
        else:
            _execute_one(gaid, placements, options, picture)
    except ValidationFailed as error:
        raise invalid(options.file, error.problems) from error
    except LoadError as error:
        raise UserError(error.message, error.hint, error.exit_code) from error
    except NumbaMissingError as error:
        raise UserError("numba is not installed", 'pip install "tierserve[simulate]"', code=1) from error


def _execute_one(gaid: GenAIDeployment, placements: Sequence[Placement], options: Options, picture: Picture) -> None:
    pool = _pool(gaid, placements, options)
    work = inputs.requests(options, pool.input_tokens, pool.output_tokens)
    chosen = [inputs.chosen(text) for text in options.policies]
    found = {inputs.label(rule, value): _run(options, work, pool, (rule, value)) for rule, value in chosen}
    outcomes = [_outcome(rule, value, found[inputs.label(rule, value)], pool.objective) for rule, value in chosen]
    from tierserve.report.simulated import draw

    picture.draw(lambda path: draw(found, work, pool, path))
    _show(outcomes, options, work, pool, picture.written)
    picture.report()


def _list() -> None:
    table = Table("rule", "what", "knob", "as published", "source", box=None, pad_edge=False)
    for rule in inputs.rules().values():
        table.add_row(rule.name, rule.title, rule.knob, f"{rule.default:g}", rule.source)
    console().print(table)


def _pool(gaid: GenAIDeployment, placements: Sequence[Placement], options: Options) -> Pool:
    by_name = {one.pool: one for one in placements}
    one = by_name.get(options.pool or placements[0].pool)
    if one is None:
        raise UserError(f"--pool: is not in the file ({options.pool!r})", f"choose one of {', '.join(by_name)}")
    if options.prompts or options.prefixes:
        raise UserError(
            "--prompts, --prefixes: cannot be combined with --pool",
            "leave --pool out to simulate all pools behind the gateway",
        )
    return inputs.pool_of(gaid, one, options, inputs.first_token_s(gaid, options))


def _run(options: Options, work: Workload, pool: Pool, chosen: tuple[Rule, float]) -> Result:
    from tierserve.simulate.run import simulate

    (rule, value), name = chosen, options.pool or ""
    setup = inputs.setups(options, {name: pool}, name)[name]
    with Progress(transient=True, disable=options.output != "table") as bar:
        task = bar.add_task(f"{rule.title}: {work.length_s / 3600:.2g} h of {work.name}", total=work.length_s)
        return simulate(work, pool, rule.make(pool, value), setup, progress=lambda t: bar.update(task, completed=t))


def _outcome(rule: Rule, value: float, found: Result, goal: Objective) -> Outcome:
    return Outcome(
        policy=rule.name,
        knob=rule.knob,
        value=value,
        within=found.attainment(goal),
        response_p95_s=inputs.p95(found.response_s),
        ttft_p95_s=inputs.p95(found.ttft_s),
        itl_p95_s=inputs.p95(found.itl_s),
        gpu_hours=found.gpu_hours(),
        replicas_max=int(found.target.max()),
        turns_per_hour=found.reversals_per_hour(),
        aborted=found.aborted,
    )


def _show(outcomes: Sequence[Outcome], options: Options, work: Workload, pool: Pool, picture: str | None) -> None:
    if options.output != "table":
        body = {"requests": len(work), "seconds": work.length_s, "policies": outcomes, "picture": picture}
        emit(body, options.output)
        return
    out = console()
    out.print(
        f"{len(work):,} requests of {work.name} in {work.length_s / 3600:.2f} h; {pool.slots} slots a replica,"
        f" {pool.startup_s:g} s to start one"
    )
    table = Table("policy", "within target", "response p95", "first token p95", "between tokens p95", "GPU-hours",
                  "most replicas", "turns/h", box=None, pad_edge=False)  # fmt: skip
    for one in outcomes:
        table.add_row(
            f"{one.policy}={one.value:g}",
            f"{one.within:.2%}",
            f"{one.response_p95_s:.2f} s",
            f"{one.ttft_p95_s:.2f} s",
            f"{one.itl_p95_s * 1e3:.0f} ms",
            f"{one.gpu_hours:.2f}",
            f"{one.replicas_max}{' (all it may)' if one.replicas_max >= pool.max_replicas else ''}",
            f"{one.turns_per_hour:.1f}",
        )
    out.print(table)
    if picture:
        out.print(f"picture: {picture}")
