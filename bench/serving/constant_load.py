"""Constant load for five minutes: replicas must not change after the first, and return to the minimum when it ends.

    python -m bench.serving.constant_load            about seven minutes on 2 cores
    python -m bench.serving.constant_load --minutes 2

One tier of an emulated engine (8 slots, about 1 s of service), Poisson arrivals at a constant rate through the gateway,
ErlangPolicy. Changes are those of Serve's target number of replicas, read from its REST status once a second.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time

from bench.serving.ray_autoscaler import OURS, OUTPUT_TOKENS, POOL, ROOT, TARGET_S, TRAFFIC, Bench, machine, running
from tierserve.loadgen import LoadPlan, LoadResult, OpenLoop, Step, Traffic, run_load

RATE = 20.0
SETTLE_S = 60.0


def main() -> None:
    """Run it and write docs/benchmarks/constant-load.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0)
    seconds = parser.parse_args().minutes * 60.0
    with running(quick=False) as bench:
        url = bench.deploy(OURS)
        result, desired = asyncio.run(measure(bench, url, seconds))
        minimum_s = back_to_minimum(bench)
    text = page(result, desired, seconds, minimum_s)
    path = ROOT / "docs" / "benchmarks" / "constant-load.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    print(text, path, sep="\n")


async def measure(bench: Bench, url: str, seconds: float) -> tuple[LoadResult, list[tuple[float, int]]]:
    """The load, and (seconds, desired replicas) once a second during it."""
    traffic = Traffic(TRAFFIC, OpenLoop(RATE), max_tokens=OUTPUT_TOKENS, prompts=("word " * 16,))
    desired: list[tuple[float, int]] = []
    began = time.monotonic()

    async def watch() -> None:
        while True:
            app = (await asyncio.to_thread(bench.runtime.rest.applications)).get(POOL)
            if app is not None:
                desired.append((time.monotonic() - began, app.target))
            await asyncio.sleep(1.0)

    watcher = asyncio.create_task(watch())
    steps = (Step("constant", seconds, (traffic,), SETTLE_S),)
    result = await run_load(LoadPlan(url, steps, slo_s=TARGET_S, timeout_s=30.0))
    watcher.cancel()
    return result, [row for row in desired if row[0] <= seconds]


def back_to_minimum(bench: Bench, timeout_s: float = 180.0) -> float | None:
    """Seconds from the end of the load until one replica is desired and runs; None if that does not happen."""
    began = time.monotonic()
    while time.monotonic() - began < timeout_s:
        app = bench.runtime.rest.applications().get(POOL)
        if app is not None and app.target == 1 and sum(app.replicas.values()) == 1:
            return time.monotonic() - began
        time.sleep(0.5)
    return None


def page(result: LoadResult, desired: list[tuple[float, int]], seconds: float, minimum_s: float | None) -> str:
    """The Markdown page."""
    changes = [(t, a, b) for (_, a), (t, b) in itertools.pairwise(desired) if a != b]
    late = [change for change in changes if change[0] > SETTLE_S]
    steady = result.steps[0].all
    moves = ", ".join(f"{a} to {b} at {t:.0f} s" for t, a, b in changes) or "none"
    minimum = "not within three minutes" if minimum_s is None else f"after {minimum_s:.0f} s"
    return f"""# Constant load

Made by `make bench-constant` on {machine()}: Poisson arrivals at {RATE:g} requests/s for {seconds:.0f} s,
emulated engine, 8 slots, about 1 s of service, p95 <= {TARGET_S * 1e3:.0f} ms.

| | |
|---|---|
| changes of the desired replicas after the first minute | {len(late)} |
| all changes | {moves} |
| p95 after the first minute | {steady.p95_s * 1e3:.0f} ms |
| within the target after the first minute | {steady.within_slo:.2%} of {steady.requests:,} requests |
| back at the minimum when the load has ended | {minimum} |
"""


if __name__ == "__main__":
    main()
