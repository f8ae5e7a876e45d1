"""Replicas that `tierserve plan --trace` finds, compared with the least that a simulation needs.

    python -m bench.prediction.trace_planning          about 3 minutes

bench/prediction/traces.py has the error of p95 at loads of 0.5 to 0.85. Short targets on bursty traces need replicas
that are mostly idle, where the replay is less accurate. Simulations confirm its number as the command does;
the table has their number and the seconds of processor time that they take.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from bench.prediction.traces import FASTER, Case, Q, azure, mooncake, response_s
from tierserve.plan.placement import Placement
from tierserve.plan.trace.replay import ERROR, LOW_LOAD, replay, requests_of
from tierserve.plan.trace.search import Seen, most_of_use, search, seen_of

OUT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "trace-planning.md"
CASES = (
    (Case("azure x10", "Azure code 2023, as 10", lambda: azure(10)), (2.5, 5.0, 10.0, 20.0, 30.0, 40.0, 80.0, 160.0)),
    (Case("azure x20", "Azure code, as 20", lambda: azure(20), 32, FASTER), (1.5, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0)),
    (Case("mooncake x3", "Mooncake conversation, as 3", lambda: mooncake(3)), (12.5, 15.0, 20.0, 30.0, 60.0)),
)


@dataclass(frozen=True)
class Row:
    """One target in seconds: replicas by method, the load with those of the replay, and p95 there."""

    name: str
    target_s: float
    found: int
    margin: int | None
    simulated: int
    mean: int | None
    busiest: int | None
    load: float
    said_s: float
    seen_s: float
    runs: int
    seconds: float

    @property
    def error(self) -> float:
        return self.said_s / self.seen_s - 1.0


def pool(case: Case, target_s: float, sizes: tuple[tuple[float, float, float], ...]) -> Placement:
    return Placement(
        tier="cloud", site="default", kind="cloud", model="m", engine="emulated", source=None, slots=case.slots,
        profile=case.profile, input_tokens=0.0, output_tokens=0.0, uplink_s=0.0, downlink_s=0.0, min_replicas=1,
        max_replicas=1000, startup_s=0.0, percentile=100.0 * Q, target_s=target_s, sizes=sizes, spread_known=True,
    )  # fmt: skip


def rows_of(case: Case, targets: tuple[float, ...]) -> list[Row]:
    work = case.make()
    requests = requests_of(work.times_s, work.input_tokens, work.output_tokens, work.length_s)

    @cache
    def run(replicas: int) -> tuple[np.ndarray, float]:
        began = time.process_time()
        return response_s(case, work, replicas), time.process_time() - began

    most = most_of_use(case.profile, work.times_s, work.input_tokens, work.output_tokens)
    run(most)  # compiled before seconds are counted
    run.cache_clear()
    rows = []
    for target_s in targets:
        one = replay(pool(case, target_s, requests.sizes), requests)
        if one.needed is None:
            print(f"{case.name}: no number of replicas for {target_s:g} s")
            continue
        seconds: list[float] = []

        def at(replicas: int, place: Placement = one.placement, seconds: list[float] = seconds) -> Seen:
            times, took = run(replicas)
            seconds.append(took)
            return seen_of(place, times)

        found = search(at, one.needed, most)
        if found.needed is None:
            print(f"{case.name}: no number of replicas for {target_s:g} s in the simulation")
            continue
        said, seen = one.response_s, float(np.quantile(run(one.needed)[0], Q))
        rows.append(Row(case.name, target_s, one.needed, one.needed_with_margin, found.needed, one.mean.replicas,
                        one.busiest.replicas, one.utilisation, said, seen, found.runs, sum(seconds)))  # fmt: skip
        print(rows[-1])
    return rows


def page(rows: list[Row], whole_s: float) -> str:
    low = [one for one in rows if one.load < LOW_LOAD]
    errors, ratio = [one.error for one in low], [one.found / one.simulated for one in rows]
    close, enough = sum(abs(e) <= ERROR for e in errors), sum((one.margin or 0) >= one.simulated for one in rows)
    runs, seconds = [one.runs for one in rows], [one.seconds for one in rows]
    heads = (
        "trace", "target, s", "simulation", "found", "15% to spare", "plan at the mean rate", "at the busiest 10 min",
        "load", "predicted p95, s", "simulated p95, s", "error", "runs", "seconds",
    )  # fmt: skip
    lines = "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *map(_cells, rows)))
    return f"""# Replicas for a trace

Made by `python -m bench.prediction.trace_planning` ({whole_s:.0f} s of processor time). All figures but
this time and the seconds are the same on any machine.

Replicas that `tierserve plan --trace` finds (`plan.trace.replay`) compared with the least constant number with which a
token-level simulation keeps p95 within the target. Pools as in
[trace-prediction.md](trace-prediction.md), whose 15% is of loads of 0.5 to 0.85. Short targets on bursty traces need
replicas that are mostly idle:

- For {len(low)} targets with loads below {LOW_LOAD:g}, predicted p95 is {min(errors):+.0%} to {max(errors):+.0%} off
  the simulation with the same replicas (below 0: users wait longer than predicted), and within 15% for {close}.
- Replicas found are {min(ratio):.2f} to {max(ratio):.2f} of those that the simulation needs. The most is for a
  target barely above the time of a request alone.
- Those with 15% to spare are enough for {enough} of {len(rows)} targets.

So `tierserve plan --trace` confirms the number by simulation (`plan.trace.search`). That search ends at the
column "simulation" by construction; here it takes {min(runs)} to {max(runs)} runs, {np.mean(runs):.1f} on
average, and {min(seconds):.1f} to {max(seconds):.1f} seconds of one core, {np.mean(seconds):.1f} on average ("runs",
"seconds").

{lines}
"""


def _cells(r: Row) -> tuple[str, ...]:
    return (
        r.name, f"{r.target_s:g}", f"{r.simulated}", f"{r.found}", f"{r.margin or '-'}", f"{r.mean or '-'}",
        f"{r.busiest or '-'}", f"{r.load:.2f}", f"{r.said_s:.2f}", f"{r.seen_s:.2f}", f"{r.error:+.0%}",
        f"{r.runs}", f"{r.seconds:.1f}",
    )  # fmt: skip


def main() -> None:
    began = time.process_time()
    rows = [row for case, targets in CASES for row in rows_of(case, targets)]
    OUT.write_text(page(rows, time.process_time() - began))


if __name__ == "__main__":
    main()
