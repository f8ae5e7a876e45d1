"""`tierserve simulate`: autoscaling policies on simulated pools. The work is in `cli.simulate.run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tierserve.cli.files import Service, finite
from tierserve.cli.output import TableOrData
from tierserve.cli.simulate.options import Options


def simulate(
    file: Service,
    *,
    pool: Annotated[str | None, typer.Option(help="Simulate this tier-site alone \\[all, behind one gateway]")] = None,
    trace: Annotated[
        str | None, typer.Option(help="azure-code, mooncake-conversation or a file (docs/load.md)")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(help="Instead of a trace: requests per second, one step after the other, e.g. 5,20,10")
    ] = None,
    duration: Annotated[str, typer.Option(help="Duration of each step of --rate")] = "10m",
    copies: Annotated[int, typer.Option(min=1, max=10_000, help="Trace: copies of each request, spread over 5 s")] = 1,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="Autoscaling policy, or policy=value of its parameter (repeatable) \\[ours]; `--policy list` lists all"
        ),
    ] = None,
    startup: Annotated[str | None, typer.Option(help="Start-up time of a replica \\[from the file]")] = None,
    startup_spread: Annotated[
        float, typer.Option(min=0.0, max=10.0, callback=finite, help="Coefficient of variation of the start-up time")
    ] = 0.0,
    ttft: Annotated[str | None, typer.Option(help="Target of the time to first token \\[from the file]")] = None,
    initial: Annotated[
        int | None, typer.Option(min=0, max=10_000, help="Replicas at the start \\[replicas.min]")
    ] = None,
    router: Annotated[
        str, typer.Option(help="Routing: central, shortest, two-choices, round-robin or random")
    ] = "central",
    fail: Annotated[
        list[str] | None,
        typer.Option(
            help="Replica failures, e.g. 10m=2: two after ten minutes; 10m=2@POOL \\[the first pool] (repeatable)"
        ),
    ] = None,
    answer_cache: Annotated[
        str | None,
        typer.Option(help="Response cache of a tier, TIER=TTL,SIZE, e.g. edge=10m,2Gi; simulation only \\[none]"),
    ] = None,
    prompts: Annotated[
        int | None, typer.Option(min=1, max=1_000_000_000, help="Number of different prompts, for --answer-cache")
    ] = None,
    prefixes: Annotated[
        str | None, typer.Option(help="Shared prompt prefixes and their tokens, e.g. 50=1000 \\[none]")
    ] = None,
    prefix_cache: Annotated[
        int | None, typer.Option(min=0, max=10**15, help="Size of the prefix cache of each pool, tokens \\[unlimited]")
    ] = None,
    zipf: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=10.0,
            callback=finite,
            help="Zipf exponent of the popularity of prompts and prefixes: the k-th as 1/k^ZIPF",
        ),
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Random seed: the same seed gives the same run")] = 1,
    out: Annotated[Path | None, typer.Option(help="File of the plot \\[out/simulate-NAME.png]")] = None,
    output: TableOrData = "table",
) -> None:
    """Simulate autoscaling policies on the pools of a service under a load; show SLO attainment and GPU-hours.

    Replicas batch step by step as engines do, take the start-up time of the file, and drain before they stop. Requests
    overflow to the next tier as at the gateway, with the network times of the tiers.

    [bold]Examples[/bold]

      tierserve simulate service.yaml --trace azure-code --copies 10

      tierserve simulate service.yaml --rate 5,40,5 --policy ours --policy hpa --policy kpa=0.5

      tierserve simulate service.yaml --rate 20 --prefixes 50=1000

      tierserve simulate service.yaml --pool cloud-default --rate 20 --duration 1h --fail 10m=2 -o json
    """
    options = Options(
        file, pool, trace, rate, duration, copies, tuple(policy or ("ours",)), startup, startup_spread, ttft, initial,
        router, tuple(fail or ()), answer_cache, prompts, prefixes, prefix_cache, zipf, seed, out, output,
    )  # fmt: skip
    from tierserve.cli.simulate.run import execute

    execute(options)
