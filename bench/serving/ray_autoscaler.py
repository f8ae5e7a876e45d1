"""ErlangPolicy compared with Ray Serve's own autoscaler: the same application, machine and load, one after another.

    python -m bench.serving.ray_autoscaler_page            the whole comparison, about 50 minutes on 2 cores
    python -m bench.serving.ray_autoscaler_page --quick    a short one, to check that everything works

The load is the demo's, longer: connections double from 1 to 128, then a piece of a real trace.

One tier of an emulated engine (8 slots, about 1 s of service). Three policies scale it:

- `tierserve`: ErlangPolicy, clients at the gateway, as `tierserve up` runs it;
- `ray-default`: Ray Serve's autoscaler with its defaults (target_ongoing_requests 2, up after 30 s, down after 600 s);
- `ray-tuned`: the best of a small grid over its target and delays. Each is tried on the upper half of the same load;
  the winner has the fewest replica-seconds of those that hold the objective over all requests there, or the highest
  share within it where none does. TierServe's policy runs on that load too, for comparison.

Clients of Ray's two use Ray Serve's HAProxy ingress directly, as its users do. Replica-seconds are counted from Serve's
REST status once a second: every replica that exists, whether it starts, serves or stops. The share within the objective
is of all requests of the run, scaling included; p95 per step is of its steady part.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import psutil

from tierserve.api import GenAIDeployment, load
from tierserve.loadgen import ClosedLoop, LoadPlan, LoadResult, Step, Traffic, load_trace, replay_step, run_load
from tierserve.loadgen.runner import Progress
from tierserve.plan.placement import place
from tierserve.reconcile import InUse
from tierserve.report.record import PoolPoint, RunRecord, from_load
from tierserve.runtime.local.paths import ServicePaths
from tierserve.runtime.local.ports import LOOPBACK, free_port
from tierserve.runtime.local.processes import end_marked
from tierserve.runtime.local.runtime import LocalDesired, LocalRuntime
from tierserve.runtime.local.state import LocalState

ROOT = Path(__file__).resolve().parents[2]
SERVICE, POOL, TRAFFIC = "bench-ray", "cloud-default", "users"
TARGET_S, PERCENTILE, MAX_REPLICAS, OUTPUT_TOKENS = 1.5, 95.0, 24, 20
SERVICE_S = 1.0
FILE = f"""
apiVersion: serving.tierserve.io/v1alpha1
kind: GenAIDeployment
metadata: {{name: {SERVICE}}}
spec:
  objective: {{responseTime: {{percentile: {PERCENTILE:g}, target: {TARGET_S * 1e3:.0f}ms}}}}
  models:
    - name: large
      engine: emulated
      memory: {{weights: 16Gi, perRequest: 250Mi}}
      maxConcurrency: 8
      profile: {{alpha: 47ms, beta: 2us, gamma: 2us}}
      output: {{tokens: {OUTPUT_TOKENS}}}
  tiers:
    - name: cloud
      kind: cloud
      accelerator: {{preset: A100-80GB}}
      network: {{rtt: 1us}}
      replicas: {{min: 1, max: {MAX_REPLICAS}}}
      models: [large]
  traffic: [{{name: chat, privacy: public, input: 16, output: {OUTPUT_TOKENS}}}]
"""


# ---- the policies ----


@dataclass(frozen=True, eq=False)
class Policy:
    """One line of the comparison; `autoscaling` replaces that of the rendered Serve configuration."""

    name: str
    label: str
    colour: str
    autoscaling: dict[str, Any] | None = None
    gateway: bool = False


OURS = Policy("tierserve", "TierServe (Erlang C)", "#2563c9", gateway=True)
BOUNDS = {"min_replicas": 1, "initial_replicas": 1, "max_replicas": MAX_REPLICAS}
DEFAULT = Policy("ray-default", "Ray Serve, default", "#d98a1f", BOUNDS)


def tuned(target: float, up_s: float, down_s: float, window_s: float) -> Policy:
    """Ray Serve's autoscaler with its public settings."""
    settings = {
        "target_ongoing_requests": target, "upscale_delay_s": up_s, "downscale_delay_s": down_s,
        "metrics_interval_s": min(1.0, window_s), "look_back_period_s": window_s,
    }  # fmt: skip
    label = f"Ray Serve, tuned (target {target:g}, up {up_s:g} s, down {down_s:g} s, window {window_s:g} s)"
    return Policy("ray-tuned", label, "#8f63c9", {**BOUNDS, **settings})


TARGETS = (4.0, 5.0, 6.0, 8.0)
DELAYS = ((0.0, 10.0, 2.0), (0.0, 60.0, 2.0))


# ---- the load ----

DOUBLINGS = (1, 2, 4, 8, 16, 32, 64, 128)
TRACE_START_S, TRACE_SCALE = 180.0, 5.0  # as in the demo


def main_load(url: str, quick: bool) -> LoadPlan:
    """Connections double up to 128, then a piece of the Azure code trace as an open loop."""
    return _load(url, (1, 8, 32) if quick else DOUBLINGS, 10.0 if quick else 60.0)


def tuning_load(url: str, quick: bool) -> LoadPlan:
    """The same from 8 connections on, half as long: below, every setting has one replica."""
    return _load(url, (8, 32) if quick else DOUBLINGS[3:], 6.0 if quick else 30.0)


def _load(url: str, connections: tuple[int, ...], length_s: float) -> LoadPlan:
    """Steps and trace of the same length."""
    steps = [_step(f"{n}", n, length_s) for n in connections]
    piece = load_trace("azure-code").piece(TRACE_START_S, length_s * TRACE_SCALE).compressed(TRACE_SCALE)
    fitting = piece.capped(max_input=64, max_output=OUTPUT_TOKENS)
    steps.append(replay_step(fitting, traffic=_users(0), warmup_s=length_s / 5))
    return LoadPlan(url, tuple(steps), slo_s=TARGET_S, timeout_s=30.0)


def _users(connections: int) -> Traffic:
    return Traffic(TRAFFIC, ClosedLoop(connections), max_tokens=OUTPUT_TOKENS, prompts=("word " * 16,))


def _step(name: str, connections: int, length_s: float) -> Step:
    return Step(name, length_s, (_users(connections),), 0.5 * length_s)


# ---- the run ----


@dataclass
class Bench:
    """One local runtime; its Serve configuration is switched from policy to policy."""

    gaid: GenAIDeployment
    runtime: LocalRuntime
    desired: LocalDesired
    quick: bool
    began: float = field(default_factory=time.monotonic)

    def say(self, words: str) -> None:
        print(f"{time.monotonic() - self.began:7.1f} s  {words}", flush=True)

    def deploy(self, policy: Policy) -> str:
        """Replace the application by one that this policy scales, from its minimum; return the URL for the load."""
        empty = replace(self.desired, serve={**self.desired.serve, "applications": []})
        self._apply(empty, lambda apps: POOL not in apps)
        serve = deepcopy(dict(self.desired.serve))
        if policy.autoscaling is not None:
            serve["applications"][0]["deployments"][0]["autoscaling_config"] = policy.autoscaling
            # Without a gateway that queues, the replicas must: a refusal would be counted as a miss.
            serve["applications"][0]["args"]["max_queue"] = 1000
        self._apply(replace(self.desired, serve=serve), lambda apps: POOL in apps and apps[POOL].status == "RUNNING")
        state = self.runtime.state
        url = state.endpoint if policy.gateway else f"http://{LOOPBACK}:{state.ray.http}/{POOL}"
        self._wait_answer(url)
        return url

    def apply(self, desired: LocalDesired) -> None:
        """Apply it once; nothing of before is kept."""
        asyncio.run(self.runtime.apply(self.gaid, desired, InUse()))

    def _apply(self, desired: LocalDesired, until: Any) -> None:
        deadline = time.monotonic() + 180
        while True:
            self.apply(desired)
            with contextlib.suppress(httpx.HTTPError):
                if until(self.runtime.rest.applications()):
                    return
            if time.monotonic() > deadline:
                sys.exit(f"the service did not come up; the logs are in {self.runtime.paths.logs}")
            time.sleep(0.5)

    def _wait_answer(self, url: str) -> None:
        body = {"model": SERVICE, "max_tokens": 1, "messages": [{"role": "user", "content": "word"}]}
        deadline = time.monotonic() + 60
        good = 0
        while good < 3:  # in a row, since a proxy may still have the replica of before
            with contextlib.suppress(httpx.HTTPError):
                good = good + 1 if httpx.post(f"{url}/v1/chat/completions", json=body, timeout=10).is_success else 0
            if time.monotonic() > deadline:
                sys.exit(f"{url} does not answer; the logs are in {self.runtime.paths.logs}")
            time.sleep(0.2)

    async def measure(self, policy: Policy, plan: LoadPlan) -> RunRecord:
        """Run a load and count replicas beside it."""
        points: list[PoolPoint] = []
        counter = asyncio.create_task(self._count(points))
        shown = [-1]

        def show(now: Progress) -> None:
            if now.index != shown[0]:
                shown[0] = now.index
                have = points[-1].replicas if points else 1
                self.say(
                    f"{policy.name:12} step {now.step.name:12} {have} replicas, {now.rate:.1f}/s, p95 {now.p95_s:.2f} s"
                )

        result = await run_load(plan, show)
        counter.cancel()
        return self._record(policy, result, points)

    async def _count(self, points: list[PoolPoint]) -> None:
        while True:
            began = time.monotonic()
            with contextlib.suppress(httpx.HTTPError, ValueError):
                app = (await asyncio.to_thread(self.runtime.rest.applications)).get(POOL)
                if app is not None:
                    points.append(PoolPoint(time.time(), sum(app.replicas.values()), app.running))
            await asyncio.sleep(max(0.0, 1.0 - (time.monotonic() - began)))

    def _record(self, policy: Policy, result: LoadResult, points: list[PoolPoint]) -> RunRecord:
        shifted = [replace(point, t=point.t - result.t0_unix) for point in points]
        total = result.total()
        beside = {"all": {"within_slo": total.within_slo, "requests": total.requests, "errors": total.errors}}
        record = from_load(
            result, {POOL: shifted}, title=policy.label, traffic=TRAFFIC, target_s=TARGET_S, machine=machine()
        )
        return replace(record, beside=beside)


def machine() -> str:
    """Cores, memory and system of this machine."""
    return f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, {platform.system()}"


@contextlib.contextmanager
def running(quick: bool, text: str = FILE) -> Iterator[Bench]:
    """A bench of the service in `text` (of the same name and tier), whose processes always end with it."""
    paths = ServicePaths.of(SERVICE)
    paths.make()
    file = paths.root / "bench.yaml"
    file.write_text(text)
    gaid = load(file)
    placements = place(gaid)
    runtime = LocalRuntime(paths, LocalState.new(file, free_port()), say=lambda words: print(f"           {words}"))
    try:
        yield Bench(gaid, runtime, runtime.render(gaid, placements), quick)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        end_marked(paths.marker)
        for folder in (paths.short, paths.root):
            shutil.rmtree(folder, ignore_errors=True)


def share(record: RunRecord) -> float:
    """Share of all requests within the objective."""
    return float(record.beside["all"]["within_slo"] or 0.0)


def cost(record: RunRecord) -> float:
    """Replica-seconds."""
    return sum(record.replica_seconds().values())


def tune(bench: Bench) -> tuple[Policy, list[dict[str, Any]]]:
    """The best setting of Ray's autoscaler on the tuning load, first the target, then the delays; and all that ran."""
    tried: list[tuple[Policy, RunRecord]] = []

    def attempt(policy: Policy) -> None:
        record = asyncio.run(bench.measure(policy, tuning_load(bench.deploy(policy), bench.quick)))
        bench.say(f"tuning       {policy.label}: {share(record):.2%} within, {cost(record):.0f} replica-seconds")
        tried.append((policy, record))

    attempt(OURS)
    for target in TARGETS[: 1 if bench.quick else None]:
        attempt(tuned(target, *DELAYS[0]))
    target = best(tried[1:]).autoscaling["target_ongoing_requests"]  # type: ignore[index]
    for delays in DELAYS[1:]:
        attempt(tuned(target, *delays))
    rows = [{"label": p.label, "within_slo": share(r), "replica_seconds": cost(r)} for p, r in tried]
    return best(tried[1:]), rows


def best(tried: list[tuple[Policy, RunRecord]]) -> Policy:
    """The cheapest of those that meet the objective over all requests; where none does, the nearest to it."""
    enough = [pair for pair in tried if share(pair[1]) >= PERCENTILE / 100]
    if enough:
        return min(enough, key=lambda pair: cost(pair[1]))[0]
    return max(tried, key=lambda pair: share(pair[1]))[0]
