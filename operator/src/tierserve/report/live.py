"""The screen during a run: one line per step, the running one in bold, and text that the device's model generates."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tierserve.loadgen.runner import Progress
from tierserve.loadgen.samples import Outcome, Row
from tierserve.loadgen.summary import quantile
from tierserve.report.figures import pool_label
from tierserve.report.record import PoolPoint

WINDOW_S = 4.0  # of predictions shown


@dataclass(slots=True)
class Line:
    """One step as it is shown; NaN where nothing is known yet."""

    name: str
    warm: bool
    rate: float
    p95_s: float
    predicted_s: float
    within: float
    errors: int
    replicas: tuple[tuple[int, int], ...]


@dataclass(slots=True)
class LiveView:
    """Shows `Progress` and the pools beside it; on a screen as a table that moves, else as a line per step.

    Args:
        pools: gives the points per pool so far, with unix times.
        traffic: name of the traffic that is shown.
        target_s: its objective.
    """

    console: Console
    pools: Callable[[], Mapping[str, Sequence[PoolPoint]]]
    traffic: str
    target_s: float
    lines: list[Line] = field(default_factory=list)
    said: tuple[str, str] = ("", "")
    _live: Live | None = None
    _shown: int = 0
    _index: int = -1

    def __enter__(self) -> LiveView:
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        elif self.lines:
            self._print_lines(len(self.lines))

    def say(self, question: str, answer: str) -> None:
        """Show what a model answered."""
        self.said = (question, " ".join(answer.split()))

    def update(self, now: Progress) -> None:
        """Take a new state and draw it."""
        line = step_line(now, self.traffic, self.target_s, self.pools())
        if now.index != self._index:
            self._index = now.index
            self._print_lines(len(self.lines))
            self.lines.append(line)
        self.lines[-1] = line
        if self._live is not None:
            self._live.update(self._screen(now), refresh=True)

    def _screen(self, now: Progress) -> Group:
        bar = Table.grid(padding=(0, 2))
        bar.add_row(
            ProgressBar(total=now.duration_s, completed=now.elapsed_s, width=42),
            Text(
                f"{now.elapsed_s:.0f} of {now.duration_s:.0f} s   {now.in_flight} under way   {now.requests:,} answered"
            ),
        )
        parts: list[Table | Text] = [self._table(), bar]
        if self.said[1]:
            words = textwrap.shorten(self.said[1], 110, placeholder=" …")
            parts.append(Text.assemble(("\non the device  ", "magenta"), (self.said[0] + "  ", "dim"), words))
        return Group(*parts)

    def _table(self) -> Table:
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("connections")
        names = [pool_label(name) for name in self.pools()]
        target = f"p95 (target {self.target_s * 1e3:.0f})"
        for column in ("requests/s", target, "predicted", "within", "errors", *(f"{name} replicas" for name in names)):
            table.add_column(column, justify="right", no_wrap=True)
        for i, line in enumerate(self.lines):
            style = "bold" if i == len(self.lines) - 1 else ""
            table.add_row(line.name + (" …" if line.warm else ""), *self._cells(line), style=style)
        return table

    def _cells(self, line: Line) -> list[str | Text]:
        colour = "" if math.isnan(line.p95_s) else "green" if line.p95_s <= self.target_s else "red"
        counts = [f"{have}" if have == want else f"{have} → {want}" for have, want in line.replicas]
        share = "-" if math.isnan(line.within) else f"{line.within:.1%}"
        return [f"{line.rate:.1f}", Text(_ms(line.p95_s), style=colour), _ms(line.predicted_s), share,
                f"{line.errors}", *counts]  # fmt: skip

    def _print_lines(self, upto: int) -> None:
        """Where the screen cannot move: each step once, when it is over."""
        for line in self.lines[self._shown : upto] if self._live is None else ():
            names = [pool_label(name) for name in self.pools()]
            counts = ", ".join(f"{name} {have}" for name, (have, _) in zip(names, line.replicas, strict=False))
            self.console.print(
                f"  {line.name:>10}  {line.rate:6.1f} requests/s  p95 {_ms(line.p95_s)}, predicted "
                f"{_ms(line.predicted_s)}  within {line.within:.1%}  errors {line.errors}  replicas {counts}",
                highlight=False, soft_wrap=True,
            )  # fmt: skip
        self._shown = max(self._shown, upto)


def step_line(now: Progress, traffic: str, target_s: float, pools: Mapping[str, Sequence[PoolPoint]]) -> Line:
    """The running step: its steady part once that has begun, else its warm-up so far."""
    rows = _rows_of(now, traffic)
    warm = not math.isfinite(now.steady_from_s)
    since = now.step_start_s if warm else now.steady_from_s
    mine = [row for row in rows if row.intended >= since]
    good = [row.end - row.intended for row in mine if row.outcome is Outcome.OK]
    return Line(
        name=now.step.name,
        warm=warm,
        rate=len(good) / max(1.0, now.elapsed_s - since),
        p95_s=quantile(np.array(good), 0.95),
        predicted_s=mixed_prediction(pools, {row.pool for row in mine}),
        within=sum(value <= target_s for value in good) / len(mine) if mine else math.nan,
        errors=len(mine) - len(good),
        replicas=tuple((p[-1].replicas, p[-1].desired or p[-1].replicas) if p else (0, 0) for p in pools.values()),
    )


def mixed_prediction(pools: Mapping[str, Sequence[PoolPoint]], serving: set[str]) -> float:
    """Prediction of the pools that serve, weighted by their arrivals; medians of the last `WINDOW_S`."""
    weighted = []
    for name in serving & pools.keys():
        points = pools[name]
        last = [p for p in points[-20:] if p.t >= points[-1].t - WINDOW_S and p.predicted_p95_s is not None]
        if last:
            rate = statistics.median(p.rate or 0.0 for p in last)
            weighted.append((max(rate, 1e-6), statistics.median(p.predicted_p95_s or 0.0 for p in last)))
    total = sum(weight for weight, _ in weighted)
    return sum(weight * value for weight, value in weighted) / total if total else math.nan


def _rows_of(now: Progress, traffic: str) -> list[Row]:
    """Rows of the running step; they stand at the end of the list."""
    found: list[Row] = []
    for row in reversed(now.rows):
        if row.step < now.index - 1 or (row.step < now.index and row.end < now.step_start_s - 5):
            break
        if row.step == now.index and row.traffic == traffic:
            found.append(row)
    return found


def _ms(value_s: float) -> str:
    return "-" if math.isnan(value_s) else f"{value_s * 1e3:.0f} ms"
