"""`tierserve load`: ask a service as many users would, and show what they waited."""

from __future__ import annotations

import asyncio
import math
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from tierserve.cli.errors import UserError
from tierserve.load.plan import (
    DEFAULT_PROMPT,
    ClosedLoop,
    LoadError,
    LoadPlan,
    Step,
    Traffic,
    connection_steps,
    rate_steps,
    replay_step,
)
from tierserve.load.units import counts, rates, seconds, traffic_fields

if TYPE_CHECKING:
    from tierserve.load.run import Progress
    from tierserve.load.summary import LoadResult, Summary

INTERRUPTED = 130
PIPED_WIDTH = 120


def load(
    url: Annotated[str, typer.Argument(help="Base address of the service, for example http://127.0.0.1:8080")],
    *,
    connections: Annotated[
        str | None, typer.Option(help="Closed loop: users that wait for their answer; steps 1,2,4,8 or doubling 1..128")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(help="Open loop: requests per second; steps 5,10,20 or a ramp 1..50")
    ] = None,
    trace: Annotated[
        str | None, typer.Option(help="Replay azure-code, mooncake-conversation or a CSV file of such columns")
    ] = None,
    duration: Annotated[str, typer.Option(help="Length of each step")] = "20s",
    warmup: Annotated[str | None, typer.Option(help="First part of each step that is not judged [40% of it]")] = None,
    think: Annotated[str, typer.Option(help="Closed loop: pause between answer and next question")] = "0s",
    arrivals: Annotated[str, typer.Option(help="Open loop: poisson or constant")] = "poisson",
    time_scale: Annotated[float, typer.Option(help="Trace: replay so many times as fast")] = 1.0,
    start: Annotated[str, typer.Option(help="Trace: where the piece begins")] = "0s",
    length: Annotated[str | None, typer.Option(help="Trace: length of the piece, in its own time [to its end]")] = None,
    token_scale: Annotated[float, typer.Option(help="Trace: multiply its tokens")] = 1.0,
    max_input: Annotated[int, typer.Option(help="Trace: most tokens of a prompt")] = 2048,
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens of an answer")] = None,
    model: Annotated[str | None, typer.Option(help="Model asked for [the first the service lists]")] = None,
    klass: Annotated[str | None, typer.Option("--class", help="Class of the traffic (X-TierServe-Class)")] = None,
    prompt: Annotated[str, typer.Option(help="What is asked (closed and open loop)")] = DEFAULT_PROMPT,
    stream: Annotated[bool, typer.Option(help="Ask for a stream; measures first token and gaps")] = False,
    also: Annotated[
        list[str] | None, typer.Option(help="Traffic beside it: class=personal,connections=1,think=2s (repeatable)")
    ] = None,
    slo: Annotated[str | None, typer.Option(help="Objective of the response time; failures are misses")] = None,
    timeout: Annotated[str, typer.Option(help="Give a request up after")] = "60s",
    max_requests: Annotated[int, typer.Option(help="Bound of all requests")] = 1_000_000,
    max_in_flight: Annotated[int, typer.Option(help="Bound of requests under way (open loop)")] = 15_000,
    seed: Annotated[int, typer.Option(help="Of the arrivals and think times")] = 1,
    samples: Annotated[Path | None, typer.Option(help="Write every request to this CSV file")] = None,
    output: Annotated[str, typer.Option("-o", "--output", help="table or json")] = "table",
    allow_remote: Annotated[bool, typer.Option(help="Allow a service that is not on this machine")] = False,
) -> None:
    """Ask a service as many users would, and show what they waited.

    Give one of --connections, --rate or --trace. Latency counts from when a request was *meant* to start, so a service
    that stalls cannot hide those it made wait.
    """
    if output not in ("table", "json"):
        raise UserError(f"output {output!r} is unknown", "choose table or json")
    try:
        traffic = Traffic(klass or "users", ClosedLoop(0), klass, (prompt,), max_tokens, stream)
        beside = tuple(_beside(text, i) for i, text in enumerate(also or []))
        shape = _Shape(connections, rate, trace, duration, warmup, think, arrivals)
        piece = _Piece(time_scale, start, length, token_scale, max_input, max_tokens, seed)
        plan = LoadPlan(
            url, _steps(shape, piece, traffic, beside), slo_s=seconds(slo) if slo else None, model=model,
            timeout_s=seconds(timeout), max_requests=max_requests, max_in_flight=max_in_flight, seed=seed,
            allow_remote=allow_remote,
        )  # fmt: skip
        result = _run(plan)
    except LoadError as error:
        raise UserError(error.message, error.mend) from error
    if samples:
        result.samples.write_csv(samples, result.t0_unix, [step.name for step in plan.steps])
    if output == "json":
        sys.stdout.write(result.to_json().decode() + "\n")
    else:
        _show(result, samples)
    if result.stopped == "stopped by hand":
        raise typer.Exit(INTERRUPTED)


@dataclass(frozen=True)
class _Shape:
    connections: str | None
    rate: str | None
    trace: str | None
    duration: str
    warmup: str | None
    think: str
    arrivals: str


@dataclass(frozen=True)
class _Piece:
    time_scale: float
    start: str
    length: str | None
    token_scale: float
    max_input: int
    max_output: int | None
    seed: int


def _steps(shape: _Shape, piece: _Piece, traffic: Traffic, beside: tuple[Traffic, ...]) -> tuple[Step, ...]:
    given = [value for value in (shape.connections, shape.rate, shape.trace) if value is not None]
    if len(given) != 1:
        raise UserError("give one of --connections, --rate or --trace", "for example --connections 1,2,4,8")
    length = seconds(shape.duration)
    warmup = seconds(shape.warmup) if shape.warmup else 0.4 * length
    if shape.connections:
        return connection_steps(
            counts(shape.connections), length, warmup_s=warmup, traffic=traffic, beside=beside,
            think_s=seconds(shape.think),
        )  # fmt: skip
    if shape.rate:
        loops = rates(shape.rate, shape.arrivals)
        return rate_steps(loops, length, warmup_s=warmup, traffic=traffic, beside=beside)
    return (_replay(str(shape.trace), piece, traffic, beside, seconds(shape.warmup) if shape.warmup else 0.0),)


def _replay(name: str, piece: _Piece, traffic: Traffic, beside: tuple[Traffic, ...], warmup_s: float) -> Step:
    from tierserve.load.traces import load_trace

    length = seconds(piece.length) if piece.length else None
    trace = load_trace(name, seed=piece.seed).piece(seconds(piece.start), length).compressed(piece.time_scale)
    capped = trace.capped(max_input=piece.max_input, max_output=piece.max_output, scale=piece.token_scale)
    return replay_step(capped, traffic=traffic, warmup_s=warmup_s, beside=beside)


def _beside(text: str, index: int) -> Traffic:
    given = traffic_fields(text)
    users = counts(given.get("connections", "1"))[0]
    open_loop = rates(given["rate"], "poisson")[0] if "rate" in given else None
    return Traffic(
        name=given.get("name", given.get("class", f"also-{index + 1}")),
        loop=open_loop or ClosedLoop(users, seconds(given.get("think", "0"))),
        klass=given.get("class"),
        prompts=(given.get("prompt", DEFAULT_PROMPT),),
        max_tokens=int(given["max-tokens"]) if "max-tokens" in given else None,
        streamed=given.get("stream", "no") in ("yes", "true", "1"),
        slo_s=seconds(given["slo"]) if "slo" in given else None,
    )


def _run(plan: LoadPlan) -> LoadResult:
    """Run with a bar; the first Ctrl-C ends early with what was measured, a second one at once."""
    from tierserve.load.run import run_load

    async def main() -> LoadResult:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, _on_interrupt, loop, stop)
        with _bar() as bar:
            task = bar.add_task("", total=plan.duration_s, figures="")

            def show(now: Progress) -> None:
                figures = f"{now.in_flight} in flight  {now.rate:.1f}/s  p95 {_ms(now.p95_s)}  {now.errors} errors"
                description = f"step {now.index + 1}/{now.steps}  {now.step.name}"
                bar.update(task, completed=now.elapsed_s, description=description, figures=figures)

            return await run_load(plan, show, stop=stop)

    return asyncio.run(main())


def _on_interrupt(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    loop.remove_signal_handler(signal.SIGINT)
    stop.set()


def _bar() -> Bar:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    return Bar(*columns, console=Console(stderr=True), transient=True)


def _show(result: LoadResult, samples: Path | None) -> None:
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, soft_wrap=True)
    console.print(table(result))
    total = result.total()
    kind = "closed loop: each user waits for its answer before it asks again, so a slow service is asked less"
    if result.plan.is_open:
        kind = "open loop: requests start at their own times; latency counts from the intended start"
    console.print(f"{total.requests:,} requests, {total.errors:,} failed; {kind}.", style="dim")
    if result.lag_s > 0.1:
        console.print(f"The generator was up to {_ms(result.lag_s)} late: this machine is short of CPU", style="yellow")
    for note in (result.stopped, samples and f"every request is in {samples}"):
        if note:
            console.print(str(note), style="dim")


def table(result: LoadResult) -> Table:
    """One line per step and, below it, per pool where there are several."""
    slo = result.plan.slo_s
    rich = Table(title=f"{result.plan.url}, steady part of each step", title_justify="left", box=SIMPLE_HEAD)
    heads = ("step", "requests", "requests/s", "p50", "p95", "p99", "TTFT p95")
    for i, name in enumerate((*heads, f"within {_ms(slo)}" if slo else "within SLO", "errors")):
        rich.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
    for step in result.steps:
        rich.add_row(step.name + ("" if step.complete else " (cut)"), *_cells(step.all))
        parts = step.by_traffic if len(step.by_traffic) > 1 else {}
        for name, summary in {**parts, **{f"pool {n}": s for n, s in step.by_pool.items() if n}}.items():
            rich.add_row(f"  {name}", *_cells(summary), style="dim")
    return rich


def _cells(s: Summary) -> tuple[str, ...]:
    share = "-" if math.isnan(s.within_slo) else f"{s.within_slo:.1%}"
    kinds = ", ".join(f"{count} {kind}" for kind, count in s.errors_by_kind.items())
    return (f"{s.requests:,}", f"{s.rate:.1f}", _ms(s.p50_s), _ms(s.p95_s), _ms(s.p99_s), _ms(s.first_token_p95_s),
            share, kinds or "0")  # fmt: skip


def _ms(value_s: float) -> str:
    if math.isnan(value_s):
        return "-"
    return f"{value_s * 1e3:.0f} ms" if value_s < 10 else f"{value_s:.1f} s"
