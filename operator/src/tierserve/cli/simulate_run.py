"""The work of `tierserve simulate`: from options to runs, a table and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import orjson
from rich.progress import Progress
from rich.table import Table

from tierserve.api import GenAIDeployment, ValidationFailed
from tierserve.cli.errors import UserError, invalid
from tierserve.cli.plan import console, read
from tierserve.cli.simulate import Options
from tierserve.load.plan import LoadError
from tierserve.load.units import seconds
from tierserve.load.workloads import traced
from tierserve.plan.placement import Placement, place
from tierserve.simulate._jit import NumbaMissingError
from tierserve.simulate.arrivals import Sizes, steps, thickened
from tierserve.simulate.model import Objective, Pool, Workload
from tierserve.simulate.policies.base import Rule

if TYPE_CHECKING:
    from tierserve.simulate.run import Result

_COPY_SPREAD_S = 5.0


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


def rules() -> Mapping[str, Rule]:
    """All rules by name, ours first."""
    from tierserve.simulate.policies.ours import OURS
    from tierserve.simulate.policies.registry import RULES

    return {**{one.name: one for one in OURS}, **RULES}


def execute(options: Options) -> None:
    """Run what was asked for and show it."""
    if options.policies == ("list",):
        _list()
        return
    gaid = read(options.file)
    try:
        pool = _pool(gaid, options)
        work = _work(options, pool)
        chosen = [_chosen(text) for text in options.policies]
        found = {_label(rule, value): _run(options, work, pool, rule, value) for rule, value in chosen}
    except ValidationFailed as error:
        raise invalid(options.file, error.problems) from error
    except LoadError as error:
        raise UserError(error.message, error.mend) from error
    except NumbaMissingError as error:
        raise UserError("the simulator needs numba", "pip install 'tierserve[simulate]'") from error
    outcomes = [_outcome(rule, value, found[_label(rule, value)], pool.objective) for rule, value in chosen]
    picture = options.out or Path("out") / f"simulate-{gaid.name}.png"
    from tierserve.report.simulated import draw

    draw(found, work, pool, picture)
    _show(outcomes, options, work, pool, picture)


def _list() -> None:
    table = Table("rule", "what", "knob", "as published", "source", box=None, pad_edge=False)
    for rule in rules().values():
        table.add_row(rule.name, rule.title, rule.knob, f"{rule.default:g}", rule.source)
    console().print(table)


def _label(rule: Rule, value: float) -> str:
    return f"{rule.name}={value:g}"


def _chosen(text: str) -> tuple[Rule, float]:
    name, _, value = text.partition("=")
    rule = rules().get(name)
    if rule is None:
        raise UserError(f"--policy {name!r} is unknown", f"choose one of {', '.join(rules())}")
    try:
        return rule, float(value) if value else rule.default
    except ValueError as error:
        raise UserError(
            f"--policy {text}: {value!r} is not a number", f"give {rule.knob}, e.g. {rule.default:g}"
        ) from error


def _pool(gaid: GenAIDeployment, options: Options) -> Pool:
    placements = {one.pool: one for one in place(gaid)}
    first = next(name for name in (p for tier in gaid.overflow for p in tier.pools) if name in placements)
    one = placements.get(options.pool or first)
    if one is None:
        raise UserError(f"--pool {options.pool!r} is unknown", f"the file has {', '.join(placements)}")
    first_token = gaid.spec.objective.first_token
    ttft_s = seconds(options.ttft) if options.ttft else first_token.value if first_token else float("inf")
    return Pool(
        profile=one.profile,
        slots=one.slots,
        startup_s=seconds(options.startup) if options.startup else one.startup_s,
        objective=_objective(one, options, ttft_s),
        input_tokens=one.input_tokens,
        output_tokens=one.output_tokens,
        floor=one.min_replicas,
        ceiling=one.max_replicas,
        gpus=float(gaid.tier(one.tier).hardware.per_replica),
    )


def _objective(one: Placement, options: Options, ttft_s: float) -> Objective:
    # The tokens of a trace are not those of the file: a target of the whole response would judge its answers' lengths.
    response_s = float("inf") if options.ttft else one.target_s
    return Objective(response_s, ttft_s, percentile=one.percentile)


def _work(options: Options, pool: Pool) -> Workload:
    if (options.trace is None) == (options.rate is None):
        raise UserError("give exactly one of --trace and --rate", "for example --trace azure-code, or --rate 5,20,5")
    if options.rate is not None:
        sizes = Sizes(pool.input_tokens, pool.output_tokens)
        return steps(_rates(options.rate), seconds(options.duration), sizes, options.seed, options.rate)
    work = traced(str(options.trace), seed=options.seed)
    if options.copies < 1:
        raise UserError(f"--copies {options.copies} is less than 1", "give 1 for the trace as it is")
    return thickened(work, options.copies, _COPY_SPREAD_S, options.seed)


def _rates(text: str) -> list[float]:
    try:
        values = [float(one) for one in text.split(",")]
    except ValueError as error:
        raise UserError(f"--rate {text!r} is not a list of numbers", "give such as 5,20,5") from error
    if min(values) < 0.0 or max(values) <= 0.0 or max(values) > 1e6:
        raise UserError(f"--rate {text!r} is out of range", "give requests per second from 0 to 1e6, one above 0")
    return values


def _failures(options: Options) -> tuple[tuple[float, int], ...]:
    found = []
    for text in options.failures:
        when, _, count = text.partition("=")
        if count and not count.isdigit():
            raise UserError(f"--fail {text!r} is not understood", "give such as 10m=2")
        found.append((seconds(when), int(count or 1)))
    return tuple(found)


def _run(options: Options, work: Workload, pool: Pool, rule: Rule, value: float) -> Result:
    from tierserve.simulate.cluster import Setup
    from tierserve.simulate.run import simulate

    try:
        setup = Setup(
            router=options.router,
            initial=options.initial if options.initial is not None else pool.floor,
            startup_spread=options.startup_spread,
            failures=_failures(options),
            seed=options.seed,
        )
    except ValueError as error:
        raise UserError(f"--{error}", "see `tierserve simulate --help`") from error
    with Progress(transient=True, disable=options.output == "json") as bar:
        task = bar.add_task(f"{rule.title}: {work.length_s / 3600:.2g} h of {work.name}", total=work.length_s)
        return simulate(work, pool, rule.make(pool, value), setup, progress=lambda t: bar.update(task, completed=t))


def _outcome(rule: Rule, value: float, found: Result, goal: Objective) -> Outcome:
    def p95(values: np.ndarray) -> float:
        return float(np.quantile(values, 0.95, method="higher")) if values.size else 0.0

    return Outcome(
        policy=rule.name,
        knob=rule.knob,
        value=value,
        within=found.attainment(goal),
        response_p95_s=p95(found.response_s),
        ttft_p95_s=p95(found.ttft_s),
        itl_p95_s=p95(found.itl_s),
        gpu_hours=found.gpu_hours(),
        replicas_max=int(found.target.max()),
        turns_per_hour=found.reversals_per_hour(),
        aborted=found.aborted,
    )


def _show(outcomes: Sequence[Outcome], options: Options, work: Workload, pool: Pool, picture: Path) -> None:
    if options.output == "json":
        body = {"requests": len(work), "seconds": work.length_s, "policies": outcomes, "picture": str(picture)}
        print(orjson.dumps(body, option=orjson.OPT_INDENT_2).decode())
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
            f"{one.replicas_max}{' (all it may)' if one.replicas_max >= pool.ceiling else ''}",
            f"{one.turns_per_hour:.1f}",
        )
    out.print(table)
    out.print(f"picture: {picture}")
