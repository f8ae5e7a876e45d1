"""Every formula of tierserve.queueing compared with its reference: `make bench-truth`, or python -m
bench.queueing.truth.

Shows each setting (truth_rows.py), then the worst error of each formula and the bound of its docstring, and
ends with status 1 if a bound is exceeded. The same seeds each time; a minute.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench.queueing import truth_rows as rows_of
from bench.queueing.truth_rows import Row

SECTIONS = (
    rows_of.erlang, rows_of.constant_response, rows_of.hayward, rows_of.general, rows_of.counted, rows_of.pooled,
    rows_of.pooled_tokens, rows_of.bounded, rows_of.routed, rows_of.closed, rows_of.heavy, rows_of.batch,
)  # fmt: skip

EXACT = (-1e-6, 1e-6)
WAIT, MEAN, RESPONSE, C_Z = "P(wait)", "mean wait, in services", "mean response", "mean wait, C z / (c - a)"
STATED: dict[str, dict[str, tuple[float, float]]] = {
    "erlang_c, M/M/c": {WAIT: (-0.01, 0.01)},
    "mean_wait, M/M/c": {"mean wait": (-0.01, 0.01)},
    "wait_quantile, M/M/c": {"p95 of the wait": (-0.01, 0.01)},
    "response_quantile, M/M/c": {"p95 of the response": (-0.01, 0.01)},
    "response_quantile, service_quantile_s": {"p95 of the response": (0.25, 0.95)},
    "hayward_c, c = 4": {WAIT: (-0.17, 0.0), C_Z: (-0.46, 0.0)},
    "hayward_c, c = 16": {WAIT: (-0.10, 0.0), C_Z: (-0.19, 0.03)},
    "hayward_c, c = 64": {WAIT: (-0.045, 0.001), C_Z: (-0.23, 0.25)},
    "hayward_c, long bursts": {WAIT: (-0.18, 0.0), C_Z: (-0.58, 0.0)},
    "mean_wait_general, cs2 <= 4": {"mean wait": (-0.043, 0.025)},
    "mean_wait_general, cs2 = 9": {"mean wait": (-0.23, 1e-6)},
    "peakedness": {"z, constant service": (-0.01, 0.01)},
    "(peakedness + 1) / 2, short bursts": {"z, exponential service": (-0.01, 0.01)},
    "peakedness, long bursts": {"z, exponential service": (0.0, 0.5)},
    "batch_queue, central, alone": {WAIT: EXACT, MEAN: EXACT, "mean service": EXACT, RESPONSE: EXACT},
    "batch_queue, central, profile": {
        WAIT: (-0.001, 1e-6), MEAN: (-0.001, 1e-6), "mean service": (-0.002, 0.0), RESPONSE: (-0.002, 0.0)
    },
    "batch_queue, central, steep": {
        WAIT: (-0.009, 1e-6), MEAN: (-0.01, 1e-6), "mean service": (-0.026, 0.0), RESPONSE: (-0.026, 0.0)
    },
    "batch_queue, shortest, alone": {
        WAIT: (0.0, 0.04), MEAN: (-0.08, 0.0), "mean service": EXACT, RESPONSE: (-0.053, 0.0)
    },
    "batch_queue, shortest, profile": {
        WAIT: (0.0, 0.04), MEAN: (-0.08, 0.0), "mean service": (-0.002, 0.0), RESPONSE: (-0.053, 0.0)
    },
    "batch_queue, shortest, steep": {
        WAIT: (0.0, 0.04), MEAN: (-0.08, 0.0), "mean service": (-0.026, 0.0), RESPONSE: (-0.053, 0.0)
    },
    "batch_queue, central, step by step": {RESPONSE: (0.0, 0.015)},
    "batch_queue, shortest, step by step": {RESPONSE: (0.0, 0.015)},
    "loss_queue, one replica": {"P(loss)": EXACT, WAIT: EXACT, RESPONSE: EXACT},
    "loss_queue, alone": {"P(loss)": EXACT, WAIT: EXACT, RESPONSE: EXACT},
    "loss_queue, profile": {"P(loss)": (-0.001, 1e-6), WAIT: (-0.001, 1e-6), RESPONSE: (-0.002, 0.0)},
    "loss_queue, steep": {"P(loss)": (-0.004, 1e-6), WAIT: (-0.009, 1e-6), RESPONSE: (-0.026, 0.0)},
    "power_of_choices, few": {WAIT: (-0.18, 0.0), "mean wait": (-0.97, -0.4)},
    "power_of_choices, 8 to 32": {WAIT: (-0.07, 0.02), "mean wait": (-0.92, 0.0)},
    "power_of_choices, 100": {WAIT: (-0.0155, 0.015), "mean wait": (-0.4, 0.0)},
    "closed_rate, c = 1": {"rate": (-0.35, 0.0), RESPONSE: (0.0, 0.79)},
    "closed_rate, c = 4": {"rate": (-0.18, 0.0), RESPONSE: (0.0, 0.3)},
    "closed_rate, c = 16": {"rate": (-0.09, 0.0), RESPONSE: (0.0, 0.17)},
    "closed_rate, c = 64": {"rate": (-0.045, 1e-9), RESPONSE: (-1e-9, 0.11)},
    "halfin_whitt, a = 10": {WAIT: (-0.041, 0.0)},
    "halfin_whitt, a = 100": {WAIT: (-0.014, 0.0)},
    "halfin_whitt, a = 10000": {WAIT: (-0.0015, 0.0)},
    "halfin_whitt, a = 1e+06": {WAIT: (-0.00015, 0.0)},
    "BatchProfile.rate": {"requests per second": (-0.001, 0.001)},
    "BatchProfile.mean_service_time": {"rate, of the predicted": (-0.005, 0.002)},
}  # fmt: skip
"""Least and largest error by formula and figure, as in the docstrings; the interval of a simulation is added."""


def worst(rows: Iterable[Row]) -> dict[tuple[str, str], tuple[Row, Row]]:
    """By formula and figure, the rows of the least and of the largest error."""
    found: dict[tuple[str, str], tuple[Row, Row]] = {}
    for row in rows:
        low, high = found.get((row.formula, row.figure), (row, row))
        found[row.formula, row.figure] = min(low, row, key=lambda r: r.error), max(high, row, key=lambda r: r.error)
    return found


def broken(rows: Iterable[Row]) -> list[str]:
    """Bounds that these rows exceed."""
    out = []
    for row in rows:
        low, high = STATED[row.formula][row.figure]
        if not low - row.noise <= row.error <= high + row.noise:
            out.append(
                f"{row.formula}, {row.figure}, {row.setting}: {row.error:+.4f} is outside {low:+g} ... {high:+g}"
            )
    return out


def amount(row: Row, value: float) -> str:
    return f"{value:+.1%}" if row.relative else f"{value:+.4f}"


def show(title: str, rows: list[Row], console: Console) -> None:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for name in ("formula", "setting", "figure"):
        table.add_column(name)
    for name in ("predicted", "truth", "+-", "error"):
        table.add_column(name, justify="right")
    for r in rows:
        half = f"{r.half:.4f}" if r.half else ""
        table.add_row(r.formula, r.setting, r.figure, f"{r.predicted:.4f}", f"{r.truth:.4f}", half, amount(r, r.error))
    console.print(table)


def show_worst(rows: list[Row], console: Console) -> None:
    table = Table(title="errors of each formula", title_justify="left", box=SIMPLE_HEAD)
    for name in ("formula", "figure"):
        table.add_column(name)
    for name in ("least", "largest", "stated"):
        table.add_column(name, justify="right")
    for (formula, figure), (low, high) in worst(rows).items():
        words = " ... ".join(amount(low, x) for x in STATED[formula][figure])
        table.add_row(formula, figure, amount(low, low.error), amount(high, high.error), words)
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/bench-queueing-truth.json"), help="where the figures go")
    parser.add_argument("--only", nargs="*", choices=[s.__name__ for s in SECTIONS], help="some sections only")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    rows: list[Row] = []
    for section in SECTIONS:
        if arguments.only is None or section.__name__ in arguments.only:
            new = list(section())
            show(section.__name__.replace("_", " "), new, console)
            rows += new
    show_worst(rows, console)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps([asdict(r) | {"error": r.error} for r in rows], indent=2) + "\n")
    print(f"figures: {arguments.out}")
    problems = broken(rows)
    for problem in problems:
        print(f"bound broken: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
