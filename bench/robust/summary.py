"""Many loads: rows that accumulate in a file, figures of a rule over loads, and a summary by family."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from bench.robust.judge import CHEAPEST, ORACLE, OUT, Row, digest, judge_rule, write
from bench.robust.loads import DEVELOP, FAMILIES, JUDGE, TRACES, Load, Part, load_of, trace_of

ROWS = {"develop": OUT / "rows.json", "judge": OUT / "rows-judge.json"}
SUBSET = (
    "steps-3", "growth-5", "batches-8", "long-prompts-10", "closed-11", "on-off-14", "growth-17", "batches-20",
    "heavy-tailed-21", "azure-code-x3",
)  # fmt: skip
"""Loads to develop on that are quick to run and together have most of what the others have."""
Rows = dict[tuple[str, str], Row]
Task = tuple[Part, str, tuple[str, ...], dict[str, Row]]
"""A load of a part by its name, the rules to run on it, and rows of earlier calls that may be kept."""


def load_named(part: Part, name: str) -> Load:
    """Return a load by its name: that of a trace, or family and seed."""
    return trace_of(name, part) if name in TRACES else load_of(int(name.rsplit("-", 1)[1]), name.rsplit("-", 1)[0])


def names_of(part: Part, seeds: Sequence[int] | None, families: Sequence[str] | None) -> list[str]:
    """Return the names of the loads of a part; without seeds, all of them and the traces."""
    kinds = list(FAMILIES)
    allowed = DEVELOP if part == "develop" else JUDGE
    chosen = [seed for seed in (seeds or allowed) if seed in allowed]
    names = [f"{kinds[seed % len(kinds)]}-{seed}" for seed in chosen]
    found = [name for name in names if families is None or name.rsplit("-", 1)[0] in families]
    if (seeds is None and families is None) or (families is not None and "trace" in families):
        found += TRACES
    return found


def run_task(task: Task) -> list[Row]:
    """Run the rules on a load, and the cheapest fixed pool beside them."""
    part, name, names, kept = task
    load = load_named(part, name)
    known = digest(load)
    return [
        kept[rule] if rule in kept and kept[rule].digest == known else judge_rule(load, rule)
        for rule in dict.fromkeys((CHEAPEST, *names))
    ]


def read(path: Path) -> Rows:
    """Return the rows of earlier calls, by load and rule; those of an older form are left out."""
    if not path.exists():
        return {}
    names = {one.name for one in fields(Row)}
    rows = [Row(**one) for one in json.loads(path.read_text()) if set(one) == names]
    return {(row.load, row.rule): row for row in rows}


def run_all(
    part: Part, names: Sequence[tuple[str, Sequence[str]]], jobs: int, path: Path, *, keep: bool = False
) -> Iterator[Row]:
    """Run rules on loads, add the rows to those in the file after each load, and yield them.

    Args:
        part: which loads, see `loads`.
        names: loads, each with its rules.
        jobs: processes.
        path: the file.
        keep: whether rows in the file are kept where the load is still the same; else all are run again.
    """
    rows = read(path)
    tasks: list[Task] = [
        (part, name, tuple(rules), {rule: rows[name, rule] for rule in rules if (name, rule) in rows} if keep else {})
        for name, rules in names
    ]
    with ProcessPoolExecutor(jobs) as workers:
        for done in as_completed([workers.submit(run_task, task) for task in tasks]):
            new = done.result()
            # read again: another call may have written meanwhile
            rows = read(path) | {(row.load, row.rule): row for row in new}
            write(path, json.dumps([asdict(row) for row in rows.values()]))
            yield from new


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean, NaN of nothing."""
    return float(np.exp(np.mean(np.log(values)))) if values else math.nan


@dataclass(frozen=True)
class Figures:
    """A rule over some loads.

    Attributes:
        loads: how many.
        met: share of them on which the objective was met.
        over_fixed, over_oracle: GPU-hours over those of the cheapest fixed pool and of the oracle, geometric means.
            The second one is over the loads on which the oracle meets the objective.
        turns, most_turns: changes of direction per hour, median and most.
        worst_minute: median over the loads.
    """

    loads: int
    met: float
    over_fixed: float
    over_oracle: float
    turns: float
    most_turns: float
    worst_minute: float


def figures(rows: Sequence[Row], all_rows: Mapping[tuple[str, str], Row]) -> Figures | None:
    """Return the figures of rows of one rule, given the rows in hindsight; None without a row."""
    if not rows:
        return None
    turns = [row.reversals for row in rows]
    worst = [row.worst_minute for row in rows if not math.isnan(row.worst_minute)]
    return Figures(
        loads=len(rows),
        met=sum(row.met for row in rows) / len(rows),
        over_fixed=geometric_mean(_ratios(rows, all_rows, CHEAPEST)),
        over_oracle=geometric_mean(_ratios(rows, all_rows, ORACLE)),
        turns=float(np.median(turns)),
        most_turns=max(turns),
        worst_minute=float(np.median(worst)) if worst else math.nan,
    )


def _ratios(rows: Sequence[Row], all_rows: Mapping[tuple[str, str], Row], base: str) -> list[float]:
    found = ((row, all_rows.get((row.load, base))) for row in rows)
    return [row.gpu_hours / one.gpu_hours for row, one in found if one is not None and one.met]


def summary(rows: Mapping[tuple[str, str], Row], names: Sequence[str], rule: str) -> str:
    """Return a table of one rule by family, on the loads of these names."""
    mine = [rows[name, rule] for name in names if (name, rule) in rows]
    parts: list[tuple[str, list[Row]]] = [
        (family, [row for row in mine if row.family == family]) for family in (*FAMILIES, "trace")
    ]
    made = [row for row in mine if row.family != "trace"]
    parts += [
        ("STATIONARY", [row for row in made if row.stationary]),
        ("DAILY", [row for row in mine if row.daily]),
        ("ALL", mine),
    ]
    lines = [
        f"{rule:14} {'loads':>5} {'met':>5} {'/fixed':>7} {'/oracle':>7} {'turns/h':>7} {'most':>6} {'worst min':>9}"
        "  missed"
    ]
    for name, some in parts:
        one = figures(some, rows)
        if one is None:
            continue
        missed = " ".join(f"{row.load} ({row.share:.1%})" for row in some if not row.met)
        lines.append(
            f"{name:14} {one.loads:5} {one.met:5.0%} {one.over_fixed:7.2f} {one.over_oracle:7.2f} {one.turns:7.1f} "
            f"{one.most_turns:6.1f} {one.worst_minute:9.0%}  {missed if name.islower() else ''}"
        )
    return "\n".join(lines)
