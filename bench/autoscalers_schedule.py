"""What knowing all arrivals would be worth: the cheapest schedule of replicas that a search finds for each short load.

    make bench-schedules                                         all of them, about 25 minutes on 2 cores
    python bench/autoscalers_schedule.py --scenario wva-bursty   one; the page is made of all that were searched

A schedule says for every 5 s of the judged part how many replicas are wanted. The search (simulated annealing) begins
at the best oracle's, changes a schedule in one place, runs the simulator on all arrivals, and keeps the change where
the replica-seconds plus a price for each request that misses are not higher (or a little by chance). The price follows
the number of misses. It stops after so many changes, not seconds, so that the same is found on any machine. What it
finds is an upper bound of the least that is possible; `autoscalers_bound.py` has a lower one.
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

from autoscalers import GOAL, SCENARIOS, Oracle, oracle_values, pool_of
from autoscalers_bound import least_hours_of_any
from tierserve.simulate.cluster import Setup
from tierserve.simulate.model import Ints, Pool, Snapshot, Workload
from tierserve.simulate.run import simulate

ROOT = Path(__file__).resolve().parent.parent
STEP_S = 5.0
SHORT = ("azure-code", "mooncake", "wva-bursty", "bursts")
"""Loads of which a run takes a second or less. (Under a constant one there is nothing to schedule.)"""
ROUNDS, CHANGES = 12, 250
"""The price is set anew after so many changes."""
WARMTH_S = 5.0
"""Replica-seconds by which a change may be dearer and is still kept with probability 1/e."""


@dataclass(frozen=True)
class Found:
    """The cheapest schedule found: GPU-hours, the share within the target, and the oracle's hours on the same part."""

    scenario: str
    oracle_hours: float
    hours: float
    share: float
    bound_hours: float
    changes: int


@dataclass(frozen=True)
class Part:
    """The judged part alone; what came before it is left out, to the good of the schedule."""

    work: Workload
    pool: Pool

    @property
    def may_miss(self) -> int:
        """Requests that may miss the target."""
        return math.floor((1.0 - GOAL) * len(self.work) + 1e-9)

    def run(self, wanted: Ints) -> tuple[float, int]:
        """Return the replica-seconds and the requests that missed."""
        found = simulate(self.work, self.pool, Schedule(wanted), Setup(initial=int(wanted[0]), seed=1))
        return found.gpu_hours() * 3600.0, int((found.ttft_s > self.pool.objective.ttft_s).sum())


class Schedule:
    """So many replicas at each step, whatever is seen."""

    interval_s = STEP_S

    def __init__(self, wanted: Ints) -> None:
        self.wanted = wanted

    def decide(self, seen: Snapshot) -> int:
        return int(self.wanted[min(round(seen.t / STEP_S), self.wanted.size - 1)])


def part_of(name: str) -> Part:
    """The judged part of a scenario, from second 0 on."""
    scenario = SCENARIOS[name]
    work = scenario.make()
    late = work.times_s >= scenario.tune_s
    times = work.times_s[late] - scenario.tune_s
    mine = Workload(times, work.input_tokens[late], work.output_tokens[late], work.length_s - scenario.tune_s)
    return Part(mine, pool_of(scenario, work))


def changed(wanted: Ints, dice: np.random.Generator) -> Ints:
    """Change a schedule in one place: when one replica comes or goes, or how many there are for a while."""
    new, length = wanted.copy(), int(2 ** dice.integers(6))
    level = int(dice.integers(1, wanted.max() + 1))
    held = np.diff(np.concatenate([[0], (wanted >= level).astype(np.int64), [0]]))
    begins, ends = np.flatnonzero(held == 1), np.flatnonzero(held == -1)
    one = int(dice.integers(begins.size))
    begin, end = int(begins[one]), int(ends[one])
    kind = int(dice.integers(5))
    if kind == 0:  # comes later
        new[begin : min(begin + length, end)] = level - 1
    elif kind == 1:  # goes sooner
        new[max(end - length, begin) : end] = level - 1
    elif kind == 2:  # comes sooner
        new[max(begin - length, 0) : begin] = level
    elif kind == 3:  # goes later
        new[end : end + length] = level
    else:
        at = int(dice.integers(wanted.size))
        new[at : at + 4 * length] += int(dice.choice([-1, -1, 1]))
    return np.maximum(new, 1)


def cheapest_oracle(part: Part) -> Ints:
    """The schedule of the cheapest oracle that keeps the goal, or else of the one that misses least."""
    steps = math.ceil(part.work.length_s / STEP_S)
    tried = []
    for value in oracle_values():
        share = round(value, 3)
        wanted = np.array(Oracle(part.work, part.pool, share, round((value - share) * 1e6)).wanted[:steps])
        seconds, missed = part.run(np.maximum(wanted, 1))
        tried.append((max(missed - part.may_miss, 0), seconds, tuple(np.maximum(wanted, 1).tolist())))
    return np.array(min(tried)[2])


def cheapest(part: Part, wanted: Ints, rounds: int = ROUNDS, changes: int = CHANGES) -> tuple[Ints, float, int]:
    """Search from a schedule on; return the cheapest that keeps the goal, its replica-seconds and misses.

    Where none did it is the first one, whose seconds count as infinite.
    """
    dice, price = np.random.default_rng(1), 3.0
    seconds, missed = part.run(wanted)
    best = (wanted, seconds if missed <= part.may_miss else math.inf, missed)
    for _ in range(rounds):
        for _ in range(changes):
            new = changed(wanted, dice)
            new_s, new_missed = part.run(new)
            dearer_s = new_s - seconds + price * (new_missed - missed)
            if dearer_s > 0.0 and dice.random() >= math.exp(-dearer_s / WARMTH_S):
                continue
            wanted, seconds, missed = new, new_s, new_missed
            if missed <= part.may_miss and seconds < best[1]:
                best = (wanted, seconds, missed)
        price *= 1.25 if missed > part.may_miss else 0.85
    return best


def search(name: str) -> Found:
    """Search the cheapest schedule of one scenario."""
    scenario, part = SCENARIOS[name], part_of(name)
    oracle = cheapest_oracle(part)
    _, seconds, missed = cheapest(part, oracle)
    bound = least_hours_of_any(scenario.make(), part.pool, scenario.tune_s, GOAL)
    share = 1.0 - missed / len(part.work)
    return Found(name, part.run(oracle)[0] / 3600.0, seconds / 3600.0, share, bound, ROUNDS * CHANGES)


def page(all_found: Sequence[Found]) -> str:
    lines = [
        "# What knowing all arrivals would be worth",
        "",
        f"Made by `make bench-schedules` ({os.cpu_count()} cores); the dice have seed 1, so the figures are the same",
        "on any machine. Loads, replicas and targets are those of [the scaling rules](autoscalers.md), here the",
        "judged part alone. GPU-hours.",
        "",
        "- *Oracle*: the simple one of that page.",
        f"- *Cheapest found*: the least with {GOAL:.0%} within the target among so many schedules that a search tried,",
        "  all arrivals known. There may be cheaper ones.",
        "- *Any rule*: what no schedule is under, by proof (`bench/autoscalers_bound.py`).",
        "",
        "It is what a perfect forecast would save; who does not know the arrivals to the second cannot have it.",
        "",
        "| | oracle | cheapest found | within target | any rule | tried |",
        "|---|---|---|---|---|---|",
        *map(_row, all_found),
    ]
    return "\n".join([*lines, ""])


def _row(f: Found) -> str:
    hours = f"{f.oracle_hours:.2f} | {f.hours:.2f} | {f.share:.2%} | {f.bound_hours:.2f}"
    return f"| {f.scenario} | {hours} | {f.changes:,} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", action="append", choices=SHORT)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    kept = ROOT / "out" / "autoscalers-schedules.json"
    kept.parent.mkdir(exist_ok=True)
    known = {row["scenario"]: Found(**row) for row in json.loads(kept.read_text())} if kept.exists() else {}
    todo = arguments.scenario or list(SHORT)
    with ProcessPoolExecutor(arguments.jobs) as workers:
        for found in track(workers.map(search, todo), "loads", total=len(todo)):
            known[found.scenario] = found
            kept.write_text(json.dumps([asdict(f) for f in known.values()]))
    path = arguments.out / "autoscalers-schedules.md"
    path.write_text(page([known[name] for name in SHORT if name in known]))
    print(path)


if __name__ == "__main__":
    main()
