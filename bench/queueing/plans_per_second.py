"""Deployments planned per second and core: part of `make bench`.

    python -m bench.queueing.plans_per_second [--count 2000]

A deployment planned: for one with step times, slots, token sizes, target, percentile and rate of its own, no two alike,
the least replicas that keep the objective, with the mean and the percentile of the response time. Pools have 4 to 1,000
servers, replicas x slots, evenly spread in the logarithm, or 500 to 1,000. Those whose long prompts hold up answers
(`plan.pool_sizing.held_up`: 7 to 9% of those drawn with sizes alike, 0.5% of the others) are planned one by one, and
measured apart, too. Beside them what is asked of Erlang C alone: the least servers at which at most a fifth waits.

Times are those of the processor, of all threads together, not of the clock; each round has deployments that no round
before it had, so that no answer is in a cache. Ends with status 1 if less than 10,000 a second are planned by
`size_pools`, or if it gives a deployment other replicas than it gets alone.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench.queueing.measure import machine
from tierserve.api import GenAIDeployment, parse
from tierserve.plan.capacity import Demand, make_plan
from tierserve.plan.placement import Placement, place
from tierserve.plan.pool_sizing import held_up, replicas_for, response_of
from tierserve.plan.pool_sizing_batch import size_pools
from tierserve.queueing import BatchProfile, BatchWork, batch_queue, lognormal_points, servers_for

BOUND = 10_000.0
ANY, LARGE = (4.0, 1000.0), (500.0, 1000.0)
ROUNDS = 5
LONG = "size_pools, long prompts"
Deployment = tuple[Placement, float]


def deployment(rng: random.Random, servers: tuple[float, float], spread: float) -> Deployment:
    """One pool and its rate; nothing of it is rounded, so that no two are alike."""
    c = math.exp(rng.uniform(*map(math.log, servers)))
    slots = rng.choice([n for n in (1, 2, 4, 8, 16, 32, 64) if n <= c])
    alpha = rng.uniform(5e-3, 4e-2)
    profile = BatchProfile(alpha, alpha * rng.uniform(1e-4, 5e-3), alpha * rng.uniform(0.0, 1e-5))
    i, o = rng.uniform(50.0, 2000.0), rng.uniform(20.0, 500.0)
    sizes = tuple((share, i, tokens) for share, tokens in lognormal_points(o, spread))
    percentile = rng.choice([90.0, 95.0, 99.0])
    tail_s = _tail(profile.service_times(slots, sizes), [share for share, _, _ in sizes], percentile)
    pool = Placement(
        "cloud", "main", "cloud", "m", "vllm", None, slots, profile, i, o, 0.01, 0.01, 0, 10**6, 60.0,
        percentile=percentile, target_s=tail_s * rng.uniform(1.05, 1.6), sizes=sizes, service_tail_s=tail_s,
        spread_known=spread > 0.0,
    )  # fmt: skip
    room = min(0.97, 1.0 - 1.5 / math.sqrt(c + 8.0))
    return pool, room * c / slots * pool.rate


def with_long_prompts(rng: random.Random, spread: float) -> Deployment:
    """One of those whose long prompts delay responses."""
    while not held_up((found := deployment(rng, ANY, spread))[0]):
        pass
    return found


def _tail(times: Sequence[float], shares: Sequence[float], percentile: float) -> float:
    """Time within which `percentile` per cent of the requests are served in a full batch."""
    seen = 0.0
    for service_s, share in sorted(zip(times, shares, strict=True)):
        seen += share
        if seen >= percentile / 100.0 - 1e-12:
            return service_s
    return max(times)


def alone(fleet: Sequence[Deployment]) -> list[tuple[int, float, float]]:
    """Replicas, mean and percentile of each, one after another."""
    found = []
    for pool, rate in fleet:
        replicas = replicas_for(pool, rate)
        told = response_of(pool, replicas, rate)
        found.append((replicas, told.mean_response, told.quantile(pool.percentile / 100.0)))
    return found


def together(fleet: Sequence[Deployment]) -> list[int]:
    """Replicas of all as one batch; mean and percentile are computed too."""
    found: list[int] = size_pools([pool for pool, _ in fleet], [rate for _, rate in fleet]).replicas.tolist()
    return found


def service(rng: random.Random) -> tuple[GenAIDeployment, float]:
    """A file with one tier and one model, as parsed, and a rate."""
    model = {
        "name": "m",
        "engine": "emulated",
        "memory": {"weights": "14Gi", "perRequest": f"{rng.randint(300, 900)}Mi"},
        "maxConcurrency": 64,
        "profile": {"alpha": f"{rng.uniform(8, 30):.6f}ms", "beta": f"{rng.uniform(10, 50):.6f}us"},
        "output": {"tokens": rng.randint(50, 300)},
    }
    tier = {
        "name": "cloud",
        "kind": "cloud",
        "accelerator": {"preset": "A100-80GB"},
        "replicas": {"min": 0, "max": 15},
    }
    spec = {
        "objective": {"responseTime": {"target": f"{rng.randint(12_000, 20_000)}ms"}},
        "models": [model],
        "tiers": [tier],
        "traffic": [{"name": "all", "share": 1, "input": rng.randint(50, 1000)}],
    }
    meta = {"apiVersion": "serving.tierserve.io/v1alpha1", "kind": "GenAIDeployment", "metadata": {"name": "s"}}
    gaid = parse({**meta, "spec": spec})
    pool = place(gaid)[0]
    return gaid, rng.uniform(0.2, 0.9) * 15.0 * pool.rate


def whole(services: Sequence[tuple[GenAIDeployment, float]]) -> list[int]:
    """`make_plan` of each: models placed, slots bound, tiers filled, their limits, replicas, times, energy."""
    return [make_plan(gaid, Demand(rate=rate)).pools[0].replicas for gaid, rate in services]


def staffed(loads: Sequence[float]) -> list[int]:
    """Least servers of each load."""
    return [servers_for(load, max_p_wait=0.2) for load in loads]


def microseconds(work: Callable[[Any], object], rounds: Sequence[Sequence[Any]]) -> float:
    """Median over the rounds of the processor time for one, in microseconds."""
    times = []
    for items in rounds:
        start = time.process_time()
        work(items)
        times.append((time.process_time() - start) / len(items) * 1e6)
    return statistics.median(times)


def measure(count: int) -> list[dict[str, Any]]:
    """One row for each way to plan."""
    rng = random.Random(20)
    loads = [[math.exp(rng.uniform(0.0, math.log(960.0))) for _ in range(count)] for _ in range(ROUNDS)]
    rows = [_row("servers_for, Erlang C", "c = 2 to 1,000", microseconds(staffed, loads))]
    rates = BatchWork(BatchProfile(0.01, 2e-5, 1e-7), 64, ((1.0, 1000.0, 200.0),)).rates
    for replicas in (1, 15, 32, 1000, 15_625):
        asked = [[(0.9 - 1e-4 * k) * replicas * float(rates[-1]) for k in range(count // 10)] for _ in range(ROUNDS)]

        def each(lams: Sequence[float], replicas: int = replicas) -> list[Any]:
            return [batch_queue(lam, replicas, rates) for lam in lams]

        each_us = microseconds(each, asked)
        rows.append(_row("batch_queue, one call", f"{replicas:,} replicas of 64", each_us))
    together([deployment(rng, ANY, 0.0) for _ in range(32)])
    for spread in (0.0, 0.7):
        for servers in (ANY, LARGE):
            what = f"c = {servers[0]:.0f} to 1,000, " + ("sizes alike" if spread == 0.0 else f"spread {spread}")
            first, second = (_rounds(rng, servers, spread, count) for _ in range(2))
            rows.append(_row("replicas_for and response_of, one by one", what, microseconds(alone, first)))
            rows.append(_row("size_pools", what, microseconds(together, second)))
            rows[-1]["other_replicas"] = _differing(second[0])
        few = [[with_long_prompts(rng, spread) for _ in range(count // 20)] for _ in range(ROUNDS)]
        what = "long prompts, " + ("sizes alike" if spread == 0.0 else f"spread {spread}")
        rows.append(_row(LONG, what, microseconds(together, few)))
        rows[-1]["other_replicas"] = _differing(few[0])
    services = [[service(rng) for _ in range(max(20, count // 20))] for _ in range(ROUNDS)]
    rows.append(_row("make_plan of a parsed file, one tier", "c up to 960", microseconds(whole, services)))
    return rows


def _rounds(rng: random.Random, servers: tuple[float, float], spread: float, count: int) -> list[list[Deployment]]:
    return [[deployment(rng, servers, spread) for _ in range(count)] for _ in range(ROUNDS)]


def _differing(fleet: Sequence[Deployment]) -> int:
    """Number of deployments whose replicas differ between batch and single planning; must be 0."""
    return sum(one[0] != many for one, many in zip(alone(fleet), together(fleet), strict=True))


def _row(way: str, what: str, each_us: float) -> dict[str, Any]:
    return {"way": way, "deployments": what, "us": each_us, "per_second": 1e6 / each_us}


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the rows as a table."""
    table = Table(title=f"planned per second and core, on {machine()}", title_justify="left", box=SIMPLE_HEAD)
    for name in ("way", "deployments", "us each", "a second"):
        table.add_column(name, justify="left" if name in {"way", "deployments"} else "right")
    for row in rows:
        table.add_row(row["way"], row["deployments"], f"{row['us']:.1f}", f"{row['per_second']:,.0f}")
    Console(width=None if sys.stdout.isatty() else 120, highlight=False).print(table)


def broken(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Bounds that are not met."""
    slow = [row for row in rows if row["way"] == "size_pools" and row["per_second"] < BOUND]
    other = [row for row in rows if row.get("other_replicas")]
    return [f"{row['way']}, {row['deployments']}: {row['per_second']:,.0f} a second" for row in slow] + [
        f"{row['deployments']}: {row['other_replicas']} get other replicas than alone" for row in other
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="deployments in each of five rounds")
    parser.add_argument("--out", type=Path, default=Path("out/bench-plans.json"), help="where the figures go")
    args = parser.parse_args()
    rows = measure(args.count)
    show(rows)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n")
    print(f"figures: {args.out}")
    problems = broken(rows)
    for problem in problems:
        print(f"bound broken: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
