"""Many loads: rows that accumulate in a file, and a summary of them by family."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

import numpy as np

from bench.robust.judge import CHEAPEST, OUT, Row, digest, judge_rule, write
from bench.robust.loads import DEVELOP, FAMILIES, JUDGE, TRACES, Load, Part, load_of, trace_of

ROWS = OUT / "rows.json"
Task = tuple[Part, str, tuple[str, ...]]
"""A load of a part by its name, and the rules to run on it."""


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
    part, name, names = task
    load = load_named(part, name)
    return [judge_rule(load, rule) for rule in dict.fromkeys((CHEAPEST, *names))]


def read(path: Path = ROWS) -> dict[tuple[str, str], Row]:
    """Return the rows of earlier calls, by load and rule. A trace has a row for each half, told apart by its digest."""
    if not path.exists():
        return {}
    return {key_of(row): row for row in (Row(**one) for one in json.loads(path.read_text()))}


def key_of(row: Row) -> tuple[str, str]:
    return (f"{row.load}/{row.digest}" if row.family == "trace" else row.load, row.rule)


def run_all(part: Part, names: Sequence[str], rules: Sequence[str], jobs: int, path: Path = ROWS) -> Iterator[Row]:
    """Run rules on loads, add the rows to those in the file after each load, and yield them."""
    rows = read(path)
    tasks: list[Task] = [(part, name, tuple(rules)) for name in names]
    with ProcessPoolExecutor(jobs) as workers:
        for done in as_completed([workers.submit(run_task, task) for task in tasks]):
            new = done.result()
            rows |= {key_of(row): row for row in new}
            write(path, json.dumps([asdict(row) for row in rows.values()]))
            yield from new


def geometric_mean(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values)))) if values else math.nan


def summary(rows: Sequence[Row], rule: str) -> str:
    """Return a table by family of one rule: loads met, cost over the cheapest fixed pool, and turns."""
    fixed = {(row.load, row.digest): row for row in rows if row.rule == CHEAPEST}
    mine = [row for row in rows if row.rule == rule]
    families = [one for one in (*FAMILIES, "trace") if any(row.family == one for row in mine)]
    lines = [f"{rule:14} {'loads':>5} {'met':>5} {'/fixed':>7} {'turns/h med':>12} {'max':>6} {'worst min':>9}  missed"]
    for family in (*families, "all"):
        some = [row for row in mine if family in ("all", row.family)]
        if not some:
            continue
        ratios = [row.gpu_hours / fixed[row.load, row.digest].gpu_hours for row in some]
        turns = [row.reversals for row in some]
        worst = float(np.median([row.worst_minute for row in some if not math.isnan(row.worst_minute)] or [math.nan]))
        missed = [f"{row.load.rsplit('-', 1)[1]} ({row.share:.1%})" for row in some if not row.met]
        lines.append(
            f"{family:14} {len(some):5} {sum(row.met for row in some) / len(some):5.0%} {geometric_mean(ratios):7.2f} "
            f"{np.median(turns):12.1f} {max(turns):6.1f} {worst:9.0%}  {' '.join(missed) if family != 'all' else ''}"
        )
    return "\n".join(lines)


def current(rows: Sequence[Row], part: Part, names: Sequence[str]) -> list[Row]:
    """Return the rows of loads as they are defined now."""
    digests = {(name, digest(load_named(part, name))) for name in names}
    return [row for row in rows if (row.load, row.digest) in digests]
