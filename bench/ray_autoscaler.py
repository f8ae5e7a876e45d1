"""Our policy beside Ray Serve's own autoscaler: the same application, machine and load, one after another.

    python bench/ray_autoscaler.py            the whole comparison, about 50 minutes on 2 cores
    python bench/ray_autoscaler.py --quick    a short one, to see that all parts work

The load is the demo's, longer: connections double from 1 to 128, then a piece of a real trace.

One tier of an emulated engine (8 slots, about 1 s of service). Three policies scale it:

- `tierserve`: ErlangPolicy, clients at the gateway, as `tierserve up` runs it;
- `ray-default`: Ray Serve's autoscaler as it comes (target_ongoing_requests 2, up after 30 s, down after 600 s);
- `ray-tuned`: the best of a small grid over its target and delays. Each is tried on the upper half of the same load;
  the winner has the fewest replica-seconds of those that hold the objective over all requests there, or the highest
  share within it where none does. Ours runs on that load too, to be seen among them.

Ray's two are asked straight at Ray Serve's HAProxy ingress, as its users do. Replica-seconds are counted from Serve's
REST status once a second: every replica that exists, whether it starts, serves or stops. The share within the objective
is of all requests of the run, the moments of scaling included; p95 per step is of its steady part.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import matplotlib as mpl
import orjson
import psutil
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from tierserve.api import load
from tierserve.load import ClosedLoop, LoadPlan, LoadResult, Step, Traffic, load_trace, replay_step, run_load
from tierserve.load.run import Progress
from tierserve.plan.placement import place
from tierserve.report.figures import INK, MUTED, STYLE, TARGET
from tierserve.report.record import PoolPoint, RunRecord, StepRecord, from_load
from tierserve.runtime.local.paths import ServicePaths
from tierserve.runtime.local.ports import LOOPBACK, free_port
from tierserve.runtime.local.processes import end_marked
from tierserve.runtime.local.runtime import LocalDesired, LocalRuntime
from tierserve.runtime.local.state import LocalState

ROOT = Path(__file__).resolve().parent.parent
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


# ---- the machinery ----


@dataclass
class Bench:
    """One local runtime whose Serve configuration is switched from policy to policy."""

    runtime: LocalRuntime
    desired: LocalDesired
    quick: bool
    began: float = field(default_factory=time.monotonic)

    def say(self, words: str) -> None:
        print(f"{time.monotonic() - self.began:7.1f} s  {words}", flush=True)

    def deploy(self, policy: Policy) -> str:
        """Replace the application by one that this policy scales, from its floor; returns the address to load."""
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

    def _apply(self, desired: LocalDesired, until: Any) -> None:
        deadline = time.monotonic() + 180
        while True:
            self.runtime.apply(desired)
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
        while good < 3:  # in a row, since a proxy may still know the replica of before
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
    """This machine in words."""
    return f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, {platform.system()}"


@contextlib.contextmanager
def running(quick: bool, text: str = FILE) -> Iterator[Bench]:
    """A bench of the service in `text` (of the same name and tier), whose processes end with it, whatever happens."""
    paths = ServicePaths.of(SERVICE)
    paths.make()
    file = paths.root / "bench.yaml"
    file.write_text(text)
    gaid = load(file)
    placements = place(gaid)
    runtime = LocalRuntime(paths, LocalState.new(file, free_port()), say=lambda words: print(f"           {words}"))
    try:
        yield Bench(runtime, runtime.render(gaid, placements), quick)
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
    """Of those that hold the objective over all requests the cheapest; where none does, the nearest to it."""
    enough = [pair for pair in tried if share(pair[1]) >= PERCENTILE / 100]
    if enough:
        return min(enough, key=lambda pair: cost(pair[1]))[0]
    return max(tried, key=lambda pair: share(pair[1]))[0]


# ---- the page and the picture ----


def up_steps(record: RunRecord) -> list[Any]:
    """Steps on the way up."""
    return [step for step in record.steps if step.name.isdecimal()]


def picture(records: dict[Policy, RunRecord], path: Path) -> None:
    """p95 over connections, replicas over time, and what each cost."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(14, 8.6), dpi=110, layout=ConstrainedLayoutEngine(w_pad=0.16, h_pad=0.14))
        axes: Any = figure.subplot_mosaic([["p95", "cost"], ["replicas", "replicas"]], width_ratios=[1.75, 1])
        _p95(axes["p95"], records)
        _replicas(axes["replicas"], records)
        _costs(axes["cost"], records)
        handles, labels = axes["p95"].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def _p95(axes: Any, records: dict[Policy, RunRecord]) -> None:
    axes.set_title("p95 response time over connections, steady part")
    axes.axhline(TARGET_S, color=TARGET, ls=(0, (5, 3)), lw=1.5, label=f"target {TARGET_S * 1e3:.0f} ms")
    names: list[int] = []
    for policy, record in records.items():
        steps = up_steps(record)
        names = [step.connections for step in steps]
        axes.plot(names, [step.p95_s for step in steps], color=policy.colour, marker="o", ms=5.5, label=policy.label)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(names))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 1e3:,.0f}"))
    axes.set_ylim(0, None)
    axes.margins(y=0.15)
    axes.set_xlabel("concurrent connections (log scale)")
    axes.set_ylabel("ms")


def _replicas(axes: Any, records: dict[Policy, RunRecord]) -> None:
    axes.set_title("Replicas over time (every one that exists)", pad=22)
    for policy, record in records.items():
        points = record.pools[POOL]
        axes.step([p.t for p in points], [p.replicas for p in points], where="post", color=policy.colour)
    some = next(iter(records.values()))
    for i, step in enumerate(some.steps):
        if i % 2:
            axes.axvspan(step.start_s, step.end_s, color="#f5f8fb", lw=0, zorder=0)
        name = step.name if step.connections is not None else "trace"
        axes.annotate(name, ((step.start_s + step.end_s) / 2, 1), (0, 3), xycoords=("data", "axes fraction"),
                      textcoords="offset points", ha="center", fontsize=8.5, color=MUTED)  # fmt: skip
    axes.set_xlim(0, some.end_s)
    axes.set_ylim(0, None)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("seconds (bands: connections of the step)")


def _costs(axes: Any, records: dict[Policy, RunRecord]) -> None:
    axes.set_title("Replica-seconds")
    rows = list(records.items())[::-1]
    axes.barh([p.name for p, _ in rows], [cost(r) for _, r in rows], color=[p.colour for p, _ in rows], height=0.5)
    for i, (_, record) in enumerate(rows):
        words = f"{cost(record):,.0f}, {share(record):.1%} within the target"
        axes.annotate(words, (0, i), (4, 26), textcoords="offset points", va="center", color=INK, fontsize=10)
    axes.grid(visible=False)
    axes.margins(x=0.05, y=0.3)


def page(records: dict[Policy, RunRecord], tried: list[dict[str, Any]], image: str) -> str:
    """The Markdown page."""
    ours = records[OURS]
    names = [step.name for step in ours.steps]
    rows = "\n".join(_row(policy, record, ours) for policy, record in records.items())
    steps = _table(records, lambda record, step: _cell(step.p95_s))
    shares = _table(records, lambda record, step: f"{share_in(record, step):.1%}")
    trials = "\n".join(f"| {t['label']} | {t['within_slo']:.2%} | {t['replica_seconds']:,.0f} |" for t in tried)
    return f"""# TierServe's policy beside Ray Serve's own autoscaler

Made by `make bench-ray` on {machine()}, Python {platform.python_version()}, Ray {_ray_version()}. The same application
(emulated engine, 8 slots, about 1 s of service), the same load, one policy after another; the objective is
p{PERCENTILE:g} <= {TARGET_S * 1e3:.0f} ms.

![p95, replicas and replica-seconds of three policies]({image})

| policy | replica-seconds | of ours | within the target | median p95 | worst p95 | failed | most replicas |
|---|---|---|---|---|---|---|---|
{rows}

p95 of the steady part of every step, ms:

| policy | {" | ".join(names)} |
|---|{"---|" * len(names)}
{steps}

Share of the requests of every step within the target, the moments of scaling included:

| policy | {" | ".join(names)} |
|---|{"---|" * len(names)}
{shares}

The medians and the worst are over the steps of connections. Replica-seconds count every replica that exists (starting,
serving, stopping), once a second from Serve's REST status. The share within the target is of all requests, the moments
of scaling included; failures are misses. Ours is asked at the gateway, Ray's at Ray Serve's HAProxy ingress. The last
step replays a piece of the Azure LLM inference trace 2023 (code; CC-BY 4.0), five times as fast, as an open loop:
latency counts from the intended start.

## How Ray's was tuned

On the upper half of the load, half as long. Chosen is the setting with the fewest replica-seconds of those that keep
{PERCENTILE:g}% of all requests within the target there, or the one with the highest share where none does.

| setting | within the target | replica-seconds |
|---|---|---|
{trials}

## What limits the share

New connections come at once and replicas seconds later. Until then c slots with a service time of S bear c T / S
connections within T: where N become 2 N and c = N, half of the new ones have to be late once, whatever the order.
That makes at least {unavoidable()} of the {ours.beside["all"]["requests"]:.0f} requests here, a share of at most
{1 - unavoidable() / ours.beside["all"]["requests"]:.2%} for a policy with a slot for each connection and none to spare.
(In the order of arrival it is far worse: all are late until the last replica serves. The gateway lets those go first
who can still be in time.) To lose none takes c >= 2 N S / T slots before they come, {2 / TARGET_S:.2f} for each of N
connections; a target of 6 for 8 slots keeps just that, Ray's default four for each. `replicas.headroom` keeps slots
for growth too, at its price. What is left is the machine: replicas that start take the cores of those that serve, and
who starts more of them is late more often. On more or faster cores that part vanishes, and policies that keep idle
slots get all requests in time.
"""


def unavoidable() -> int:
    """Requests of the doublings that miss the target where each connection has a slot and no more: 2 N - c T / S each.

    Below 8 connections the one replica has idle slots.
    """
    return round(sum(n * (2.0 - TARGET_S / SERVICE_S) for n in DOUBLINGS[3:-1]))


def _table(records: dict[Policy, RunRecord], cell: Callable[[RunRecord, StepRecord], str]) -> str:
    rows = ((p.name, *(cell(record, step) for step in record.steps)) for p, record in records.items())
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def share_in(record: RunRecord, step: StepRecord) -> float:
    """Share of the answered requests that were meant to start in a step, within the objective."""
    mine = [latency for end, latency in record.samples if step.start_s <= end - latency < step.end_s]
    return sum(latency <= record.target_s for latency in mine) / len(mine) if mine else 0.0


def _row(policy: Policy, record: RunRecord, ours: RunRecord) -> str:
    values = [step.p95_s for step in up_steps(record) if step.p95_s is not None]
    most = max(point.replicas for point in record.pools[POOL] if point.t <= record.end_s)
    failed = record.beside["all"]["errors"] or 0
    return (
        f"| {policy.label} | {cost(record):,.0f} | {cost(record) / cost(ours):.2f} | {share(record):.2%} "
        f"| {_cell(statistics.median(values))} ms | {_cell(max(values))} ms | {failed:.0f} | {most} |"
    )


def _cell(value_s: float | None) -> str:
    return "-" if value_s is None else f"{value_s * 1e3:,.0f}"


def _ray_version() -> str:
    from importlib.metadata import version

    return version("ray")


def main() -> None:
    """Run the comparison and write its files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a short load; writes to out/bench-ray only")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench-ray", help="folder of the raw records")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    docs = arguments.out if arguments.quick else ROOT / "docs" / "benchmarks"
    records: dict[Policy, RunRecord] = {}
    with running(arguments.quick) as bench:
        url = bench.deploy(OURS)
        records[OURS] = asyncio.run(bench.measure(OURS, main_load(url, bench.quick)))
        records[DEFAULT] = asyncio.run(bench.measure(DEFAULT, main_load(bench.deploy(DEFAULT), bench.quick)))
        chosen, tried = tune(bench)
        records[chosen] = asyncio.run(bench.measure(chosen, main_load(bench.deploy(chosen), bench.quick)))
        bench.say("done")
    docs.mkdir(parents=True, exist_ok=True)
    for policy, record in records.items():
        record.write(arguments.out / f"{policy.name}.json")
    (arguments.out / "tuning.json").write_bytes(orjson.dumps(tried, option=orjson.OPT_INDENT_2))
    picture(records, docs / "ray-autoscaler.png")
    (docs / "ray-autoscaler.md").write_text(page(records, tried, "ray-autoscaler.png"))
    print("\n".join(_row(policy, record, records[OURS]) for policy, record in records.items()))
    print(f"{docs / 'ray-autoscaler.md'}\n{docs / 'ray-autoscaler.png'}")


if __name__ == "__main__":
    main()
