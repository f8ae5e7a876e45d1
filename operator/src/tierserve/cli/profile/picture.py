"""The plot of `tierserve profile`: response time over batch, measured and fitted, one line per size of request."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from tierserve.cli.profile.result import Profiled

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # Okabe and Ito: told apart by all eyes


def draw(done: Profiled, path: Path) -> None:
    """Draw response and throughput into `path` (PNG, SVG or PDF by its ending)."""
    sizes: dict[tuple[int, int], list[int]] = {}
    for k, one in enumerate(done.cells):
        sizes.setdefault((round(one.cell.input), round(one.cell.output)), []).append(k)
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(9.5, 4.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        for colour, ((i, o), rows) in zip(COLOURS * 8, sizes.items(), strict=False):
            cells = [done.cells[k].cell for k in rows]
            batches = [cell.batch for cell in cells]
            line = np.linspace(min(batches), max(batches), 100)
            fitted = np.array([done.fit.profile.service_time(n, cells[0].input, cells[0].output) for n in line])
            left.plot(line, fitted, color=colour, lw=1.5, label=f"prompt {i} + response {o} tokens")
            left.plot(batches, [cell.mean for cell in cells], "o", color=colour, ms=5)
            right.plot(line, line * cells[0].output / fitted, color=colour, lw=1.5)
            right.plot(batches, [cell.tokens_per_s for cell in cells], "o", color=colour, ms=5)
        left.set_ylabel("mean response (s)")
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
        right.set_ylabel("output tokens per second")
        for axes in (left, right):
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.set_xticks(sorted({one.cell.batch for one in done.cells}))
            axes.set_xlabel("requests in the batch")
            axes.set_ylim(bottom=0)
            axes.grid(visible=True, color="#e5e5e5", lw=0.8)
        figure.suptitle(f"{done.model}: measured (points) and fitted (lines)", weight="bold")
        figure.savefig(path, dpi=150)
