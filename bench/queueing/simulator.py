"""The simulator itself: requests per second of wall time on one core, and response times compared with queueing theory.

    python -m bench.queueing.simulator            about a quarter of an hour, all but a minute of it for the predictions

Poisson arrivals at a fixed number of replicas; each line of speeds is the median of three runs of so many requests,
compiled beforehand. The theory is Erlang C for the slot model with one queue, Erlang B for the share that finds the
first of two tiers full, and `batch_response` for the token model: `predictions` compares its mean and percentiles over
pools of several sizes, with requests that are alike and uneven.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time

import numpy as np

from tierserve.queueing import (
    BatchProfile,
    BatchWork,
    batch_queue,
    batch_response,
    erlang_b,
    lognormal_points,
    mean_response,
)
from tierserve.simulate.cluster import ROUTERS, Setup
from tierserve.simulate.multi_tier import Site, Traffic, simulate_tiers
from tierserve.simulate.run import Result, simulate
from tierserve.simulate.types import Objective, Pool, Snapshot, Workload
from tierserve.simulate.workload import Sizes, poisson

PROFILE = BatchProfile(alpha=0.010, beta=2e-5, gamma=1e-7)
REPLICAS = 8
QUANTILES = (0.5, 0.95, 0.99)
NAMES = ("mean", "p50", "p95", "p99")


class Fixed:
    """Always the same number of replicas."""

    interval_s = 100.0

    def __init__(self, replicas: int = REPLICAS) -> None:
        self.replicas = replicas

    def decide(self, seen: Snapshot) -> int:
        return self.replicas


def timed(work: Workload, pool: Pool, setup: Setup, service_s: np.ndarray | None) -> tuple[Result, float]:
    walls = []
    for _ in range(3):
        start = time.perf_counter()
        found = simulate(work, pool, Fixed(), setup, service_s=service_s)
        walls.append(time.perf_counter() - start)
    return found, len(work) / statistics.median(walls)


def mean_of(found: Result) -> float:
    """Mean response without the first tenth."""
    return float((found.end_s - found.arrive_s)[found.arrive_s.size // 10 :].mean())


def slots(requests: int) -> None:
    lam = 0.9 * REPLICAS * 8
    work = poisson(lam, requests / lam, Sizes(1.0, 1.0))
    service = np.random.default_rng(1).exponential(1.0, len(work))
    pool = Pool(PROFILE, 8, 0.0, Objective(), 1.0, 1.0)
    for router in ROUTERS:
        found, speed = timed(work, pool, Setup("slots", router, REPLICAS), service)
        theory = f", Erlang C {mean_response(REPLICAS * 8, lam, 1.0):.4f} s" if router == "central" else ""
        print(f"slots   {router:13s} {speed:9,.0f} requests/s   mean response {mean_of(found):.4f} s{theory}")


def tokens(requests: int) -> None:
    sizes = Sizes(500.0, 200.0, 0.7)
    probe = poisson(100.0, 2_000.0, sizes, seed=3)
    i, o = probe.input_tokens, probe.output_tokens
    steps = o.mean() + 1.0
    each = np.mean(PROFILE.beta * (i + o) + PROFILE.gamma * ((o + 1) * i + o * (o - 1) / 2.0)) / steps
    rates = [n / (steps * (PROFILE.alpha + n * each)) for n in range(1, 65)]
    pool = Pool(PROFILE, 64, 0.0, Objective(), 500.0, 200.0)
    for load in (0.3, 0.6, 0.9, 0.97):
        lam = load * REPLICAS * rates[-1]
        work = poisson(lam, requests / lam, sizes, seed=4)
        found, speed = timed(work, pool, Setup("tokens", "central", REPLICAS), None)
        theory, seen = batch_queue(lam, REPLICAS, rates).mean_response, mean_of(found)
        print(
            f"tokens  load {load:<8g} {speed:9,.0f} requests/s   mean response {seen:.4f} s,"
            f" batch_queue {theory:.4f} s ({theory / seen - 1.0:+.2%})"
        )


def tiers(requests: int) -> None:
    lam = 1.1 * REPLICAS * 8
    work = poisson(lam, requests / lam, Sizes(1.0, 1.0))
    service = np.random.default_rng(1).exponential(1.0, len(work))
    pool = Pool(PROFILE, 8, 0.0, Objective(), 1.0, 1.0)
    setup = Setup("slots", initial=REPLICAS)
    sites = [Site(name, name, pool, Fixed(), setup, service_s=service) for name in ("edge", "cloud")]
    walls = []
    for _ in range(3):
        start = time.perf_counter()
        found = simulate_tiers(Traffic(work, {"all": ("edge", "cloud")}), sites)
        walls.append(time.perf_counter() - start)
    print(
        f"slots   two tiers     {len(work) / statistics.median(walls):9,.0f} requests/s   to the second"
        f" {found.in_pool('cloud').mean():.4f}, Erlang B {erlang_b(REPLICAS * 8, lam):.4f}"
    )


def predictions(requests: int, seeds: int, spread: float) -> None:
    print(f"\nspread {spread:g}: predicted over simulated token by token, and half of its 95% interval")
    sizes = Sizes(500.0, 200.0, spread)
    parts = tuple((a * b, i, o) for a, i in lognormal_points(500.0, spread) for b, o in lognormal_points(200.0, spread))
    for replicas, slots in ((1, 16), (4, 8), (8, 64), (16, 8)):
        model = BatchWork(PROFILE, slots, parts)
        # one run tells little of a small pool that is nearly full: its longest queues come a few times in each
        most = max(2, seeds * 16 // (replicas * slots))
        for load, runs in ((0.3, 2), (0.6, 2), (0.9, max(2, most // 6)), (0.97, most)):
            lam = load * replicas * float(model.rates[-1])
            told = batch_response(lam, replicas, model)
            predicted = np.array([told.mean_response, *(told.quantile(q) for q in QUANTILES)])
            pool = Pool(PROFILE, slots, 0.0, Objective(), 500.0, 200.0)
            seen = [responses(lam, requests, sizes, pool, replicas, seed) for seed in range(1, runs + 1)]
            half = 1.96 * np.std([figures(one) for one in seen], axis=0, ddof=1) / math.sqrt(runs)
            truth = figures(np.concatenate(seen))  # the mean of quantiles of runs would be too low
            columns = zip(NAMES, predicted / truth - 1.0, half / truth, strict=True)
            print(
                f"{replicas:3d} x {slots:2d} slots, load {load:<5g}{runs:3d} runs"
                + "".join(f"   {name} {error:+6.1%} +-{wide:.1%}" for name, error, wide in columns),
                flush=True,
            )


def responses(lam: float, requests: int, sizes: Sizes, pool: Pool, replicas: int, seed: int) -> np.ndarray:
    """Response times of one run, without its first tenth."""
    work = poisson(lam, requests / lam, sizes, seed)
    found = simulate(work, pool, Fixed(replicas), Setup("tokens", "central", replicas))
    return (found.end_s - found.arrive_s)[requests // 10 :]


def figures(seen: np.ndarray) -> np.ndarray:
    """Mean and quantiles."""
    return np.array([np.nanmean(seen), *np.nanquantile(seen, QUANTILES)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=400_000)
    parser.add_argument("--seeds", type=int, default=32, help="runs of the smallest pool at the highest load")
    parser.add_argument("--spreads", type=float, nargs="*", default=[0.0, 0.7], help="of the sizes in the predictions")
    parser.add_argument("--predictions", action="store_true", help="nothing but these")
    given = parser.parse_args()
    requests = given.requests
    print(f"{os.cpu_count()} cores; {requests:,} requests, {REPLICAS} replicas", flush=True)
    if not given.predictions:
        slots(requests)
        tokens(requests)
        tiers(requests)
    for spread in given.spreads:
        predictions(requests, given.seeds, spread)


if __name__ == "__main__":
    main()
