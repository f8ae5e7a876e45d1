"""`make demo` and `make demo-vllm`: the tiers of a file on this machine, connections grow, p95 stays flat.

Brings examples/assistant.yaml or another file up through the local runtime, lets connections grow step by step beside
one user of the device, replays a piece of a real trace, and writes one page and one picture. Takes the service down
again, whatever happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import psutil
import typer
from rich.console import Console

from tierserve.cli.errors import UserError
from tierserve.cli.files import check_writable, finite, read
from tierserve.loadgen import (
    ClosedLoop,
    LoadError,
    LoadPlan,
    LoadResult,
    Step,
    Traffic,
    load_trace,
    replay_step,
    run_load,
)
from tierserve.loadgen.units import counts
from tierserve.report import PoolPoint, RunRecord, from_load, headline, write_report
from tierserve.report.live import LiveView
from tierserve.report.record import pool_point
from tierserve.runtime.local.resources import available_memory, cpus
from tierserve.runtime.local.service import LocalService, StartError

if TYPE_CHECKING:
    from tierserve.plan.placement import Placement

EXAMPLE = Path(__file__).resolve().parents[4] / "examples" / "assistant.yaml"
CHAT, PERSONAL = "chat", "personal"
QUESTIONS = (
    "Write one short sentence about the sea.",
    "Name one good thing about rain.",
    "Why do people like music? One sentence.",
    "What is a cloud? One short sentence.",
    "Say something kind in one sentence.",
)
THINK_S = 2.0
# A step is judged once as many replicas serve as the policies want: a replica takes about 1.5 s of a core to start, and
# twice the connections need half of all replicas anew.
WARMUP_S, SETTLE_S, SETTLED_FOR_S = 4.0, 45.0, 2.0
# vLLM imports for minutes where other programs use the cores.
START_TIMEOUT_S = 900.0
TRACE = "azure-code"
TRACE_START_S, TRACE_SCALE = 180.0, 5.0
SAMPLE_EVERY_S = 1.0

# Where the next step would take more than the cores have, it would measure the machine and not the service.
WHOLE_MACHINE = 1.0
BYTES_PER_CONNECTION = 170_000_000 // 16  # a replica of 16 slots
SPARE_BYTES = 600_000_000

console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)


def demo(
    *,
    steps: Annotated[str, typer.Option(help="Connections: a list 1,2,4 or doubling 1..128")] = "1..128",
    step_seconds: Annotated[
        float, typer.Option(min=1.0, callback=finite, help="Steady part of each step; a warm-up comes before it")
    ] = 8.0,
    trace_seconds: Annotated[
        float, typer.Option(min=0.0, callback=finite, help="Length of the trace's piece; 0 leaves it out")
    ] = 25.0,
    file: Annotated[Path, typer.Option(help="The service that is brought up")] = EXAMPLE,
    out: Annotated[Path, typer.Option(help="Folder of page and picture")] = Path("out/demo"),
    keep: Annotated[bool, typer.Option("--keep", help="Leave the service up at the end")] = False,
) -> None:
    """The tiers of a file on this machine: connections grow, replicas are added, p95 stays flat."""
    began = time.monotonic()
    check_writable("--out", out / "index.html")
    service = _service(file)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        _start(service, file)
        run = _Run(service, float(service.status()["objective"]["target_s"]))
        result = asyncio.run(run.load(run.plan(counts(steps), step_seconds, trace_seconds)))
        signal.signal(signal.SIGTERM, _interrupt)  # the event loop took it
        record = run.record(result, file)
        page, picture = write_report(record, out)
        console.print(f"\n[bold]{headline(record)}[/]\n", soft_wrap=True)
        console.print(f"  page     {page}\n  picture  {picture}", soft_wrap=True)
    except LoadError as error:
        raise UserError(error.message, error.hint, error.exit_code) from error
    finally:
        _finish(service, keep)
    console.print(f"  {time.monotonic() - began:.0f} s in all")
    raise typer.Exit(_exit_code(result, record))


def _service(file: Path) -> LocalService:
    """The service of the file, not yet up; one of that name that is up already is somebody's, and stays.

    Raises:
        UserError: no such file, a mistake in it, or the service is up.
    """
    from tierserve.runtime.local.paths import LocalError

    try:
        service = LocalService.named(read(file).name)
    except LocalError as error:
        raise UserError(error.message, error.hint, code=1) from error
    if service.is_supervised():
        name = service.paths.name
        message = f"a service {name} is up already, and the demo would take it down"
        raise UserError(message, f"tierserve down {name}", code=1)
    return service


def _start(service: LocalService, file: Path) -> None:
    from tierserve.plan.placement import PlacementError
    from tierserve.runtime.local.paths import LocalError

    began = time.monotonic()
    console.print(
        f"[bold]{service.paths.name}[/] from {file.name}: starting (about a minute on 2 cores; three with vLLM)"
    )

    def say(words: str) -> None:
        console.print(f"  [dim]{time.monotonic() - began:5.1f} s[/]  {words}", soft_wrap=True)

    try:
        LocalService.up(file, on_progress=say, timeout_s=START_TIMEOUT_S)
    except LocalError as error:
        raise UserError(error.message, error.hint, code=1) from error
    except (PlacementError, StartError) as error:
        raise UserError(str(error), f"the logs are in {service.paths.logs}", code=1) from error
    console.print(f"  [bold green]ready after {time.monotonic() - began:.0f} s at {service.endpoint}[/]\n")


def _finish(service: LocalService, keep: bool) -> None:
    """Take the service down; a second interrupt must not leave it half down."""
    if keep and service.is_supervised():
        console.print(f"  kept up  {service.endpoint}; end it with: tierserve down {service.paths.name}")
        return
    with _uninterrupted():
        service.down()
    console.print("  the service is down; nothing is left running")


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _exit_code(result: LoadResult, record: RunRecord) -> int:
    if result.stopped:
        return 130
    return 1 if record.misses() or not record.connection_steps else 0


@dataclass(slots=True)
class _Run:
    """The load on a service that is up, and what was seen of its pools meanwhile."""

    service: LocalService
    target_s: float
    points: dict[str, list[PoolPoint]] = field(default_factory=dict)
    busy: list[tuple[float, float]] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    judged_from: float = 0.0
    idle_share: float | None = None
    asked: int = 0
    limited: bool = False

    # ---- the load ----

    def plan(self, connections: tuple[int, ...], step_s: float, trace_s: float) -> LoadPlan:
        """Steps of growing connections, then the trace; the device's user beside all of them."""
        me = Traffic(PERSONAL, ClosedLoop(1, THINK_S), PERSONAL, QUESTIONS, keep_text=True)
        me = replace(me, max_tokens=self._tokens("output", device=True))
        # Without a limit the answers of a real model are longer than those that the service was planned for.
        chat = Traffic(CHAT, ClosedLoop(0), CHAT, QUESTIONS, max_tokens=self._tokens("output"))
        steps = [_step(n, step_s, (replace(chat, loop=ClosedLoop(n)), me)) for n in connections]
        if trace_s > 0:
            piece = load_trace(TRACE).piece(TRACE_START_S, trace_s * TRACE_SCALE).compressed(TRACE_SCALE)
            fitting = piece.capped(max_input=self._tokens("input"), max_output=self._tokens("output"))
            steps.append(replay_step(fitting, traffic=chat, warmup_s=0.2 * trace_s, beside=[me]))
        return LoadPlan(self.service.endpoint, tuple(steps), slo_s=self.target_s, timeout_s=30.0)

    def _placements(self) -> Sequence[Placement]:
        from tierserve.api import load
        from tierserve.plan.placement import place

        state = self.service.state()
        return place(load(Path(state.file))) if state is not None else ()

    def _emulates(self) -> bool:
        """Whether an engine of the service is emulated."""
        return any(placement.engine == "emulated" for placement in self._placements())

    def _tokens(self, which: str, *, device: bool = False) -> int:
        """Tokens the service was planned for: a longer answer could not meet the objective on an empty machine."""
        planned = [int(getattr(p, f"{which}_tokens")) for p in self._placements() if (p.kind == "device") == device]
        return max(1, min(planned, default=64))

    async def load(self, plan: LoadPlan) -> LoadResult:
        """Run the plan with the live table."""
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        sampler = loop.create_task(self._sample())
        with LiveView(console, lambda: self.points, CHAT, self.target_s) as view:

            def on_text(_traffic: str, question: str, text: str) -> None:
                self.texts[question] = text
                view.say(question, text)

            result = await run_load(
                plan, view.update, on_text=on_text, admit=self.admit, settled=self.settled, stop=stop
            )
        sampler.cancel()
        return result

    def admit(self, step: Step) -> bool:
        """Whether this machine can hold the step; the trace always may."""
        wanted = next(
            (t.loop.connections for t in step.traffic if isinstance(t.loop, ClosedLoop) and t.name == CHAT), 0
        )
        if self.limited and wanted:
            return False
        why = self._limit(wanted) if wanted else ""
        self.judged_from, self.asked = time.time() + step.warmup_s, wanted
        if why:
            self.limited = True
            note = f"The machine's limit: the steps end below {wanted} connections, since {why}."
            self.notes.append(note)
            console.print(f"[yellow]{note}[/]")
        return not why

    def settled(self) -> bool:
        """Whether every pool has had the replicas it wants for a while."""
        since = time.time() - SETTLED_FOR_S
        last = [p for points in self.points.values() for p in points[-20:] if p.t >= since]
        settled = bool(last) and all(p.desired in (None, p.replicas) for p in last)
        if settled:
            self.judged_from = time.time()
        return settled

    def _limit(self, wanted: int) -> str:
        """Why so many connections would be too many for this machine; nothing if they are not."""
        recent = [share for at, share in self.busy if at >= self.judged_from]
        # A real model takes whole cores for one request, and the same for a batch: its measure is the response time.
        if self.asked and recent and self._emulates():
            used = sum(recent) / len(recent)
            self.idle_share = used if self.idle_share is None else min(self.idle_share, used)
            expected = self.idle_share + (used - self.idle_share) * wanted / self.asked
            if expected > WHOLE_MACHINE:
                return f"{self.asked} took {used:.0%} of {cpus():g} cores, and they would take {expected:.0%}"
        need, free = wanted // 2 * BYTES_PER_CONNECTION + SPARE_BYTES, available_memory()
        if need > free:
            return f"their replicas need about {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free"
        return ""

    # ---- what the pools do meanwhile ----

    async def _sample(self) -> None:
        psutil.cpu_percent()
        seen = 0.0
        while True:
            document = await asyncio.to_thread(self.service.status)
            if float(document.get("time", 0.0)) > seen:
                seen = float(document["time"])
                self._keep(document)
            # Of the CPUs that this process may use, which may be fewer than the machine's.
            share = psutil.cpu_percent() / 100 * (os.cpu_count() or 1) / cpus()
            self.busy.append((time.time(), share))
            await asyncio.sleep(SAMPLE_EVERY_S / 2)

    def _keep(self, document: dict[str, Any]) -> None:
        for pool in document.get("status", {}).get("pools", []):
            point = pool_point(pool, float(document["time"]), self.target_s)
            if point is not None:
                self.points.setdefault(pool["pool"], []).append(point)

    def record(self, result: LoadResult, file: Path) -> RunRecord:
        """The run for the report."""
        points = {name: [replace(p, t=p.t - result.t0_unix) for p in points] for name, points in self.points.items()}
        return from_load(
            result, points, title=f"{self.service.paths.name}: {len(points)} tiers on one machine, connections grow",
            traffic=CHAT, target_s=self.target_s, machine=machine(), notes=tuple(self.notes), texts=self._best_texts(),
            sources=(load_trace(TRACE).source,) if any(s.name == TRACE for s in result.steps) else (),
        )  # fmt: skip

    def _best_texts(self) -> tuple[tuple[str, str], ...]:
        return tuple((question, " ".join(text.split())) for question, text in list(self.texts.items())[:3])


def _step(connections: int, steady_s: float, traffic: tuple[Traffic, ...]) -> Step:
    return Step(f"{connections}", WARMUP_S + steady_s, traffic, WARMUP_S, SETTLE_S)


def machine() -> str:
    """This machine in a few words."""
    memory = psutil.virtual_memory().total / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"


def main() -> None:
    """Entry point of `python -m tierserve.cli.demo`."""
    try:
        typer.run(demo)
    except UserError as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(error.code)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
