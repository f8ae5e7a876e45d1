"""Predicted and measured response times of real Ray Serve.

    python -m bench.prediction.measure            about 18 minutes on 2 cores
    python -m bench.prediction.measure --quick    a short one, to check that everything works
    python -m bench.prediction.measure --page     only the page, from the figures of the last run

Two pools of the emulated engine, one after the other, each with a fixed number of replicas of 8 slots, run as
`tierserve up` runs them; Poisson arrivals (an open loop) through the gateway, at 0.3 to 0.9 of the pool's capacity.
Response times are the client's, from the intended start. Before the load, one request at a time measures the
overhead (client, gateway, Ray Serve, Python); it is added to every prediction alike.

The engine integrates over elapsed time, however late it runs: a busy machine delays a response by
milliseconds and slows no work. Service takes half a second and more, so that other work on the machine does not matter.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import httpx
import numpy as np
import orjson
import psutil

from bench.prediction.cells import Cell, Measured, Part, Trial, cells
from bench.prediction.formulas import Case
from bench.prediction.page import page, picture, summary
from bench.serving.ray_autoscaler import OURS, POOL, ROOT, TRAFFIC, Bench, machine, running
from tierserve.api import GenAIDeployment, load
from tierserve.loadgen import ClosedLoop, LoadPlan, LoadResult, Outcome, Step, Traffic, replay_step, run_load
from tierserve.loadgen.runner import Progress
from tierserve.observe.gateway_agent import get_gateway
from tierserve.queueing import BatchProfile
from tierserve.runtime.local.ports import LOOPBACK

SEED = 20260
INPUT, OUTPUT, SLOTS = 16, 20, 8
PROFILE = BatchProfile(alpha=0.018, beta=0.002, gamma=0.000005)
ALONE_S, ALONE_WARMUP_S = 14.0, 3.0
TRIALS = (
    Trial(
        "4 x 8 slots, answers of 20 tokens on average, geometric",
        Case(4, SLOTS, PROFILE, INPUT, OUTPUT, varied=True),
        (Part(0.3, 40, 8), Part(0.6, 50, 8), Part(0.8, 80, 15), Part(0.9, 150, 25)),
        SEED,
    ),
    Trial(
        "2 x 8 slots, answers of 20 tokens each",
        Case(2, SLOTS, PROFILE, INPUT, OUTPUT, varied=False),
        (Part(0.3, 60, 8), Part(0.6, 75, 8), Part(0.8, 100, 15), Part(0.9, 180, 25)),
        SEED,
    ),
)


def file_of(case: Case) -> str:
    """A service of one pool of fixed size. Its target is long: nothing is refused or passed over."""
    profile = case.profile
    return f"""
apiVersion: serving.tierserve.io/v1alpha1
kind: GenAIDeployment
metadata: {{name: bench-ray}}
spec:
  objective: {{responseTime: {{percentile: 95, target: 30s}}}}
  gateway: {{queueOrder: arrival}}
  models:
    - name: large
      engine: emulated
      memory: {{weights: 16Gi, perRequest: 250Mi}}
      maxConcurrency: {case.slots}
      profile: {{alpha: {profile.alpha * 1e3:g}ms, beta: {profile.beta * 1e6:g}us, gamma: {profile.gamma * 1e6:g}us}}
      output: {{tokens: {case.output_tokens}, spread: {case.output_spread:.4f}}}
  tiers:
    - name: cloud
      kind: cloud
      accelerator: {{preset: A100-80GB}}
      network: {{rtt: 1us}}
      replicas: {{min: {case.replicas}, max: {case.replicas}}}
      models: [large]
  traffic: [{{name: chat, privacy: public, input: {case.input_tokens}, output: {case.output_tokens}}}]
"""


def deployment(case: Case) -> GenAIDeployment:
    """The same, parsed and validated."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "service.yaml")
        path.write_text(file_of(case))
        return load(path)


# ---- on real Ray Serve ----


def measure(trial: Trial) -> Measured:
    """Start a pool, run the load, stop it."""
    with running(quick=False, text=file_of(trial.case)) as bench:
        url = bench.deploy(OURS)
        until_whole(bench, trial.case)
        alone_s = asyncio.run(alone(url))
        serve_s = asyncio.run(alone(f"http://{LOOPBACK}:{bench.runtime.state.ray.http}/{POOL}"))
        bench.say(f"{trial.name}: alone {alone_s:.4f} s, without the gateway {serve_s:.4f} s")
        result, busy = asyncio.run(ask(bench, trial, url))
        until_whole(bench, trial.case)  # or a replica was lost during the run
    return measured(result, busy, alone_s, serve_s)


def until_whole(bench: Bench, case: Case) -> None:
    """Wait until all replicas serve and the gateway's limit is the number of their slots."""
    deadline, limit = time.monotonic() + 60.0, case.replicas * case.slots
    while True:
        app = bench.runtime.rest.applications()[POOL]
        figures = get_gateway(bench.runtime.state.agent_url).figures
        open_slots = figures.get(POOL, {}).get("max_in_flight")
        if app.running == case.replicas == sum(app.replicas.values()) and open_slots == limit:
            return
        if time.monotonic() > deadline:
            sys.exit(
                f"{app.running} of {case.replicas} replicas serve, the gateway's limit is {open_slots}, not {limit}"
            )
        time.sleep(0.5)


async def alone(url: str) -> float:
    """Mean response of one request at a time, of the declared length."""
    traffic = Traffic(TRAFFIC, ClosedLoop(1), max_tokens=OUTPUT, prompts=("word " * INPUT,))
    result = await run_load(LoadPlan(url, (Step("alone", ALONE_S, (traffic,), ALONE_WARMUP_S),)))
    return result.steps[0].all.mean_s


async def ask(bench: Bench, trial: Trial, url: str) -> tuple[LoadResult, list[float]]:
    """Run all parts of a trial; return the load's result and the share of the machine's CPU time used in each part."""
    users = Traffic(TRAFFIC, ClosedLoop(0))
    parts = enumerate(trial.parts)
    steps = tuple(replay_step(trial.trace(index), traffic=users, warmup_s=part.warmup_s) for index, part in parts)
    busy: list[list[float]] = [[] for _ in steps]
    now = [-1]

    async def watch() -> None:
        psutil.cpu_percent()
        while True:
            await asyncio.sleep(1.0)
            busy[now[0]].append(psutil.cpu_percent() / 100.0)

    def show(at: Progress) -> None:
        if at.index != now[0]:
            now[0] = at.index
            part = trial.parts[at.index]
            bench.say(f"load {part.load:g}, {trial.rate(part):.1f} requests/s for {part.length_s:.0f} s")

    watcher = asyncio.create_task(watch())
    result = await run_load(LoadPlan(url, steps, timeout_s=120.0), show)
    watcher.cancel()
    return result, [float(np.mean(values)) for values in busy]


def measured(result: LoadResult, busy: list[float], alone_s: float, serve_s: float) -> Measured:
    """Columns in order of arrival."""
    samples = result.samples
    good = samples.where(samples.outcome == Outcome.OK)
    order = np.argsort(good.intended, kind="stable")
    return Measured(
        alone_s=alone_s,
        serve_s=serve_s,
        intended_s=good.intended[order].tolist(),
        response_s=good.latency[order].tolist(),
        output_tokens=good.tokens[order].tolist(),
        part=good.step[order].tolist(),
        steady_s=[step.steady_s for step in result.steps],
        failed=len(samples) - len(good),
        busy=busy,
        lag_s=result.lag_s,
    )


# ---- the whole ----


def shorter(trial: Trial) -> Trial:
    """A trial of a minute."""
    return replace(trial, parts=tuple(replace(part, steady_s=8.0, warmup_s=2.0) for part in trial.parts))


def main() -> None:
    """Run both trials and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a short load; writes to out/bench-prediction only")
    parser.add_argument("--page", action="store_true", help="measure nothing; use the figures of the last run")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    out = ROOT / "out" / "bench-prediction"
    docs = out if arguments.quick else ROOT / "docs" / "benchmarks"
    trials = tuple(map(shorter, TRIALS)) if arguments.quick else TRIALS
    record = out / ("quick.json" if arguments.quick else "measured.json")
    if not arguments.page:
        record.parent.mkdir(parents=True, exist_ok=True)
        found = {}
        for trial in trials:
            found[trial.name] = asdict(measure(trial))
            record.write_bytes(orjson.dumps({"machine": machine(), "trials": found}))
    known = orjson.loads(record.read_bytes())
    runs: dict[str, tuple[Trial, Measured, list[Cell]]] = {}
    for trial in trials:
        seen = Measured(**known["trials"][trial.name])
        runs[trial.name] = (trial, seen, cells(trial, seen, deployment(trial.case)))
    docs.mkdir(parents=True, exist_ok=True)
    picture(runs, {name: deployment(trial.case) for name, (trial, _, _) in runs.items()}, docs / "prediction.png")
    (docs / "prediction.md").write_text(page(runs, known["machine"], "prediction.png"))
    print(summary(runs), docs / "prediction.md", docs / "prediction.png", sep="\n")


if __name__ == "__main__":
    try:
        main()
    except httpx.HTTPError as error:
        sys.exit(f"the service does not answer: {error}")
