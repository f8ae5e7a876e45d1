"""The gain of knowing all arrivals: the cheapest schedule of replicas that a search finds for each load.

    make bench-schedules                                         all of them, about half an hour on 2 cores
    python -m bench.autoscaling.schedule --scenario wva-bursty   one; the page contains all that were searched

A schedule has the number of replicas for every 5 s of the evaluated part. The search (simulated annealing) begins
at the best oracle's, changes a schedule in one place, runs the simulator on all arrivals, and keeps the change where
the replica-seconds plus a price for each request that misses are not higher (or a little by chance). The price follows
the number of misses. It stops after so many changes, not seconds, so that the same is found on any machine. A long load
is searched in pieces, each begun without work, in favour of the schedule. The result is an upper bound of
the minimum (for pieces: nearly one); `bound.py` has a lower one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from bench.autoscaling.bound import least_hours_of_any
from bench.autoscaling.measure import GOAL, SCENARIOS, Oracle, oracle_values, pool_of
from tierserve.simulate.cluster import Setup
from tierserve.simulate.run import simulate
from tierserve.simulate.types import Ints, Pool, Snapshot, Workload

ROOT = Path(__file__).resolve().parents[2]
STEP_S = 5.0
PIECES = {"azure-code": 1, "mooncake": 1, "servegen": 12, "wva-bursty": 1, "bursts": 1}
"""The loads, and in how many pieces each is searched. (`daily` is as long, but its start-ups are slow: pieces would be
too easy. Under a constant load there is nothing to schedule.)"""
ROUNDS, CHANGES, LEAST_CHANGES = 12, 160, 40
"""Rounds; changes per round, after which the price is set again; the least of them in a piece."""
WARMTH_S = 5.0
"""A change that costs so many replica-seconds more is kept with probability 1/e."""


@dataclass(frozen=True)
class Found:
    """The cheapest schedule found for a piece: GPU-hours, misses and requests, and the oracle's hours beside it."""

    scenario: str
    piece: int
    oracle_hours: float
    hours: float
    missed: int
    requests: int


@dataclass(frozen=True)
class Part:
    """A piece of the evaluated part alone, without the work before it, in favour of the schedule."""

    work: Workload
    pool: Pool

    @property
    def may_miss(self) -> int:
        """Requests that may miss the target."""
        return math.floor((1.0 - GOAL) * len(self.work) + 1e-9)

    def run(self, desired: Ints) -> tuple[float, int]:
        """Return the replica-seconds and the requests that missed."""
        found = simulate(self.work, self.pool, Schedule(desired), Setup(initial=int(desired[0]), seed=1))
        return found.gpu_hours() * 3600.0, int((found.ttft_s > self.pool.objective.ttft_s).sum())


class Schedule:
    """A fixed number of replicas at each step, whatever is measured."""

    interval_s = STEP_S

    def __init__(self, desired: Ints) -> None:
        self.desired = desired

    def decide(self, seen: Snapshot) -> int:
        return int(self.desired[min(round(seen.t / STEP_S), self.desired.size - 1)])


def part_of(name: str, piece: int = 0) -> Part:
    """A piece of the evaluated part of a scenario, from second 0 on."""
    scenario = SCENARIOS[name]
    work = scenario.make()
    length_s = (work.length_s - scenario.tune_s) / PIECES[name]
    begin_s = scenario.tune_s + piece * length_s
    mine = (work.times_s >= begin_s) & (work.times_s < begin_s + length_s)
    times = work.times_s[mine] - begin_s
    cut = Workload(times, work.input_tokens[mine], work.output_tokens[mine], length_s)
    return Part(cut, pool_of(scenario, work))


def changed(desired: Ints, dice: np.random.Generator) -> Ints:
    """Change a schedule in one place: when one replica starts or stops, or their number for a while."""
    new, length = desired.copy(), int(2 ** dice.integers(6))
    level = int(dice.integers(1, desired.max() + 1))
    held = np.diff(np.concatenate([[0], (desired >= level).astype(np.int64), [0]]))
    begins, ends = np.flatnonzero(held == 1), np.flatnonzero(held == -1)
    one = int(dice.integers(begins.size))
    begin, end = int(begins[one]), int(ends[one])
    kind = int(dice.integers(5))
    if kind == 0:  # starts later
        new[begin : min(begin + length, end)] = level - 1
    elif kind == 1:  # stops sooner
        new[max(end - length, begin) : end] = level - 1
    elif kind == 2:  # starts sooner
        new[max(begin - length, 0) : begin] = level
    elif kind == 3:  # stops later
        new[end : end + length] = level
    else:
        at = int(dice.integers(desired.size))
        new[at : at + 4 * length] += int(dice.choice([-1, -1, 1]))
    return np.maximum(new, 1)


def cheapest_oracle(part: Part) -> Ints:
    """The schedule of the cheapest oracle that meets the goal, or else of the one that misses least."""
    steps = math.ceil(part.work.length_s / STEP_S)
    tried = []
    for value in oracle_values():
        share = round(value, 3)
        desired = np.array(Oracle(part.work, part.pool, share, round((value - share) * 1e6)).desired[:steps])
        seconds, missed = part.run(np.maximum(desired, 1))
        tried.append((max(missed - part.may_miss, 0), seconds, tuple(np.maximum(desired, 1).tolist())))
    return np.array(min(tried)[2])


def cheapest(part: Part, desired: Ints, rounds: int = ROUNDS, changes: int = CHANGES) -> tuple[Ints, float, int]:
    """Search from a schedule on; return the cheapest that meets the goal, its replica-seconds and misses.

    Where none did it is the first one, whose seconds count as infinite.
    """
    dice, price = np.random.default_rng(1), 3.0
    seconds, missed = part.run(desired)
    best = (desired, seconds if missed <= part.may_miss else math.inf, missed)
    for _ in range(rounds):
        for _ in range(changes):
            new = changed(desired, dice)
            new_s, new_missed = part.run(new)
            dearer_s = new_s - seconds + price * (new_missed - missed)
            if dearer_s > 0.0 and dice.random() >= math.exp(-dearer_s / WARMTH_S):
                continue
            desired, seconds, missed = new, new_s, new_missed
            if missed <= part.may_miss and seconds < best[1]:
                best = (desired, seconds, missed)
        price *= 1.25 if missed > part.may_miss else 0.85
    return best


def search(task: tuple[str, int]) -> Found:
    """Search the cheapest schedule of a piece."""
    name, piece = task
    part = part_of(name, piece)
    oracle = cheapest_oracle(part)
    _, seconds, missed = cheapest(part, oracle, changes=max(CHANGES // PIECES[name], LEAST_CHANGES))
    return Found(name, piece, part.run(oracle)[0] / 3600.0, seconds / 3600.0, missed, len(part.work))


def page(found: Sequence[Found]) -> str:
    lines = [
        "# The gain of knowing all arrivals",
        "",
        f"Made by `make bench-schedules` ({os.cpu_count()} cores); random numbers have seed 1, so the figures are the",
        "same on any machine. Loads, replicas and targets are those of [the scaling rules](autoscalers.md), here the",
        "evaluated part alone, that of `servegen` in pieces of two hours. GPU-hours.",
        "",
        "- *Oracle*: that of the same page.",
        f"- *Cheapest found*: the least with {GOAL:.0%} within the target among {ROUNDS * CHANGES:,} schedules that a",
        f"  search tried ({ROUNDS * LEAST_CHANGES} of each piece), all arrivals known. There may be cheaper ones.",
        "- *Any rule*: proven lower bound of every schedule (`bench/autoscaling/bound.py`).",
        "",
        "This is the saving of a perfect forecast, which needs the arrivals to the second.",
        "",
        "| | oracle | cheapest found | within target | any rule |",
        "|---|---|---|---|---|",
        *(_row(name, mine) for name in PIECES if (mine := [f for f in found if f.scenario == name])),
    ]
    return "\n".join([*lines, ""])


def _row(name: str, pieces: Sequence[Found]) -> str:
    scenario = SCENARIOS[name]
    work = scenario.make()
    bound = least_hours_of_any(work, pool_of(scenario, work), scenario.tune_s, GOAL)
    share = 1.0 - sum(f.missed for f in pieces) / sum(f.requests for f in pieces)
    oracle, best = sum(f.oracle_hours for f in pieces), sum(f.hours for f in pieces)
    return f"| {name} | {oracle:.2f} | {best:.2f} | {share:.2%} | {bound:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", action="append", choices=list(PIECES))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    kept = ROOT / "out" / "autoscalers-schedules.json"
    kept.parent.mkdir(exist_ok=True)
    rows = json.loads(kept.read_text()) if kept.exists() else []
    known = {(row["scenario"], row["piece"]): Found(**row) for row in rows}
    todo = [(name, piece) for name in arguments.scenario or PIECES for piece in range(PIECES[name])]
    with ProcessPoolExecutor(arguments.jobs) as workers:
        for found in track(workers.map(search, todo), "pieces", total=len(todo)):
            known[found.scenario, found.piece] = found
            kept.write_text(json.dumps([asdict(f) for f in known.values()]))
    path = arguments.out / "autoscalers-schedules.md"
    path.write_text(page(list(known.values())))
    print(path)


if __name__ == "__main__":
    main()
