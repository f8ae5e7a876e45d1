"""The page docs/benchmarks/robust.md: tables and a picture from the rows of the judged loads."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

from bench.autoscaling.measure import rules
from bench.robust.judge import CHEAPEST, ORACLE, Row
from bench.robust.loads import DEVELOP, FAMILIES, JUDGE, TRACES, Part
from bench.robust.summary import Figures, figures

matplotlib.use("Agg")
import matplotlib.pyplot as plt

OURS = "ours"
PEERS = (
    "hpa", "keda", "kpa", "aibrix", "ray-serve", "ray-serve=0.7", "skyserve", "dynamo-both", "wva-queue",
    "wva-saturation", "llm-d-queue", "llm-d-queue=0.7", "llm-d-saturation", "llm-d-tokens", "llm-d-slo", "kubeai",
    "kubeai=0.7",
)  # fmt: skip
"""Rules of others, with their published settings; those whose targets are requests whatever a replica holds also with
0.7 of its slots."""
PLANNED = ("plan", "plan-1.25")
TITLES = {
    "plan": "fixed, `tierserve plan` for the busiest hour",
    "plan-1.25": "fixed, 1.25 times that",
    CHEAPEST: "cheapest fixed pool, in hindsight",
    ORACLE: "oracle, in hindsight",
}
Rows = Mapping[tuple[str, str], Row]


def rules_on(name: str, position: int, peers_every: int, only: Sequence[str] | None) -> list[str]:
    """Return the rules to run on a load; those of others on every n-th random load and on all traces."""
    if only:
        return list(only)
    peers = PEERS if name in TRACES or position % peers_every == 0 else ()
    return [OURS, *PLANNED, ORACLE, *peers]


def title(rule: str) -> str:
    """Return the name of a rule in tables."""
    if rule in TITLES:
        return TITLES[rule]
    name, _, value = rule.partition("=")
    return f"{rules()[name].title}, {float(value):.0%} of the slots" if value else rules()[name].title


def write_page(rows: Rows, loads: Sequence[str], part: Part, out: Path) -> Path:
    """Write robust.md and its picture into a folder, and return the page."""
    random, traces = [name for name in loads if name not in TRACES], [name for name in loads if name in TRACES]
    out.mkdir(parents=True, exist_ok=True)
    _picture(rows, _common(rows, random), out / "robust.png")
    text = "\n".join(
        [
            _head(rows, random, part),
            "## All random loads\n",
            _table(rows, random),
            "",
            *_shared(rows, random),
            "![Loads on which the objective was met, and GPU-hours, where all rules ran](robust.png)",
            "",
            "## By family\n",
            _by_family(rows, random),
            "",
            "## Traces\n",
            _traces(rows, traces, part),
            "",
            _REPRODUCE,
        ]
    )
    path = out / "robust.md"
    path.write_text(text)
    return path


def _of(rows: Rows, rule: str, names: Sequence[str]) -> list[Row]:
    return [rows[name, rule] for name in names if (name, rule) in rows]


def _common(rows: Rows, names: Sequence[str]) -> list[str]:
    """Return the loads on which all rules ran; all loads where there is none."""
    return [name for name in names if all((name, rule) in rows for rule in PEERS)] or list(names)


def _shared(rows: Rows, names: Sequence[str]) -> list[str]:
    """Return the table of those loads on which all rules ran, where that is not all of them."""
    shared = _common(rows, names)
    if len(shared) == len(names):
        return []
    return [f"The same on the {len(shared)} loads on which the rules of others ran too:\n", _table(rows, shared), ""]


def _head(rows: Rows, names: Sequence[str], part: Part) -> str:
    seeds = sorted(int(name.rsplit("-", 1)[1]) for name in names)
    stationary = sum(row.stationary for row in _of(rows, CHEAPEST, names))
    ours, peers = len(_of(rows, OURS, names)), min((len(_of(rows, rule, names)) for rule in PEERS), default=0)
    fewer = f" Rules of others were run on {peers} of them." if peers < ours else ""
    these = "this page is of those" if part == "develop" else "these loads were run when it was done"
    left = f" (seeds to {JUDGE[-1]} are left to judge a later change by)" if JUDGE[0] <= seeds[-1] < JUDGE[-1] else ""
    earlier = (
        f" Seeds {JUDGE[0]} to {seeds[0] - 1} and the second halves of the traces judged the versions before it. "
        "These loads were run three times: two changes after the first run (chance, and slots that have just filled, "
        "are left out of the margin) were made for the loads of `make bench-autoscalers` and for tests, not for these."
    )
    known = earlier if seeds[0] > JUDGE[0] else ""
    hours = sum(row.cpu_s for row in rows.values()) / 3600.0
    made_by = "make bench-robust" if part == "judge" else "python -m bench.robust --try-page"
    return f"""# Scaling rules on loads that none of them was developed on

Made by `{made_by}` ({os.cpu_count()} cores, Python {platform.python_version()}; {hours:.1f} hours of one core). All
figures but this time are the same on any machine.

Random loads of {len(FAMILIES)} families (below), seeds {seeds[0]} to {seeds[-1]}{left}: {len(names)} loads, of which
{stationary} are stationary.{fewer} TierServe's rule was developed on seeds {DEVELOP[0]} to {DEVELOP[-1]} and on the
first halves of the traces; {these}.{known}
Every rule has one setting for all loads: TierServe its defaults, the others what they publish.

A load is an 8B model on an A100 or L4, or a 70B model on 4 H100, by the roofline of `tierserve plan`; start-up 10, 30,
103 or 439 s (daily ones 103 or 439 s); 0.2 to 200 requests per second for 1 to 3 hours, or 2 to 3 days. The objective
is a percentile (90, 95 or 99) of requests that have their first token *and* their response in time. Both leave time for
a full batch: the targets are reachable by construction. All rules start with 1.3 times the replicas for the first five
minutes, and the first two start-up times are not counted; no pool has more than 2,000 replicas. The fixed pools
start as they are. Rules that need a target between tokens have the time in a batch of 80% of the slots, by which no
rule is judged.

- *met*: loads on which the objective's percentile of the requests was within both targets
- *over fixed*: GPU-hours over those of the fewest fixed replicas that meet the objective in hindsight; *over oracle*:
  over those of a schedule that has all arrivals. Geometric means over all loads, met or not: a rule that misses is
  cheap.
- *turns*: changes of direction of the target, per hour
- *worst minute*: the least share within target in a minute of 10 requests or more, median over the loads
"""


def _cell(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)


def _table(rows: Rows, names: Sequence[str]) -> str:
    heads = (
        "rule", "loads", "met", "met, stationary", "over fixed, stationary", "daily", "all", "over oracle",
        "turns/h, stationary, most", "turns/h, all, median", "worst minute",
    )  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for rule in (OURS, *PEERS, *PLANNED, CHEAPEST, ORACLE):
        mine = _of(rows, rule, names)
        every = figures(mine, rows)
        if every is None:
            continue
        calm, daily = figures([r for r in mine if r.stationary], rows), figures([r for r in mine if r.daily], rows)
        cells = (
            f"**{title(rule)}**" if rule == OURS else title(rule),
            str(every.loads),
            f"{every.met:.0%}",
            _cell(calm.met if calm else math.nan, ".0%"),
            _cell(calm.over_fixed if calm else math.nan, ".2f"),
            _cell(daily.over_fixed if daily else math.nan, ".2f"),
            _cell(every.over_fixed, ".2f"),
            _cell(every.over_oracle, ".2f"),
            _cell(calm.most_turns if calm else math.nan, ".1f"),
            _cell(every.turns, ".1f"),
            _cell(every.worst_minute, ".0%"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def best_peer(rows: Rows, names: Sequence[str]) -> tuple[str, Figures] | None:
    """Return the rule of others that met the objective on most of the loads, the cheapest one where several did."""
    found = [(rule, figures(_of(rows, rule, names), rows)) for rule in PEERS]
    there = [(rule, one) for rule, one in found if one is not None]
    return min(there, key=lambda pair: (-pair[1].met, pair[1].over_fixed)) if there else None


def _by_family(rows: Rows, names: Sequence[str]) -> str:
    lines = [
        "The best of the others is the rule that met the objective on most loads of the family, the cheapest where",
        "several did: chosen in hindsight, and another one for each family.",
        "",
    ]
    heads = ("rule", "loads", "met", "over fixed", "over oracle", "turns/h, median", "most", "worst minute")
    for family, make in FAMILIES.items():
        mine = [name for name in names if name.rsplit("-", 1)[0] == family]
        ours, other = figures(_of(rows, OURS, mine), rows), best_peer(rows, mine)
        if ours is None:
            continue
        about = " ".join((make.__doc__ or "").split("\n\n")[0].split())
        lines += [f"**{family}.** {about}", "", f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
        for rule, one in ((OURS, ours), *([other] if other else [])):
            cells = (
                title(rule), str(one.loads), f"{one.met:.0%}", _cell(one.over_fixed, ".2f"),
                _cell(one.over_oracle, ".2f"), _cell(one.turns, ".1f"), _cell(one.most_turns, ".1f"),
                _cell(one.worst_minute, ".0%"),
            )  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _traces(rows: Rows, names: Sequence[str], part: Part) -> str:
    if not names:
        return "Not run.\n"
    half = "second" if part == "judge" else "first"
    shown = [rule for rule in (OURS, *PEERS, *PLANNED, ORACLE) if _of(rows, rule, names)]
    lines = [
        "Azure code 2023 and Mooncake conversation, each request as 1, 3, 10 or 30 within 5 s, and two days of",
        f"ServeGen's m-small: an 8B model on A100, start-up 103 s, p95. The {half} half counts. Share within both",
        "targets, and GPU-hours over those of the cheapest fixed pool; bold: 95% or more.",
        "",
        f"| rule | {' | '.join(names)} |",
        f"|{'---|' * (len(names) + 1)}",
    ]
    for rule in shown:
        cells = []
        for name in names:
            row, fixed = rows.get((name, rule)), rows.get((name, CHEAPEST))
            if row is None or fixed is None:
                cells.append("-")
                continue
            cell = f"{row.share:.1%}, {row.gpu_hours / fixed.gpu_hours:.2f}"
            cells.append(f"**{cell}**" if row.met else cell)
        lines.append(f"| {title(rule)} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _picture(rows: Rows, names: Sequence[str], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(9, 6))
    found = [(rule, figures(_of(rows, rule, names), rows)) for rule in (OURS, *PEERS, *PLANNED, CHEAPEST, ORACLE)]
    labels: list[tuple[float, float]] = []
    for rule, one in sorted(found, key=lambda pair: pair[1].over_fixed if pair[1] else 0.0):
        if one is None:
            continue
        kind = "D" if rule == OURS else "s" if rule in PLANNED else "x" if rule in (CHEAPEST, ORACLE) else "o"
        axes.plot(one.over_fixed, one.met, kind, color="black" if rule == OURS else None, ms=8 if rule == OURS else 5)
        place = (one.over_fixed, one.met)
        height = one.met
        # a label is some 2% high, and some 1.6 times its place wide
        while any(abs(height - y) < 0.022 and place[0] < 1.6 * x for x, y in labels):
            height -= 0.022
        labels.append((place[0], height))
        axes.annotate(title(rule).replace("`", ""), place, (1.02 * place[0], height + 0.005), fontsize=7)
    axes.set(
        xscale="log", xlabel="GPU-hours over the cheapest fixed pool (geometric mean)",
        ylabel="loads on which the objective was met", ylim=(-0.02, 1.05),
    )  # fmt: skip
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}")
    axes.tick_params(axis="x", which="minor", labelsize=7)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


_REPRODUCE = """## One load

    python -m bench.robust --seed 117 --rule ours --rule hpa

prints the load, its cheapest fixed pool, the oracle and a row per rule, and draws arrivals, replicas and late requests
of each rule into `out/robust/`. `--trace azure-code-x10` is a trace, `--load spikes` another family of the same seed,
`--rule hpa=0.5` another setting. The families are in `bench/robust/loads.py`, one function each.
"""
