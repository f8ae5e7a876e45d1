"""One load: a table of rules, and a picture of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib

from bench.robust.judge import CHEAPEST, ORACLE, OUT, Row, judge_rule, per_minute, run_rule
from bench.robust.loads import Load
from tierserve.simulate.run import Result

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

HINDSIGHT = (CHEAPEST, ORACLE)


def show(load: Load, names: Sequence[str]) -> list[Row]:
    """Print the load and a row per rule, draw each, and return the rows."""
    print(f"{load.name}: {load.about}")
    print(f"{len(load.workload)} requests, judged from {load.judged_from_s:.0f} to {load.judged_to_s:.0f} s\n")
    print(f"{'rule':16} {'share':>8}  met {'GPU-hours':>10} {'/fixed':>7} {'turns/h':>8} {'worst min':>9} {'cpu s':>7}")
    rows = [judge_rule(load, rule) for rule in HINDSIGHT]
    for row in rows:
        print(line(row, rows[0]))
    for rule in names:
        if rule in HINDSIGHT:
            continue
        row, found = run_rule(load, rule)
        rows.append(row)
        print(line(row, rows[0]))
        print(f"    {draw(load, rule, found)}")
    return rows


def line(row: Row, fixed: Row) -> str:
    """Return a row of the table on the terminal."""
    worst = "-" if math.isnan(row.worst_minute) else f"{row.worst_minute:.1%}"
    return (
        f"{row.rule:16} {row.share:8.2%}  {'yes' if row.met else 'NO ':3} {row.gpu_hours:10.2f} "
        f"{row.gpu_hours / fixed.gpu_hours:7.2f} {row.reversals:8.1f} {worst:>9} {row.cpu_s:7.1f}"
    )


def draw(load: Load, rule: str, found: Result) -> Path:
    """Draw arrivals, replicas and late requests, and return the file."""
    count, good = per_minute(load, found)
    minutes = np.arange(count.size)
    figure, axes = plt.subplots(3, 1, figsize=(11, 7), sharex=True)
    axes[0].plot(minutes, count / 60.0, lw=0.8)
    axes[0].set(ylabel="arrivals per second", title=f"{load.name}, {rule}\n{load.about}")
    axes[0].title.set_fontsize(7)
    at = found.decided_s / 60.0
    axes[1].step(at, found.ready, where="post", lw=0.8, label="ready")
    axes[1].step(at, found.target, where="post", lw=0.8, label="target")
    axes[1].set(ylabel="replicas")
    axes[1].legend(fontsize=7)
    axes[2].bar(minutes, 1.0 - good, width=1.0)
    axes[2].axhline(1.0 - load.pool.objective.percentile / 100.0, color="grey", lw=0.8)
    axes[2].set(ylabel="late share", xlabel="minutes", ylim=(0.0, 1.0), xlim=(0.0, load.workload.length_s / 60.0))
    for one in axes:
        one.axvline(load.judged_from_s / 60.0, color="grey", lw=0.8, ls=":")
        one.axvline(load.judged_to_s / 60.0, color="grey", lw=0.8, ls=":")
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f"{load.name}-{rule}.png"
    figure.savefig(path, dpi=90, bbox_inches="tight")
    plt.close(figure)
    return path
