"""The page of bench/growth/measure.py: tables and a picture from the runs."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib

from bench.growth import measure
from bench.growth.decision import timings
from bench.growth.measure import QUICK, ROOT, Scale, load, measured, merged, names_of, summary_of

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from bench.growth.decision import Timing
from bench.growth.measure import (
    CASES,
    CEILING,
    FIRST,
    LOW,
    MARGIN,
    PER_MINUTE,
    REPEATS,
    SIZES,
    SLOTS,
    SPEED,
    THINK_S,
    WARM_S,
    Case,
    Run,
    full_p95_s,
    names,
    service_s,
    title,
)

FLAT = 0.05
COLOURS = matplotlib.color_sequences["tab20"]


def write(runs: Sequence[Run], timings: Sequence[Timing], machine: str, out: Path) -> Path:
    """Write growth.md and growth.png; return the page."""
    last = max(r.last for r in runs)
    cases = [c for c in CASES if any(r.case == c.name for r in runs)]
    picture(runs, cases, out / "growth.png")
    parts = [head(machine, last), "![p95 against connections, and GPU-hours over the oracle's](growth.png)\n"]
    parts += [section([r for r in runs if r.case == c.name], c) for c in cases]
    parts.append(decision(timings))
    path = out / "growth.md"
    path.write_text("\n".join(parts))
    return path


def head(machine: str, last: float) -> str:
    s = service_s(CASES[0])
    minutes = math.log(last / FIRST) / SPEED / 60.0
    rate = last / (THINK_S + s)
    return f"""# p95 while connections grow

Made by `make bench-growth` ({machine}). Random numbers have seeds 1 to {REPEATS}, so that all figures but the times of
decisions are the same on any machine.

Connections grow by {PER_MINUTE:.0%} a minute from {FIRST:.0f} to {last:,.0f}, which takes {minutes:.0f} minutes, in
one run, after {WARM_S / 60:.0f} minutes at the first value. Up to {LOW:,.0f} connections, where requests are few,
it is repeated with other seeds ({REPEATS} runs in all), and their requests are counted together.

- **Connections.** Each sends a request {THINK_S:.0f} s after its last response on average: {last:,.0f} of them send
  {rate:,.0f} requests a second. (A shorter think time would make more requests than can be simulated in minutes.)
  Arrivals are Poisson with rate connections / (think time + service). Where requests wait, real connections would send
  fewer; this is a little harder. Requests have {SIZES.input:.0f} tokens in and {SIZES.output:.0f} out, lognormal, cv
  {SIZES.cv:g}.
- **Replicas.** An 8B model on an A100 by its roofline, {SLOTS} slots, {CEILING:,} replicas at most. In the slot model
  a request has its slot for the time that it takes in a full batch ({s:.1f} s on average), and p95 can rise by
  waiting only. In the token model replicas work step by step and a batch slows its members: p95 rises until batches
  are as full as the rule keeps them, even without waits. The p95 of service in full batches is {full_p95_s():.1f} s.
- **Target.** 99% of the requests wait no longer than {MARGIN:.0%} of the p95 of service alone; `kept` is the share
  that did. (In the token model: to the first token no longer than that and a prefill in a full batch.)
- **Rules** run with their parameter as published (`tierserve simulate --policy list`), nothing is tuned.
  Static peak has the replicas that the end needs from the beginning. The oracle knows the future rate and when it ends,
  not the arrivals: Erlang C for the rate at the end of the start-up time. Rules also get a target for the time between
  tokens: a loose one (slot model), or that of a batch of 80% of the slots (token model).
- **Flat** means that the highest p95 of all decades is no more than {FLAT:.0%} over the lowest.
"""


def spread(run: Run) -> float:
    """How much higher the highest p95 is than the lowest, as a share."""
    values = [b.p95 for b in run.decades]
    return max(values) / min(values) - 1.0


def seconds(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def section(runs: Sequence[Run], case: Case) -> str:
    ordered = sorted(runs, key=lambda r: names().index(r.rule))
    oracle = next((r for r in runs if r.rule == "oracle"), None)
    where = "Slot model" if case.model == "slots" else "Token model"
    decades = max(ordered, key=lambda r: len(r.decades)).decades
    lines = [f"## {where}, {case.startup_s:.0f} s start-up time", ""]
    lines += [verdict(ordered), ""]
    heads = [f"{b.low:,.0f} to {b.high:,.0f}" for b in decades]
    lines += [
        "| rule | p95 (s) at "
        + " | ".join(heads)
        + " | spread | kept, worst decade | GPU-hours, of the oracle's | reversals/h |"
    ]
    lines += ["|---|" + "---|" * (len(decades) + 4)]
    for run in ordered:
        cells = [seconds(b.p95) for b in run.decades]
        flat = spread(run) <= FLAT
        rise = "no bound" if math.isinf(spread(run)) or math.isnan(spread(run)) else f"{spread(run):.1%}"
        ratio = f"{run.hours / oracle.hours:.2f} x" if oracle else f"{run.hours:.1f} h"
        name = f"**{title(run.rule)}**" if run.rule == "ours" else title(run.rule)
        lines.append(
            f"| {name} | " + " | ".join(cells) + f" | {'**' if flat else ''}{rise}{'**' if flat else ''}"
            f" | {min(b.attained for b in run.decades):.2%} | {ratio} | {run.reversals:.1f} |"
        )
    lines.append("| service alone | " + " | ".join(seconds(b.bare_p95) for b in ordered[0].decades) + " | | | | |")
    return "\n".join([*lines, ""])


def verdict(runs: Sequence[Run]) -> str:
    """One sentence: the rules that are flat, and the GPU-hours of the oracle."""
    flat = [r for r in runs if spread(r) <= FLAT]
    oracle = next((r for r in runs if r.rule == "oracle"), None)
    takes = f" The oracle takes {oracle.hours:,.1f} GPU-hours." if oracle else ""
    if not flat:
        return f"No rule is flat within {FLAT:.0%}.{takes}"
    titles = "; ".join(title(r.rule) for r in sorted(flat, key=lambda r: r.hours))
    return f"Flat within {FLAT:.0%}, the cheapest first: {titles}.{takes}"


def decision(timings: Sequence[Timing]) -> str:
    lines = ["## One decision at a million slots", ""]
    lines += ["`autoscale.decide` with 15,625 replicas of 64 slots, on one core:", ""]
    lines += ["| input | median (ms) | p99 (ms) |", "|---|---|---|"]
    lines += [f"| {t.what} | {t.median_ms:.2f} | {t.p99_ms:.2f} |" for t in timings]
    lines += [
        "",
        "The time does not grow with the slots: sizing is one formula, however many there are. It grows with the",
        "replicas that report metrics of their own. As columns (`tierserve.autoscale.replica_metrics.ReplicaMetrics`)",
        "each takes 10 ns while the names are unchanged; where they are not, columns are reordered. `ReplicaSample`",
        "by name is converted into columns first, half a microsecond each. Serve's policy reads them from Ray's",
        "metrics, an object for each figure: that takes nearly all of its time, 3 µs a replica, and Ray's own work",
        "before is not counted. The analyser of WVA takes 658 ms at this size.",
    ]
    return "\n".join([*lines, ""])


def picture(runs: Sequence[Run], cases: Sequence[Case], path: Path) -> None:
    """For each case p95 against connections, one curve per rule; below it the GPU-hours over the oracle's."""
    figure, grid = plt.subplots(
        2, len(cases), figsize=(5.4 * len(cases) + 2, 9), squeeze=False, gridspec_kw={"height_ratios": (3, 2)}
    )
    for column, case in enumerate(cases):
        mine = sorted((r for r in runs if r.case == case.name), key=lambda r: names().index(r.rule))
        curves(mine, grid[0][column])
        grid[0][column].set_title(f"{case.model}, {case.startup_s:.0f} s to start")
        bars(mine, grid[1][column])
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.6))
    figure.tight_layout()
    figure.savefig(path, dpi=90, bbox_inches="tight")
    plt.close(figure)


def colour(rule: str) -> object:
    own = {"ours": "black", "oracle": "grey"}
    return own.get(rule, COLOURS[names().index(rule) % len(COLOURS)])


def curves(runs: Sequence[Run], axes: Axes) -> None:
    for run in runs:
        style: dict[str, Any] = {"lw": 2.5, "zorder": 3} if run.rule == "ours" else {"lw": 1.2, "alpha": 0.8}
        x = [math.sqrt(b.low * b.high) for b in run.bins if math.isfinite(b.p95)]
        y = [b.p95 for b in run.bins if math.isfinite(b.p95)]
        kind = ":" if run.rule == "oracle" else "-"
        axes.plot(x, y, kind, color=colour(run.rule), label=title(run.rule), **style)
    axes.set(xscale="log", yscale="log", xlabel="connections", ylabel="response time, p95 (s)")
    axes.grid(alpha=0.3)


def bars(runs: Sequence[Run], axes: Axes) -> None:
    oracle = next((r.hours for r in runs if r.rule == "oracle"), 1.0)
    axes.barh([title(r.rule) for r in runs], [r.hours / oracle for r in runs], color=[colour(r.rule) for r in runs])
    axes.axvline(1.0, color="grey", lw=0.8)
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=7)
    axes.set(xscale="log", xlabel="GPU-hours over the oracle's")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=measure.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="to 300 connections only")
    parser.add_argument("--case", action="append", choices=[c.name for c in CASES])
    parser.add_argument("--rule", action="append", choices=names())
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--page-only", action="store_true", help="write the page from the runs kept in out/")
    asked = parser.parse_args(arguments)
    scale = QUICK if asked.quick else Scale()
    kept = (asked.out if asked.quick else ROOT / "out") / "growth.json"
    todo = [(c, r, scale) for c in CASES for r in names_of(c)
            if c.name in (asked.case or [c.name]) and r in (asked.rule or [r])]  # fmt: skip
    runs = load(kept)
    kept.parent.mkdir(parents=True, exist_ok=True)
    asked.out.mkdir(parents=True, exist_ok=True)
    for run in measured(todo, asked.jobs) if not asked.page_only else ():
        runs = merged(runs, run)
        # At once: a run that is interrupted can be continued with --case and --rule.
        kept.write_text(json.dumps([asdict(r) for r in runs]))
        print(summary_of(run), flush=True)
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    print(write(runs, timings(asked.quick), machine, asked.out))


if __name__ == "__main__":
    main()
