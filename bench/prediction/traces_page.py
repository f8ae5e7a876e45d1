"""The page of bench/prediction/traces.py: tables and one picture."""

from __future__ import annotations

import argparse
import math
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from rich.progress import track

from bench.prediction import traces as measured
from bench.prediction.traces import LOADS, ROOT, cells_of, resampled_p95, steady

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from bench.prediction.traces import (
    ABOUT,
    BLOCK_S,
    CASES,
    CLOSE,
    METHODS,
    RESAMPLES,
    SYNTHETIC,
    WINDOW_S,
    Case,
    Cell,
    Steady,
)

Resampled = Sequence[tuple[str, int, float, float]]
SHOWN = ("even steps", "z", "random rates", "counts")


def write(cells: Sequence[Cell], calm: Sequence[Steady], resampled: Resampled, machine: str, out: Path) -> Path:
    """Write trace-prediction.md and its picture; return the page."""
    picture(cells, out / "trace-prediction.png")
    real = [cell for cell in cells if cell.case.kind != "synthetic"]
    parts = [
        head(machine),
        summary(cells, real),
        calm_table(calm),
        limit(resampled) if resampled else "",
        every(cells),
    ]
    path = out / "trace-prediction.md"
    path.write_text("\n".join(part for part in parts if part))
    return path


def head(machine: str) -> str:
    methods = "\n".join(f"| {name} | {ABOUT[name]} |" for name in METHODS)
    return f"""# Predicted response times on real traces

Made by `make bench-traces` ({machine}). Random numbers have seed 1 (times within
one stamp of a trace: seed 0), so that all figures but the run time are the same on any machine.

Pools of a fixed number of replicas with one queue, simulated token by token (`tierserve.simulate`), empty at first.
Whole traces, and windows of {WINDOW_S / 60:.0f} minutes of some, each with the replicas for loads of about 0.5,
0.7 and 0.85 (rate over what full replicas finish). Input of a formula: rate and tokens of the same window, and

| method | what else |
|---|---|
{methods}

| trace | pool |
|---|---|
{traces((*CASES, *SYNTHETIC))}

(*) The formulas were developed on these. The others were evaluated afterwards; they showed two errors in the steps
of the fluid of `counts`, which are fixed. No constant was chosen by them.

![Predicted over simulated p95 of every window](trace-prediction.png)
"""


def traces(cases: Sequence[Case]) -> str:
    rows = []
    for case in cases:
        p = case.profile
        seen = "" if not case.fitted else " (*)"
        rows.append(f"| {case.name}: {case.about}{seen} | {case.slots} slots, {p.beta * 1e6:.0f} us per prompt token |")
    return "\n".join(rows)


def summary(cells: Sequence[Cell], real: Sequence[Cell]) -> str:
    even = [c for c in real if c.case.kind == "even"]
    bursty = [c for c in real if c.case.kind == "bursty"]
    held = [c for c in real if not c.case.fitted]
    made = [c for c in cells if c.case.kind == "synthetic"]
    groups = {"all traces": real, "Mooncake": even, "Azure": bursty, "not (*)": held, "synthetic": made}
    lines = ["## Windows whose p95 is within 15%", ""]
    lines += ["| method | " + " | ".join(f"{name} ({len(group)})" for name, group in groups.items()) + " |"]
    lines += ["|---" * (len(groups) + 1) + "|"]
    for name in METHODS:
        lines.append(f"| {name} | " + " | ".join(within(group, name) for group in groups.values()) + " |")
    lines += [
        "",
        "In each: the share within 15%; the median absolute error; the lowest and the highest error.",
        "",
    ]
    lines += ["## Errors of the mean response", ""]
    lines += ["| method | " + " | ".join(groups) + " |", "|---" * (len(groups) + 1) + "|"]
    for name in METHODS:
        lines.append(f"| {name} | " + " | ".join(spread(group, name, 0) for group in groups.values()) + " |")
    return "\n".join([*lines, ""])


def within(group: Sequence[Cell], name: str) -> str:
    share = sum(abs(cell.error(name)) <= CLOSE for cell in group) / len(group)
    return f"{share:.0%}; {spread(group, name, 1)}"


def spread(group: Sequence[Cell], name: str, which: int) -> str:
    errors = sorted(cell.error(name, which) for cell in group)
    sizes = sorted(abs(one) for one in errors)
    return f"{percent(sizes[len(sizes) // 2], False)}; {percent(errors[0])} to {percent(errors[-1])}"


def percent(value: float, sign: bool = True) -> str:
    if math.isinf(value):
        return "never"
    return f"{value:+.0%}" if sign else f"{value:.0%}"


def calm_table(calm: Sequence[Steady]) -> str:
    lines = [
        "## Poisson arrivals with the tokens of the traces",
        "",
        "Most of the error on Mooncake is due not to bursts but to long prompts, read in one step that delays the",
        "batch: 40,000 of its requests in random order at random times. Errors of mean, p95:",
        "",
        "| tokens of | replicas | load | mean, s | p95, s | even steps | prompts |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in calm:
        errors = (f"{mean:+.0%}, {p95:+.0%}" for mean, p95 in (one.even, one.prompts))
        lines.append(f"| {one.name} | {one.replicas} | {one.load:g} | {one.mean:.2f} | {one.p95:.2f} | "
                     + " | ".join(errors) + " |")  # fmt: skip
    return "\n".join([*lines, ""])


def limit(resampled: Resampled) -> str:
    lines = [
        "## The limit of statistics of a trace",
        "",
        f"An hour has few bursts. For counts resampled ({RESAMPLES} times) from blocks of {BLOCK_S:.0f} s of the",
        "trace, `counts` predicts these p95, relative to that of the original trace, from the tenth to the ninetieth",
        "percentile. A formula without the order of the counts has one prediction for all of these traces.",
        "",
        "| trace | replicas | p95 of resampled traces |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {replicas} | {low - 1:+.0%} to {high - 1:+.0%} |" for name, replicas, low, high in resampled]
    return "\n".join([*lines, ""])


def every(cells: Sequence[Cell]) -> str:
    lines = [
        "## Every window",
        "",
        "z: variance over mean of the counts at the service time. Errors of p95.",
        "",
        "| trace | from, s | requests | R | load | z | mean, s | p95, s | " + " | ".join(METHODS) + " |",
        "|---" * (8 + len(METHODS)) + "|",
    ]
    for c in cells:
        whole = c.length_s != WINDOW_S
        errors = " | ".join(percent(c.error(name)) for name in METHODS)
        lines.append(
            f"| {c.case.name} | {'whole' if whole else f'{c.start_s:.0f}'} | {c.requests:,} | {c.replicas} "
            f"| {c.load:.2f} | {c.z:.3g} | {c.mean:.2f} | {c.p95:.2f} | {errors} |"
        )
    return "\n".join([*lines, ""])


def picture(cells: Sequence[Cell], path: Path) -> None:
    """Predicted over simulated p95 of every window, by method."""
    figure, axes = plt.subplots(1, len(SHOWN), figsize=(11, 3.6), sharey=True)
    for axis, name in zip(axes, SHOWN, strict=True):
        for kind, colour in (("even", "tab:blue"), ("bursty", "tab:red"), ("synthetic", "grey")):
            mine = [c for c in cells if c.case.kind == kind]
            label = {"even": "Mooncake", "bursty": "Azure", "synthetic": "synthetic"}[kind]
            axis.plot([c.p95 for c in mine], [c.said[name][1] / c.p95 for c in mine], ".", color=colour, label=label)
        axis.axhspan(1.0 - CLOSE, 1.0 + CLOSE, color="tab:green", alpha=0.2, lw=0.0)
        axis.set(xscale="log", yscale="log", title=name, xlabel="simulated p95, s", ylim=(0.01, 100.0))
    axes[0].set_ylabel("predicted over simulated p95")
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=measured.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks")
    arguments = parser.parse_args()
    began, cpu = time.perf_counter(), time.process_time()
    loads = (0.7,) if arguments.quick else LOADS
    cells = [cell for case in track((*CASES, *SYNTHETIC), "traces") for cell in cells_of(case, loads)]
    calm = [one for name in ("azure-code", "mooncake-conversation") for one in steady(name, loads)]
    resampled = [] if arguments.quick else [row for case in CASES[:2] for row in resampled_p95(case, loads)]
    seconds = f"{time.perf_counter() - began:.0f} s, {time.process_time() - cpu:.0f} s of CPU"
    machine = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, {seconds}"
    print(write(cells, calm, resampled, machine, arguments.out))


if __name__ == "__main__":
    main()
