"""Scaling rules compared on real and synthetic traces: requests within their targets, and GPU-hours.

    make bench-autoscalers                                   all of it, about 45 minutes on 2 cores
    python -m bench.autoscaling.page --scenario azure-code        a part; the page contains all parts run so far
    python -m bench.autoscaling.page --rule ours --rule hpa       some rules

Every rule is run with every value of its parameter. The value is chosen on the first part of a trace: the fewest
GPU-hours among those that keep 99% of the requests within their targets there (where none does, the one that keeps
most). It is evaluated on the rest, together with the value that is best in hindsight. The oracle knows the future
arrivals and has its settings chosen in hindsight. All share the simulator, the arrivals, one queue at the gateway, the
start-up time and drained stops.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.progress import track

from bench.autoscaling.ablations import PARTS
from tierserve.loadgen.traces import load_rates
from tierserve.loadgen.workloads import traced
from tierserve.queueing import BatchProfile
from tierserve.simulate.cluster import Setup
from tierserve.simulate.policies.base import Rule
from tierserve.simulate.policies.ours import OURS
from tierserve.simulate.policies.registry import RULES
from tierserve.simulate.run import Result, simulate
from tierserve.simulate.types import Objective, Policy, Pool, Snapshot, Workload
from tierserve.simulate.workload import Sizes, bursts, poisson, steps, stream, thickened

ROOT = Path(__file__).resolve().parents[2]
GOAL = 0.99
STARTUP_S = 103.0
"""WVA's paper measured it for a replica with an 8B model."""
A100_8B = BatchProfile(alpha=0.0112, beta=1.03e-4, gamma=9.2e-8)
"""The roofline of an 8B model on an A100 (plan/hardware.py): 16 GB of weights, 128 KiB of cache a token."""
SLOW_STARTUP_S = 439.0
"""The longest that peers publish for a replica."""
DAY_S = 86_400.0
IDLE_W, MAX_W = 80.0, 400.0


@dataclass(frozen=True)
class Scenario:
    """A workload and the pool that serves it; `tune_s`: where the first part ends."""

    name: str
    about: str
    make: Callable[[], Workload]
    slots: int
    objective: Objective
    tune_s: float
    warm_s: float = 600.0
    startup_s: float = STARTUP_S


def azure() -> Workload:
    return thickened(traced("azure-code"), 10, 5.0)


def mooncake() -> Workload:
    return thickened(traced("mooncake-conversation"), 3, 5.0)


def servegen() -> Workload:
    values, step_s = load_rates("language/m-small")
    days = values[: 2 * 144]  # two days: one to tune on, one to judge
    days = days * 3.0 / days.mean()

    def rate(t: np.ndarray) -> np.ndarray:
        found: np.ndarray = days[np.minimum((t / step_s).astype(int), days.size - 1)]
        return found

    return stream(rate, float(days.max()), days.size * step_s, Sizes(1500, 400, 1.0), seed=1, name="servegen")


def wva() -> Workload:
    return steps((15, 2, 10, 15, 5, 2) * 4, 150.0, Sizes(1000, 1000, 0.1), 1, "wva bursty")


def markov() -> Workload:
    return bursts(4.0, 20.0, low_s=400.0, high_s=60.0, length_s=4 * 3600.0, sizes=Sizes(1000, 300, 0.5))


def daily() -> Workload:
    """Three days: 0.6/s at night, 6/s by day, up within an hour in the morning, down within four in the evening.

    Days differ: mornings begin some 5 minutes sooner or later, days are some 10% higher or lower.
    """
    dice, days = np.random.default_rng(7), 3
    late_s, height = dice.normal(0.0, 300.0, days), np.exp(dice.normal(0.0, 0.1, days))
    wobble = np.exp(dice.normal(0.0, 0.03, days * 144 + 1))

    def rate(t: np.ndarray) -> np.ndarray:
        day = np.minimum((t / DAY_S).astype(int), days - 1)
        hour = (t - day * DAY_S - late_s[day]) / 3600.0
        up = np.interp(hour, (7.0, 8.0, 18.0, 22.0), (0.1, 1.0, 1.0, 0.1))
        found: np.ndarray = 6.0 * height[day] * up * wobble[(t / 600.0).astype(int)]
        return found

    most = 6.0 * float(height.max() * wobble.max())
    return stream(rate, most, days * DAY_S, Sizes(2000, 1000, 0.7), seed=1, name="daily")


def constant() -> Workload:
    return poisson(10.0, 2 * 3600.0, Sizes(1000, 300, 0.5), 1)


TTFT_5S, TTFT_30S = Objective(ttft_s=5.0), Objective(ttft_s=30.0)  # 30 s: Mooncake's own, for prompts of 12k tokens
SCENARIOS = {
    one.name: one
    for one in (
        Scenario("azure-code", "Azure code 2023, each request as 10 within 5 s", azure, 32, TTFT_5S, 1712.0),
        Scenario("mooncake", "Mooncake conversation, each request as 3 within 5 s", mooncake, 32, TTFT_30S, 1770.0),
        Scenario("servegen", "ServeGen m-small, 2 days, mean 3/s", servegen, 32, TTFT_5S, 86_400.0, 7200.0),
        Scenario("wva-bursty", "WVA's bursty rates, 4 times: 15, 2, 10, 15, 5, 2/s", wva, 64, TTFT_5S, 1800.0),
        Scenario("bursts", "Markov-modulated, 4 and 20/s for 400 and 60 s", markov, 32, TTFT_5S, 2 * 3600.0),
        Scenario(
            "daily",
            "Three days, tenfold within an hour each morning, start-up 439 s",
            daily,
            16,
            TTFT_30S,
            2 * DAY_S,
            7200.0,
            SLOW_STARTUP_S,
        ),
        Scenario("constant", "Poisson, 10/s", constant, 32, TTFT_5S, 3600.0),
    )
}


def pool_of(scenario: Scenario, work: Workload) -> Pool:
    first = work.times_s < scenario.tune_s
    return Pool(
        A100_8B,
        scenario.slots,
        scenario.startup_s,
        scenario.objective,
        float(work.input_tokens[first].mean()),
        float(work.output_tokens[first].mean()),
        max_replicas=2000,
    )


def work_of(pool: Pool) -> float:
    """Seconds of a full replica that a mean request takes."""
    return pool.profile.service_time(pool.slots, pool.input_tokens, pool.output_tokens) / pool.slots


def least_hours(scenario: Scenario, work: Workload, pool: Pool) -> float:
    """GPU-hours of the work that arrives on the evaluated part, each request as one of a full batch.

    That is its share of the steps that it is in, its tokens computed and its tokens of context read. A rule may be
    below it by the work that it leaves unfinished at the end; `bound.py` has a lower bound of every rule that meets
    the goal.
    """
    late = work.times_s >= scenario.tune_s
    i, o = work.input_tokens[late].astype(float), work.output_tokens[late].astype(float)
    step = pool.profile
    seconds = step.alpha * (o + 1.0) / pool.slots + step.beta * (i + o) + step.gamma * (o + 1.0) * (i + o / 2.0)
    return float(seconds.sum()) / 3600.0


class Oracle:
    """Knows all arrivals: starts replicas ahead of the load, and stops them after the last request that needs them."""

    interval_s = 5.0

    def __init__(self, work: Workload, pool: Pool, share: float, smooth_s: float) -> None:
        step = self.interval_s
        count = int(work.length_s / step) + 2
        load = np.bincount((work.times_s / step).astype(int), minlength=count) * work_of(pool) / step
        width = max(int(smooth_s / step), 1)
        mean = np.convolve(load, np.ones(width) / width, mode="same")
        ahead = math.ceil(pool.startup_s / step) + 1
        # a replica stopped and started again costs a start-up: through shorter lulls it is held
        self.desired = [math.ceil(share * float(mean[k : k + 2 * ahead + 1].max(initial=0.0))) for k in range(count)]

    def decide(self, seen: Snapshot) -> int:
        return max(self.desired[min(int(seen.t / self.interval_s), len(self.desired) - 1)], 1)


@dataclass
class Run:
    """One rule with one value of its parameter on one scenario."""

    scenario: str
    rule: str
    value: float
    tune_share: float
    tune_hours: float
    share: float
    hours: float
    ttft_p95: float
    ttft_p99: float
    itl_p95: float
    itl_p99: float
    response_p95: float
    response_p99: float
    reversals: float
    aborted: int
    megajoules: float
    wall_s: float


def rules(names: Sequence[str] | None = None) -> dict[str, Rule]:
    found = {**{one.name: one for one in (*OURS, *PARTS)}, **RULES}
    return {k: v for k, v in found.items() if names is None or k in names}


def oracle_values() -> list[float]:
    """Share and seconds of smoothing, packed as share + seconds / 1e6."""
    return [
        share + seconds / 1e6 for share in (0.8, 0.9, 1.0, 1.1, 1.25, 1.4, 1.7, 2.0) for seconds in (5, 15, 60, 180)
    ]


def values_of(rule: str, work: Workload, pool: Pool) -> list[float]:
    if rule == "oracle":
        return oracle_values()
    if rule == "static":  # around the load of the whole trace: the widest choice of all
        load = len(work) / work.length_s * work_of(pool)
        return sorted({float(max(math.ceil(load * 1.12**k), 1)) for k in range(-4, 27)})
    return list(rules()[rule].values)


def policy_of(rule: str, value: float, work: Workload, pool: Pool) -> Policy:
    if rule == "oracle":
        share = round(value, 3)
        return Oracle(work, pool, share, round((value - share) * 1e6))
    return rules()[rule].make(pool, value)


def one_run(task: tuple[str, str, float]) -> Run:
    name, rule, value = task
    scenario = SCENARIOS[name]
    work = scenario.make()
    pool = pool_of(scenario, work)
    started = time.perf_counter()
    early = work.times_s < 300.0
    initial = max(2, math.ceil(1.3 * early.sum() / 300.0 * work_of(pool)))
    setup = Setup(initial=initial, seed=1)
    found = simulate(work, pool, policy_of(rule, value, work, with_itl_target(pool)), setup)
    return judged(scenario, rule, value, found, work, pool, time.perf_counter() - started)


def with_itl_target(pool: Pool) -> Pool:
    """The pool as rules get it: with a target between tokens too, without which Dynamo's and WVA's fill it up.

    It is the time between tokens with 80% of the other slots taken; no rule is evaluated by it.
    """
    itl_s = pool.profile.decode(0.8 * pool.slots + 1.0, pool.input_tokens, pool.output_tokens)
    return replace(pool, objective=replace(pool.objective, itl_s=itl_s))


def judged(
    scenario: Scenario, rule: str, value: float, found: Result, work: Workload, pool: Pool, wall_s: float
) -> Run:
    cut, goal = scenario.tune_s, scenario.objective
    late = found.among(cut)

    def quantile(values: np.ndarray, q: float) -> float:
        return float(np.quantile(values[late], q, method="higher"))

    hours = found.gpu_hours(cut)
    busy_s = float(late.sum()) * work_of(pool)
    return Run(
        scenario=scenario.name,
        rule=rule,
        value=value,
        tune_share=found.attainment(goal, scenario.warm_s, cut),
        tune_hours=found.gpu_hours(scenario.warm_s, cut),
        share=found.attainment(goal, cut),
        hours=hours,
        ttft_p95=quantile(found.ttft_s, 0.95),
        ttft_p99=quantile(found.ttft_s, 0.99),
        itl_p95=quantile(found.itl_s, 0.95),
        itl_p99=quantile(found.itl_s, 0.99),
        response_p95=quantile(found.response_s, 0.95),
        response_p99=quantile(found.response_s, 0.99),
        reversals=found.reversals_per_hour(cut),
        aborted=found.aborted,
        megajoules=(hours * 3600.0 * IDLE_W + busy_s * (MAX_W - IDLE_W)) / 1e6,
        wall_s=wall_s,
    )


def chosen(runs: Sequence[Run]) -> Run:
    """The parameter that is best on the first part of the trace."""
    good = [r for r in runs if r.tune_share >= GOAL]
    return min(good, key=lambda r: r.tune_hours) if good else max(runs, key=lambda r: (r.tune_share, -r.tune_hours))


def in_hindsight(runs: Sequence[Run]) -> Run | None:
    """The cheapest value that meets the goal on the evaluated part."""
    good = [r for r in runs if r.share >= GOAL]
    return min(good, key=lambda r: r.hours) if good else None


def tasks(scenarios: Sequence[str], names: Sequence[str]) -> Iterator[tuple[str, str, float]]:
    for name in scenarios:
        work = SCENARIOS[name].make()
        pool = pool_of(SCENARIOS[name], work)
        for rule in (*names, "oracle"):
            for value in values_of(rule, work, pool):
                yield name, rule, value


def load(path: Path) -> list[Run]:
    """Runs of earlier calls."""
    return [Run(**row) for row in json.loads(path.read_text())] if path.exists() else []


def merged(old: Sequence[Run], new: Run) -> list[Run]:
    """The old runs and the new one, which replaces an earlier run of the same task."""
    same = (new.scenario, new.rule, new.value)
    return [r for r in old if (r.scenario, r.rule, r.value) != same] + [new]


def measured(todo: Sequence[tuple[str, str, float]], jobs: int) -> Iterator[Run]:
    """Run all tasks, with a progress bar."""
    one_run(todo[0])  # compiles, once for all processes
    with ProcessPoolExecutor(jobs) as workers:
        yield from track(workers.map(one_run, todo), "runs", total=len(todo))
