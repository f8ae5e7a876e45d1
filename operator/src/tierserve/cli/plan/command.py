"""`tierserve plan`: replicas, response time and cost of each tier for a load, and the limit that binds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tierserve.api import Duration, GenAIDeployment, ValidationFailed
from tierserve.cli.errors import UserError, invalid
from tierserve.cli.files import Service, read
from tierserve.cli.output import TableOrData, console, emit, quiet
from tierserve.cli.pictures import Picture

# numpy, scipy and matplotlib take a second or more to import: functions import them when they need them.
if TYPE_CHECKING:
    from tierserve.plan.capacity import Demand

MOST_CONNECTIONS = 1e12
# Beyond it the copies of the smallest trace do not fit into memory.
MOST_COPIES = 10_000


def plan(
    file: Service,
    *,
    connections: Annotated[
        str | None, typer.Option("--connections", "-n", help="Number of connections N, e.g. 500,000 \\[1,000]")
    ] = None,
    rate: Annotated[str | None, typer.Option(help="Requests per second, instead of --connections")] = None,
    think: Annotated[
        str | None,
        typer.Option(help="Think time Z between response and next request, e.g. 20s: lambda = N/(Z+W)"),
    ] = None,
    pooled: Annotated[
        bool, typer.Option("--pooled", help="Model of the paper: memory pooled over all accelerators, lambda = N")
    ] = False,
    best: Annotated[
        bool,
        typer.Option("--best", help="Place models and route classes to minimise objective.optimize"),
    ] = False,
    trace: Annotated[
        str | None,
        typer.Option(help="Arrivals of azure-code, of another trace or of a file (docs/load.md)"),
    ] = None,
    copies: Annotated[
        int | None, typer.Option(min=1, max=MOST_COPIES, help="Trace: copies of each request, spread over 5 s \\[1]")
    ] = None,
    tier: Annotated[str | None, typer.Option(help="Trace: tier that serves it \\[the first that is allowed]")] = None,
    confirm: Annotated[
        bool | None,
        typer.Option(
            "--confirm/--no-confirm",
            help="Trace: find the fewest replicas by a token-level simulation \\[if it takes only seconds]",
            show_default=False,
        ),
    ] = None,
    sweep: Annotated[str | None, typer.Option(help="Range of connections to plot, e.g. 1..500000")] = None,
    out: Annotated[Path | None, typer.Option(help="File of the plot of --sweep \\[out/plan-NAME.png]")] = None,
    output: TableOrData = "table",
) -> None:
    """Show the slots, replicas, response time and cost that a load needs on each tier, and the limit that binds.

    Without --think each connection sends one request per second (lambda = N, as in the paper). With --think the load is
    a closed loop: each user waits for the response, thinks, and sends the next request. With --trace the arrivals of a
    recorded trace are replayed second by second to a fixed number of replicas, which is found by a formula and then
    confirmed by simulation.

    [bold]Examples[/bold]

      tierserve plan service.yaml --connections 5000 --think 20s

      tierserve plan service.yaml --rate 40 -o json

      tierserve plan examples/stores.yaml --connections 2000 --think 20s --best

      tierserve plan service.yaml --sweep 1..500000 --out plan.png

      tierserve plan examples/stores.yaml --trace azure-code --copies 10 --tier cloud

      tierserve plan service.yaml --trace week.csv --confirm

      tierserve plan examples/llama7b-paper.yaml --pooled
    """
    _one_of({"--connections": connections, "--rate": rate, "--sweep": sweep, "--trace": trace})
    _one_of({"--best": best or None, "--pooled": pooled or None, "--sweep": sweep, "--trace": trace})
    _one_of({"--think": think, "--trace": trace})
    simulated = "--no-confirm" if confirm is False else "--confirm"
    _only_with_trace(trace, {"--copies": copies, "--tier": tier, simulated: confirm})
    gaid = read(file)
    try:
        if trace is not None:
            from tierserve.cli.plan.trace import plan_trace

            many = 1 if copies is None else copies
            plan_trace(file, gaid, trace, copies=many, tier=tier, confirm=confirm, output=output)
        elif pooled:
            _pooled(gaid, connections, output)
        elif best:
            _best(file, gaid, _demand(connections, rate, think), output)
        elif sweep is not None:
            picture = Picture(out, Path("out") / f"plan-{gaid.name}.png")
            _sweep(gaid, _range(sweep), _think(think), picture, output)
        else:
            _plan(gaid, _demand(connections, rate, think), output)
    except ValidationFailed as error:
        raise invalid(file, error.problems) from error


def _plan(gaid: GenAIDeployment, demand: Demand, output: str) -> None:
    from tierserve.cli.plan import json_output as plan_json
    from tierserve.cli.plan import table as plan_tables
    from tierserve.plan.capacity import make_plan
    from tierserve.plan.placement import place

    result = make_plan(gaid, demand, place(gaid))
    if output != "table":
        emit(plan_json.of_plan(gaid, result), output)
    else:
        plan_tables.show_plan(console(), gaid, result)


def _best(file: Path, gaid: GenAIDeployment, demand: Demand, output: str) -> None:
    from tierserve.cli.plan import best as plan_best
    from tierserve.cli.plan import json_output as plan_json
    from tierserve.plan.allocation.baseline import beside
    from tierserve.plan.allocation.closed_loop import best_for
    from tierserve.plan.allocation.types import Infeasible

    with quiet():
        found = best_for(gaid, demand)
    if isinstance(found, Infeasible):
        if output != "table":
            emit(plan_json.of_infeasible(gaid, demand, found), output)
            raise typer.Exit(1)
        raise UserError(f"{file}: {found.reason}", found.hint, code=1)
    other = beside(gaid, demand, found)
    if output != "table":
        emit(plan_json.of_best(gaid, demand, found, other), output)
    else:
        plan_best.show_best(console(), gaid, demand, found, other)


def _pooled(gaid: GenAIDeployment, connections: str | None, output: str) -> None:
    from tierserve.cli.plan import json_output as plan_json
    from tierserve.cli.plan import table as plan_tables
    from tierserve.plan.paper import pooled

    tiers = pooled(gaid, None if connections is None else _number("--connections", connections))
    if output != "table":
        emit(plan_json.of_pooled(gaid, tiers), output)
    else:
        plan_tables.show_pooled(console(), gaid, tiers)


def _sweep(
    gaid: GenAIDeployment, span: tuple[float, float], think_s: float | None, picture: Picture, output: str
) -> None:
    from tierserve.cli.plan import json_output as plan_json
    from tierserve.cli.plan import table as plan_tables
    from tierserve.cli.plan.picture import draw
    from tierserve.plan.sweep import sweep

    result = sweep(gaid, *span, think_s=think_s)
    picture.draw(lambda path: draw(gaid, result, path))
    if output != "table":
        emit(plan_json.of_sweep(gaid, result, picture.written), output)
    else:
        plan_tables.show_sweep(console(), gaid, result, picture.written)
    picture.report()


def _demand(connections: str | None, rate: str | None, think: str | None) -> Demand:
    from tierserve.plan.capacity import Demand

    if rate is not None:
        if think is not None:
            raise UserError("--think: cannot be combined with --rate", "use --connections, or leave --think out")
        return Demand(rate=_number("--rate", rate))
    return Demand(connections=_number("--connections", connections or "1000"), think_s=_think(think))


def _one_of(given: dict[str, str | bool | None]) -> None:
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise UserError(f"{' and '.join(names)}: cannot be combined", f"give only {names[0]}")


def _only_with_trace(trace: str | None, given: dict[str, str | int | bool | None]) -> None:
    for name, value in given.items():
        if trace is None and value is not None:
            raise UserError(f"{name}: requires --trace", f"give --trace, or leave {name} out")


def _number(option: str, text: str) -> float:
    try:
        value = float(text.replace(",", "").replace("_", ""))
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= MOST_CONNECTIONS:
        raise UserError(f"{option}: must be a number from 0 to 1e12 ({text!r})", f"for example {option} 5000")
    return value


def _think(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return Duration(text).value
    except ValueError as error:
        raise UserError(f"--think: must be a duration ({text!r})", "for example --think 20s, 500ms or 2m") from error


def _range(text: str) -> tuple[float, float]:
    first, dots, last = text.partition("..")
    if not dots:
        raise UserError(f"--sweep: must be a range ({text!r})", "for example --sweep 1..500000")
    span = _number("--sweep", first), _number("--sweep", last)
    if not 0.0 < span[0] < span[1]:
        raise UserError(f"--sweep: must start above 0 and rise ({text!r})", "for example --sweep 1..500000")
    return span
