"""What `tierserve load` does; apart from its options, since numpy and aiohttp take a second to import."""

from __future__ import annotations

import asyncio
import math
import signal
import sys
from pathlib import Path

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from tierserve.cli.errors import UserError
from tierserve.cli.loadgen.options import Options
from tierserve.cli.output import emit
from tierserve.loadgen.errors import LoadError
from tierserve.loadgen.runner import Progress, run_load
from tierserve.loadgen.scenario import (
    DEFAULT_PROMPT,
    ClosedLoop,
    LoadPlan,
    Step,
    Traffic,
    connection_steps,
    rate_steps,
    replay_step,
)
from tierserve.loadgen.summary import LoadResult, Summary
from tierserve.loadgen.traces import load_trace
from tierserve.loadgen.units import counts, header, rates, seconds, traffic_fields

INTERRUPTED = 130
PIPED_WIDTH = 120


def execute(given: Options) -> None:
    """Make the load, write the samples, show the figures.

    Raises:
        UserError: an option that cannot be, or a load that cannot be made.
    """
    try:
        plan = _plan(given)
        result = _run(plan)
    except LoadError as error:
        raise UserError(error.message, error.hint, error.exit_code) from error
    if given.samples:
        result.samples.write_csv(given.samples, result.t0_unix, [step.name for step in plan.steps])
    if given.output != "table":
        emit(result.to_dict(), given.output)
    else:
        _show(result, given.samples)
    if result.stopped == "stopped by hand":
        raise typer.Exit(INTERRUPTED)


def _plan(given: Options) -> LoadPlan:
    prompt = given.prompt or DEFAULT_PROMPT
    traffic = Traffic(given.klass or "users", ClosedLoop(0), given.klass, (prompt,), given.max_tokens, given.stream)
    beside = tuple(_beside(text, i) for i, text in enumerate(given.also))
    return LoadPlan(
        given.url, _steps(given, traffic, beside), slo_s=seconds(given.slo) if given.slo else None, model=given.model,
        timeout_s=seconds(given.timeout), max_requests=given.max_requests, max_in_flight=given.max_in_flight,
        seed=given.seed, allow_remote=given.allow_remote, headers=_headers(given), cacert=given.cacert,
        insecure=given.insecure,
    )  # fmt: skip


def _headers(given: Options) -> tuple[tuple[str, str], ...]:
    """The headers of all requests; one that is written out replaces the key's."""
    headers = tuple(header(text) for text in given.headers)
    if not given.api_key or any(name.lower() == "authorization" for name, _ in headers):
        return headers
    return (header(f"Authorization: Bearer {given.api_key}"), *headers)


def _steps(given: Options, traffic: Traffic, beside: tuple[Traffic, ...]) -> tuple[Step, ...]:
    chosen = [value for value in (given.connections, given.rate, given.trace) if value is not None]
    if len(chosen) != 1:
        raise UserError("--connections, --rate, --trace: one is required", "for example --connections 1,2,4,8")
    length = seconds(given.duration)
    warmup = seconds(given.warmup) if given.warmup else 0.4 * length
    if given.connections:
        return connection_steps(
            counts(given.connections), length, warmup_s=warmup, traffic=traffic, beside=beside,
            think_s=seconds(given.think),
        )  # fmt: skip
    if given.rate:
        loops = rates(given.rate, given.arrivals)
        return rate_steps(loops, length, warmup_s=warmup, traffic=traffic, beside=beside)
    return (_replay(str(given.trace), given, traffic, beside),)


def _replay(name: str, given: Options, traffic: Traffic, beside: tuple[Traffic, ...]) -> Step:
    length = seconds(given.length) if given.length else None
    trace = load_trace(name, seed=given.seed).piece(seconds(given.start), length).compressed(given.time_scale)
    capped = trace.capped(max_input=given.max_input, max_output=given.max_tokens, scale=given.token_scale)
    warmup_s = seconds(given.warmup) if given.warmup else 0.0
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
