"""The page of bench/autoscaling/measure.py: tables and pictures from the runs."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib

from bench.autoscaling import measure
from bench.autoscaling.ablations import PARTS
from bench.autoscaling.measure import ROOT, load, measured, merged, tasks

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from bench.autoscaling.bound import least_hours_of_any
from bench.autoscaling.measure import (
    GOAL,
    SCENARIOS,
    SLOW_STARTUP_S,
    STARTUP_S,
    Run,
    chosen,
    in_hindsight,
    least_hours,
    pool_of,
    rules,
)

ABLATIONS = tuple(one.name for one in PARTS)
COLOURS = matplotlib.color_sequences["tab20"]


def write(runs: Sequence[Run], made_by: str, out: Path) -> Path:
    """Write autoscalers.md and its pictures; return the page."""
    scenarios = [name for name in SCENARIOS if any(r.scenario == name for r in runs)]
    names = [name for name in rules() if any(r.rule == name for r in runs)]
    whole, taken = [n for n in names if n not in ABLATIONS], [n for n in names if n in ABLATIONS]
    parts = [
        head(made_by),
        "## GPU-hours over the oracle's, and the share within the target\n",
        summary(runs, scenarios, whole, chosen),
        f"Tuned on the first part, evaluated on the rest; bold: {GOAL:.0%} or more within the target.\n",
        limits(runs, scenarios, whole),
        f"## What each part of the decision is for\n\n{_parts(taken)}\n",
        summary(runs, scenarios, ["ours", *taken], published),
    ]
    for name in scenarios:
        mine = [r for r in runs if r.scenario == name]
        picture = out / f"autoscalers-{name}.png"
        pareto(mine, name, whole, picture)
        parts.append(section(mine, name, whole, picture.name))
    path = out / "autoscalers.md"
    path.write_text("\n".join(parts))
    return path


def head(made_by: str) -> str:
    return f"""# Scaling rules compared

Made by {made_by}; all random numbers have seed 1, so the figures are the same on any machine.

Simulated: continuous batching step by step (an 8B model on an A100, by its roofline), one queue at the gateway for
every rule, a start-up time of {STARTUP_S:.0f} s ({SLOW_STARTUP_S:.0f} s in `daily`), and replicas that drain before
they stop.

Each rule has one parameter. `tuned` is the value chosen on the first part of a trace (the fewest GPU-hours with
{GOAL:.0%} of the requests within the target there, or else the most within it), evaluated on the rest. `in hindsight`
is the cost of the cheapest value with {GOAL:.0%} within the target on the rest, `-` where there is none. The oracle
knows all future arrivals and has its settings chosen in hindsight; it is no lower bound (it holds a load through its
next start-up time, where a queue may need less). Rules and sources: `simulate/policies/registry.py`.

Rules also get a target for the time between tokens, that of a batch of 80% of the slots, without which those of Dynamo
and WVA would fill replicas up; no rule is evaluated by it.
"""


def _parts(taken: Sequence[str]) -> str:
    descriptions = [f"- *{title(rule)}*: {rules()[rule].source}." for rule in taken]
    rest = (
        f"All with the parameter as published, evaluated on the same part; bold: {GOAL:.0%} or more within the target."
    )
    return "\n".join([*descriptions, "", rest])


def title(rule: str) -> str:
    return "Oracle" if rule == "oracle" else rules()[rule].title


def by_rule(runs: Sequence[Run], rule: str) -> list[Run]:
    return [r for r in runs if r.rule == rule]


def published(runs: Sequence[Run]) -> Run:
    """The run with the parameter as published."""
    default = rules()[runs[0].rule].default
    return next(r for r in runs if r.value == default)


def summary(
    runs: Sequence[Run], scenarios: Sequence[str], names: Sequence[str], pick: Callable[[Sequence[Run]], Run]
) -> str:
    """GPU-hours over the oracle's, with the share within the target, per rule and scenario; `pick` selects the run."""
    lines = ["| rule | " + " | ".join(scenarios) + " |", "|---|" + "---|" * len(scenarios)]
    for rule in names:
        cells = []
        for name in scenarios:
            mine = [r for r in runs if r.scenario == name]
            if not by_rule(mine, rule):
                cells.append("-")
                continue
            best, oracle = pick(by_rule(mine, rule)), in_hindsight(by_rule(mine, "oracle"))
            ratio = f"{best.hours / oracle.hours:.2f} x" if oracle else f"{best.hours:.1f} h"
            held = f"{best.share:.2%}"
            cells.append(f"**{ratio}, {held}**" if best.share >= GOAL else f"{ratio}, {held}")
        lines.append(f"| {title(rule)} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def limits(runs: Sequence[Run], scenarios: Sequence[str], names: Sequence[str]) -> str:
    """A fifth below the best peer, with lower bounds for any rule."""
    lines = [
        "## A fifth below the best peer, and lower bounds",
        "",
        f"GPU-hours on the evaluated part. The best peer is the cheapest with {GOAL:.0%} within the target, static",
        "pools included. *Work* is the work that arrives, each request as one of a full batch, without idle or",
        "starting replicas.",
        "",
        "*Any rule* is a proven lower bound: no rule that meets the goal takes fewer, even with knowledge of all",
        "arrivals. It is the least, by dynamic programming, of a pool that is relaxed from the simulated one: work",
        "is done at the full speed of whole replicas, each start is paid, as much work may wait as target and slots",
        f"allow, and the heaviest {1.0 - GOAL:.0%} of the requests may miss (`bench/autoscaling/bound.py`). It can be",
        "below the work, since work that is unfinished at the end is served later and not charged here. *With",
        "unfinished work* is the same bound for the GPU-hours of a rule plus those that full replicas need for the",
        "work left unfinished at the end: a rule below it has deferred work, not saved it.",
        "",
        "The true minimum lies above both by an unknown amount, since batches are seldom full:",
        "a fifth less than the best peer may be impossible even where it is above the bounds.",
        "",
        "| | best peer | a fifth less | TierServe | less by | oracle | work | any rule | with unfinished work |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in scenarios:
        mine = [r for r in runs if r.scenario == name]
        peers = [chosen(by_rule(mine, rule)) for rule in names if not rule.startswith("ours") and by_rule(mine, rule)]
        good = [r for r in peers if r.share >= GOAL]
        ours, oracle = by_rule(mine, "ours"), in_hindsight(by_rule(mine, "oracle"))
        if not good or not ours:
            continue
        best, held = min(good, key=lambda r: r.hours), chosen(ours)
        scenario, work = SCENARIOS[name], SCENARIOS[name].make()
        pool = pool_of(scenario, work)
        least, whole = (least_hours_of_any(work, pool, scenario.tune_s, GOAL, left) for left in (False, True))
        aim, known = 0.8 * best.hours, f"{oracle.hours:.2f}" if oracle else "-"
        cells = [
            name,
            f"{best.hours:.2f} ({title(best.rule)})",
            f"{aim:.2f}{_reach(aim, least, whole)}",
            f"{held.hours:.2f}",
            f"{1.0 - held.hours / best.hours:.0%}",
            known,
            f"{least_hours(scenario, work, pool):.2f}",
            f"{least:.2f}",
            f"{whole:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_standing(runs), *_FORESIGHT])


def _reach(aim: float, least: float, whole: float) -> str:
    """Which bound excludes so few GPU-hours, if one does."""
    if aim < least:
        return " (below the bound)"
    return " (only with unfinished work)" if aim < whole else ""


_FORESIGHT = (
    "",
    "The gain of knowing all arrivals is in [autoscalers-schedules.md](autoscalers-schedules.md), the result of a",
    "search. *wva-bursty* repeats every 900 s, but this period can be learned after two rounds at the earliest, when",
    "the evaluated part begins.",
    "",
)


def _standing(runs: Sequence[Run]) -> list[str]:
    """Why no rule without knowledge of the arrivals can have fewer replicas on bursts that begin at any moment."""
    held = sorted(by_rule([r for r in runs if r.scenario == "bursts"], "static"), key=lambda r: r.hours)
    enough = next((k for k, r in enumerate(held) if r.share >= GOAL), 0)
    if not enough:
        return []
    few, good = held[enough - 1], held[enough]
    return [
        "*bursts* begin at any moment, and most are over before a replica that starts then serves. So a rule without",
        "knowledge of the arrivals serves them with the replicas that are ready, and cannot have more for some of",
        f"them: {few.value:g} replicas hold {few.share:.2%}, {good.value:g} hold {good.share:.2%}, and a mix of both",
        f"that keeps {GOAL:.0%} takes {_mixed(few, good):.2f} GPU-hours. The oracle starts replicas ahead of each",
        "burst.",
    ]


def _mixed(few: Run, good: Run) -> float:
    part = (GOAL - few.share) / (good.share - few.share)
    return few.hours + part * (good.hours - few.hours)


def section(runs: Sequence[Run], name: str, names: Sequence[str], picture: str) -> str:
    scenario = SCENARIOS[name]
    lines = [
        f"## {name}",
        "",
        f"{scenario.about}. Target: {target(name)}. Evaluated from {scenario.tune_s:,.0f} s on.",
        "",
    ]
    lines += [f"![GPU-hours and requests that missed, {name}]({picture})", ""]
    lines += [
        "| rule | within target | GPU-hours | in hindsight | TTFT p95, p99 (s) | ITL p95, p99 (ms)"
        " | response p95, p99 (s) | reversals/h | aborted | MJ |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for rule in (*names, "oracle"):
        mine = by_rule(runs, rule)
        if not mine:
            continue
        hind = in_hindsight(mine)
        best = (hind or chosen(mine)) if rule == "oracle" else chosen(mine)
        seen = f"{hind.hours:.2f} h" if hind else "-"
        lines.append(
            f"| {title(rule)} | {best.share:.2%} | {best.hours:.2f} | {seen}"
            f" | {number(best.ttft_p95)}, {number(best.ttft_p99)}"
            f" | {number(best.itl_p95 * 1e3)}, {number(best.itl_p99 * 1e3)}"
            f" | {number(best.response_p95)}, {number(best.response_p99)}"
            f" | {best.reversals:.1f} | {best.aborted} | {best.megajoules:.1f} |"
        )
    return "\n".join([*lines, ""])


def number(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def target(name: str) -> str:
    goal = SCENARIOS[name].objective
    parts = [("first token", goal.ttft_s), ("between tokens", goal.itl_s), ("response", goal.response_s)]
    return ", ".join(f"{what} within {value:g} s" for what, value in parts if math.isfinite(value))


def pareto(runs: Sequence[Run], name: str, names: Sequence[str], path: Path) -> None:
    """Each rule's curve over its parameter: GPU-hours against the share that missed."""
    figure, axes = plt.subplots(figsize=(9, 5.5))
    for k, rule in enumerate((*names, "oracle")):
        mine = sorted(by_rule(runs, rule), key=lambda r: r.hours)
        if not mine:
            continue
        style: dict[str, Any] = {"lw": 2.5, "zorder": 3} if rule in ("ours", "oracle") else {"lw": 1.0, "alpha": 0.8}
        colour = "black" if rule == "ours" else "grey" if rule == "oracle" else COLOURS[k % len(COLOURS)]
        kind = ":" if rule == "oracle" else "-"
        axes.plot([r.hours for r in mine], [max(1 - r.share, 1e-5) for r in mine], kind, marker=".", color=colour,
                  label=title(rule), **style)  # fmt: skip
    oracle = in_hindsight(by_rule(runs, "oracle"))
    if oracle:
        axes.set_xlim(0.5 * oracle.hours, 8 * oracle.hours)
    axes.axhline(1 - GOAL, color="grey", lw=0.8)
    axes.set(
        xscale="log", yscale="log", xlabel="GPU-hours", ylabel="share of requests that missed the target", title=name
    )
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=measure.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", action="append", choices=list(SCENARIOS))
    parser.add_argument("--rule", action="append", choices=list(rules()))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--page-only", action="store_true", help="write the page from the runs kept in out/")
    arguments = parser.parse_args()
    kept = ROOT / "out" / "autoscalers.json"
    kept.parent.mkdir(exist_ok=True)
    runs = load(kept)
    if not arguments.page_only:
        todo = list(tasks(arguments.scenario or list(SCENARIOS), arguments.rule or list(rules())))
        for run in measured(todo, arguments.jobs):
            runs = merged(runs, run)
            # At once: a run that is interrupted can be continued with --scenario.
            kept.write_text(json.dumps([asdict(r) for r in runs]))
    arguments.out.mkdir(parents=True, exist_ok=True)
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    print(write(runs, f"`make bench-autoscalers` ({machine})", arguments.out))


if __name__ == "__main__":
    main()
