"""p95 while connections grow from 10 to 500,000 by 10% a minute: TierServe's rule and others, simulated.

    make bench-growth                                  all of it
    python -m bench.growth.page --quick --out /tmp/growth   a small one: to 300 connections, few rules
    python -m bench.growth.page --case slots-103 --rule ours  a part; the page contains all parts run so far

Each connection has a think time of 120 s on average between a response and its next request. Three cases: the slot
model with start-ups of 103 and 30 s, and the token model with 103 s. Rules run with the parameter as published; nothing
is tuned.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.progress import track

from bench.autoscaling.ablations import PARTS
from bench.autoscaling.measure import A100_8B, rules
from bench.autoscaling.measure import with_itl_target as with_batch_itl_target
from tierserve.queueing import BatchProfile
from tierserve.queueing.sizing import Demand, replicas_for
from tierserve.queueing.sizing import Objective as Staffing
from tierserve.simulate.cluster import Setup
from tierserve.simulate.run import Result, simulate
from tierserve.simulate.types import Floats, Objective, Policy, Pool, Snapshot, Workload
from tierserve.simulate.workload import Sizes

ROOT = Path(__file__).resolve().parents[2]
FIRST, LAST = 10.0, 500_000.0
PER_MINUTE = 0.10
SPEED = math.log1p(PER_MINUTE) / 60.0
THINK_S = 120.0
WARM_S = 600.0
"""Time at the first number of connections before it begins to grow."""
SIZES = Sizes(1000.0, 300.0, 0.5)
SLOTS = 32
MARGIN = 0.05
"""Share of the p95 of service alone that a request may wait: so that p95 stays within 5%."""
CEILING = 10_000
LOW, REPEATS = 1000.0, 6
"""Connections up to which the growth is repeated with other seeds, and the number of runs: requests are few there."""
BIN = 10.0**0.25


@dataclass(frozen=True)
class Case:
    """A model of the replica and its start-up time."""

    model: str
    startup_s: float

    @property
    def name(self) -> str:
        return f"{self.model}-{self.startup_s:.0f}"


CASES = (Case("slots", 103.0), Case("slots", 30.0), Case("tokens", 103.0))
QUICK_TO_START = ("ours", "hpa", "keda", "skyserve", "dynamo-throughput", "wva-queue", "oracle")
"""Rules that are run with the short start-up time too: the others differ with the longer one only."""


@dataclass(frozen=True)
class Scale:
    """Extent of the growth: once to `last`, then repeatedly to `low`."""

    last: float = LAST
    low: float = LOW
    repeats: int = REPEATS

    def runs(self) -> list[tuple[float, int]]:
        return [(self.last, 1), *((min(self.low, self.last), seed) for seed in range(2, self.repeats + 1))]


QUICK = Scale(300.0, 100.0, 2)


@dataclass
class Bin:
    """Requests that arrived while there were from `low` to `high` connections; seconds."""

    low: float
    high: float
    requests: int
    p95: float
    bare_p95: float
    wait_p99: float
    attained: float


@dataclass
class Run:
    """One rule in one case; `hours`: GPU-hours of the growth to the last connection, its first minutes left out."""

    case: str
    rule: str
    last: float
    hours: float
    reversals: float
    attained: float
    requests: int
    decades: list[Bin]
    bins: list[Bin]
    cpu_s: float


def profile_of(case: Case) -> BatchProfile:
    """The model's roofline; in the slot model all steps are as long as those of a full batch."""
    if case.model == "tokens":
        return A100_8B
    return BatchProfile(A100_8B.decode(SLOTS, SIZES.input, SIZES.output), 0.0, 0.0)


def service_s(case: Case) -> float:
    """Mean seconds of a request in a full batch."""
    return profile_of(case).service_time(SLOTS, SIZES.input, SIZES.output)


def bare(profile: BatchProfile, work: Workload) -> Floats:
    """Seconds of each request alone."""
    i, o = work.input_tokens, work.output_tokens
    return (
        (1.0 + o) * profile.alpha
        + (profile.beta + profile.gamma) * i
        + o * (profile.beta + profile.gamma * (i + o / 2.0))
    )


def growth(last: float, seed: int, case: Case) -> Workload:
    """Poisson arrivals of growing connections: each sends a request per think time and service."""
    rate = FIRST / (THINK_S + service_s(case))
    grown = rate / SPEED * (last / FIRST - 1.0)
    rng = np.random.default_rng(seed)
    total = rate * WARM_S + grown
    at = np.sort(rng.uniform(0.0, total, rng.poisson(total)))
    late = np.maximum(at - rate * WARM_S, 0.0)
    times = np.where(late > 0.0, WARM_S + np.log1p(late * SPEED / rate) / SPEED, at / rate)
    return Workload(times, *SIZES.draw(at.size, rng), WARM_S + math.log(last / FIRST) / SPEED, f"to {last:g}")


def full_p95_s() -> float:
    """p95 of the service times in full batches, without a wait."""
    case = Case("slots", 0.0)
    return float(np.quantile(bare(profile_of(case), growth(10_000.0, 0, case)), 0.95))


def pool_of(case: Case) -> Pool:
    profile, p95 = profile_of(case), full_p95_s()
    slack = MARGIN * p95
    goal = Objective(
        response_s=p95 + slack, ttft_s=profile.prefill(SLOTS, SIZES.input, SIZES.output) + slack, percentile=99.0
    )
    return Pool(profile, SLOTS, case.startup_s, goal, SIZES.input, SIZES.output, max_replicas=CEILING)


def with_itl_target(pool: Pool, case: Case) -> Pool:
    """The pool as rules get it, with a target between tokens: a loose one where batches do not slow their members."""
    if case.model == "tokens":
        return with_batch_itl_target(pool)
    return replace(pool, objective=replace(pool.objective, itl_s=1.25 * pool.profile.alpha))


class Oracle:
    """Knows the future rate, not the arrivals: Erlang C for the rate at the end of the start-up time."""

    interval_s = 2.0

    def __init__(self, pool: Pool, case: Case, last: float) -> None:
        self.rate, self.last, self.pool = FIRST / (THINK_S + service_s(case)), last, pool
        self.demand = Demand(0.0, service_s(case))
        slack = pool.objective.ttft_s - pool.profile.prefill(SLOTS, SIZES.input, SIZES.output)
        self.goal = Staffing(self.demand.service_s + slack, pool.objective.percentile)

    def decide(self, seen: Snapshot) -> int:
        ahead_s = max(seen.t - WARM_S + self.pool.startup_s + self.interval_s, 0.0)
        rate = self.rate * min(math.exp(SPEED * ahead_s), self.last / FIRST)
        return replicas_for(self.demand.at(rate * self.demand.service_s), self.goal, SLOTS)


def policy_of(rule: str, pool: Pool, case: Case, last: float) -> Policy:
    oracle = Oracle(pool, case, last)
    if rule == "oracle":
        return oracle
    if rule == "static":  # for the load at the end, which a rule cannot know
        return rules()[rule].make(pool, float(oracle.decide(_at_the_end(last))))
    one = rules()["ray-serve"] if rule == "ray-serve-0.7" else rules()[rule]
    return one.make(with_itl_target(pool, case), 0.7 if rule == "ray-serve-0.7" else one.default)


def _at_the_end(last: float) -> Snapshot:
    names = dict.fromkeys(Snapshot.__dataclass_fields__, 0.0)
    return Snapshot(**{**names, "t": WARM_S + math.log(last / FIRST) / SPEED})  # type: ignore[arg-type]


def names() -> list[str]:
    parts = {one.name for one in PARTS}
    found = [name for name in rules() if name not in parts]
    found.insert(found.index("ray-serve") + 1, "ray-serve-0.7")
    return [*found, "oracle"]


def names_of(case: Case) -> list[str]:
    """Rules of a case, in the order of `names`."""
    return [name for name in names() if case.startup_s > 60.0 or name in QUICK_TO_START]


def title(rule: str) -> str:
    own = {
        "oracle": "Oracle",
        "ray-serve": "Ray Serve, 2 requests a replica",
        "ray-serve-0.7": "Ray Serve, 0.7 of the slots",
    }
    return own.get(rule) or rules()[rule].title


@dataclass
class Answers:
    """Results of requests: connections at their arrival; seconds of response, service alone and wait; kept."""

    connections: Floats
    response: Floats
    bare: Floats
    wait: Floats
    kept: Floats

    def within(self, low: float, high: float) -> Bin | None:
        mine = (self.connections >= low) & (self.connections < high)
        if not mine.any():
            return None

        def quantile(values: Floats, q: float) -> float:
            return float(np.quantile(values[mine], q, method="higher"))

        return Bin(
            low, high, int(mine.sum()), quantile(self.response, 0.95), quantile(self.bare, 0.95),
            quantile(self.wait, 0.99), float(self.kept[mine].mean()),
        )  # fmt: skip


def answers(found: Result, work: Workload, pool: Pool) -> Answers:
    grown = found.arrive_s >= WARM_S
    wait = np.nan_to_num(found.start_s - found.arrive_s, nan=np.inf)
    kept = (found.ttft_s <= pool.objective.ttft_s).astype(np.float64)
    connections = FIRST * np.exp(SPEED * (found.arrive_s - WARM_S))
    alone = bare(pool.profile, work)
    return Answers(*(x[grown] for x in (connections, found.response_s, alone, wait, kept)))


def edges(last: float, step: float) -> list[float]:
    count = math.ceil(math.log(last / FIRST) / math.log(step) - 1e-9)
    return [FIRST * step**k for k in range(count)] + [last]


def one_run(task: tuple[Case, str, Scale]) -> Run:
    case, rule, scale = task
    started = time.process_time()
    pool, parts, figures = pool_of(case), [], (0.0, 0.0)
    for last, seed in scale.runs():
        work = growth(last, seed, case)
        policy = policy_of(rule, pool, case, scale.last)
        initial = policy.decide(_at_the_end(last)) if rule == "static" else 1
        service = bare(pool.profile, work) if case.model == "slots" else None
        found = simulate(work, pool, policy, Setup(case.model, initial=initial, seed=seed), service_s=service)
        parts.append(answers(found, work, pool))
        if seed == 1:
            figures = found.gpu_hours(WARM_S), found.reversals_per_hour(WARM_S)
    every = Answers(*(np.concatenate([getattr(p, k) for p in parts]) for k in Answers.__dataclass_fields__))
    first = parts[0]

    def table(step: float) -> list[Bin]:
        points = edges(scale.last, step)
        found = (every.within(a, b) for a, b in itertools.pairwise(points))
        return [one for one in found if one]

    return Run(
        case.name, rule, scale.last, *figures, float(first.kept.mean()), len(every.wait), table(10.0), table(BIN),
        time.process_time() - started,
    )  # fmt: skip


def load(path: Path) -> list[Run]:
    """Runs of earlier calls."""
    if not path.exists():
        return []
    rows = json.loads(path.read_text())
    return [
        Run(**{**row, "decades": [Bin(**b) for b in row["decades"]], "bins": [Bin(**b) for b in row["bins"]]})
        for row in rows
    ]


def merged(old: Sequence[Run], new: Run) -> list[Run]:
    """The old runs and the new one, which replaces an earlier run of the same task."""
    return [r for r in old if (r.case, r.rule) != (new.case, new.rule) and r.last == new.last] + [new]


def summary_of(run: Run) -> str:
    figures = " ".join(f"{b.p95:.2f}/{b.attained:.3f}" for b in run.decades)
    return (
        f"{run.case:11s}{run.rule:19s}{run.hours:9.0f} h {run.reversals:5.1f} reversals/h {run.cpu_s:5.0f} s  {figures}"
    )


def measured(todo: Sequence[tuple[Case, str, Scale]], jobs: int) -> Iterator[Run]:
    """Run all tasks, with a progress bar."""
    one_run((todo[0][0], "hpa", replace(QUICK, repeats=1)))  # compiles, once for all processes
    if jobs == 1:
        yield from track(map(one_run, todo), "runs", total=len(todo))
        return
    with ProcessPoolExecutor(jobs) as workers:
        yield from track(workers.map(one_run, todo), "runs", total=len(todo))
