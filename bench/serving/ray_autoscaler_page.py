"""The page and the picture from the records of bench/serving/ray_autoscaler.py."""

from __future__ import annotations

import argparse
import asyncio
import platform
import signal
import statistics
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib as mpl
import orjson
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from bench.serving import ray_autoscaler
from bench.serving.ray_autoscaler import (
    DEFAULT,
    DOUBLINGS,
    OURS,
    PERCENTILE,
    POOL,
    ROOT,
    SERVICE_S,
    TARGET_S,
    Policy,
    cost,
    machine,
    main_load,
    running,
    share,
    tune,
)
from tierserve.report.figures import INK, MUTED, STYLE, TARGET
from tierserve.report.record import RunRecord, StepRecord


def up_steps(record: RunRecord) -> list[Any]:
    """Steps of growing connections."""
    return [step for step in record.steps if step.name.isdecimal()]


def picture(records: dict[Policy, RunRecord], path: Path) -> None:
    """p95 over connections, replicas over time, and replica-seconds."""
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
    ours = next(record for policy, record in records.items() if policy.name == OURS.name)
    requests = ours.beside["all"]["requests"] or 0.0
    names = [step.name for step in ours.steps]
    rows = "\n".join(row(policy, record, ours) for policy, record in records.items())
    steps = _table(records, lambda record, step: _cell(step.p95_s))
    shares = _table(records, lambda record, step: f"{share_in(record, step):.1%}")
    trials = "\n".join(f"| {t['label']} | {t['within_slo']:.2%} | {t['replica_seconds']:,.0f} |" for t in tried)
    return f"""# TierServe's policy compared with Ray Serve's own autoscaler

Made by `make bench-ray` on {machine()}, Python {platform.python_version()}, Ray {version("ray")}. The same application
(emulated engine, 8 slots, about 1 s of service), the same load, one policy after another; the objective is
p{PERCENTILE:g} <= {TARGET_S * 1e3:.0f} ms.

![p95, replicas and replica-seconds of three policies]({image})

| policy | replica-seconds | ratio to TierServe | within the target | median p95 | worst p95 | failed | most replicas |
|---|---|---|---|---|---|---|---|
{rows}

p95 of the steady part of every step, ms:

| policy | {" | ".join(names)} |
|---|{"---|" * len(names)}
{steps}

Share of the requests of every step within the target, scaling included:

| policy | {" | ".join(names)} |
|---|{"---|" * len(names)}
{shares}

The medians and the worst are over the steps of connections. Replica-seconds count every replica that exists (starting,
serving, stopping), once a second from Serve's REST status. The share within the target is of all requests, scaling
included; failures are misses. Clients of TierServe's policy use the gateway, those of Ray's Ray Serve's HAProxy
ingress. The last step replays a piece of the Azure LLM inference trace 2023 (code; CC-BY 4.0), five times as fast, as
an open loop: latency counts from the intended start.

## How Ray's autoscaler was tuned

On the upper half of the load, half as long. The chosen setting has the fewest replica-seconds of those that keep
{PERCENTILE:g}% of all requests within the target there, or the highest share where none does.

| setting | within the target | replica-seconds |
|---|---|---|
{trials}

## What limits the share

New connections come at once and replicas seconds later. Until then c slots with a service time of S carry c T / S
connections within T: where N become 2 N and c = N, half of the new ones are late once, in any order.
That is at least {unavoidable()} of the {requests:.0f} requests here, a share of at most
{1 - unavoidable() / requests:.2%} for a policy with a slot for each connection and none to spare.
(First in, first out is far worse: all are late until the last replica serves. The gateway serves those first that
can still be in time.) To have none late takes c >= 2 N S / T slots before they come, {2 / TARGET_S:.2f} for each of N
connections; a target of 6 for 8 slots keeps exactly that, Ray's default four for each. `replicas.headroom` keeps slots
for growth too, at their price. The rest is the machine: replicas that start take the cores of those that serve, and a
policy that starts more of them is late more often. On more or faster cores that effect vanishes, and policies that
keep idle slots have all requests in time.
"""


def unavoidable() -> int:
    """Requests of the doublings that miss the target where each connection has exactly one slot: 2 N - c T / S each.

    Below 8 connections the one replica has idle slots.
    """
    return round(sum(n * (2.0 - TARGET_S / SERVICE_S) for n in DOUBLINGS[3:-1]))


def _table(records: dict[Policy, RunRecord], cell: Callable[[RunRecord, StepRecord], str]) -> str:
    rows = ((p.name, *(cell(record, step) for step in record.steps)) for p, record in records.items())
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def share_in(record: RunRecord, step: StepRecord) -> float:
    """Share of the answered requests whose intended start is in a step, within the objective."""
    mine = [latency for end, latency in record.samples if step.start_s <= end - latency < step.end_s]
    return sum(latency <= record.target_s for latency in mine) / len(mine) if mine else 0.0


def row(policy: Policy, record: RunRecord, ours: RunRecord) -> str:
    """The policy's row of the first table."""
    values = [step.p95_s for step in up_steps(record) if step.p95_s is not None]
    most = max(point.replicas for point in record.pools[POOL] if point.t <= record.end_s)
    failed = record.beside["all"]["errors"] or 0
    return (
        f"| {policy.label} | {cost(record):,.0f} | {cost(record) / cost(ours):.2f} | {share(record):.2%} "
        f"| {_cell(statistics.median(values))} ms | {_cell(max(values))} ms | {failed:.0f} | {most} |"
    )


def _cell(value_s: float | None) -> str:
    return "-" if value_s is None else f"{value_s * 1e3:,.0f}"


def main() -> None:
    """Run the comparison and write its files."""
    parser = argparse.ArgumentParser(
        description=ray_autoscaler.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    print("\n".join(row(policy, record, records[OURS]) for policy, record in records.items()))
    print(f"{docs / 'ray-autoscaler.md'}\n{docs / 'ray-autoscaler.png'}")


if __name__ == "__main__":
    main()
