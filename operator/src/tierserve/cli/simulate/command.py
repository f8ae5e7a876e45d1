"""`tierserve simulate`: what scaling rules would do with a pool under a load. The work is in `cli.simulate.run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from tierserve.cli.files import Service, finite
from tierserve.cli.simulate.options import Options


def simulate(
    file: Service,
    *,
    pool: Annotated[str | None, typer.Option(help="Simulate this tier-site alone \\[all, behind one gateway]")] = None,
    trace: Annotated[
        str | None, typer.Option(help="azure-code, mooncake-conversation or a file (docs/load.md)")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(help="In place of a trace: requests per second, one after the other, e.g. 5,20,10")
    ] = None,
    duration: Annotated[str, typer.Option(help="Length of each rate")] = "10m",
    copies: Annotated[int, typer.Option(min=1, max=10_000, help="Trace: each request as so many, within 5 s")] = 1,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="Rule, or rule=value of its knob (repeatable) \\[ours]; `--policy list` names all"),
    ] = None,
    startup: Annotated[str | None, typer.Option(help="Time to start a replica \\[as the file says]")] = None,
    startup_spread: Annotated[
        float, typer.Option(min=0.0, max=10.0, callback=finite, help="Its coefficient of variation")
    ] = 0.0,
    ttft: Annotated[str | None, typer.Option(help="Target of the first token \\[as the file says]")] = None,
    initial: Annotated[int | None, typer.Option(min=0, max=10_000, help="Replicas at the start \\[the floor]")] = None,
    router: Annotated[str, typer.Option(help="central, shortest, two-choices, round-robin or random")] = "central",
    fail: Annotated[
        list[str] | None,
        typer.Option(help="Replicas that die, e.g. 10m=2: two after ten minutes, 10m=2@POOL \\[the first], repeatable"),
    ] = None,
    answer_cache: Annotated[
        str | None,
        typer.Option(help="What if a tier cached answers, e.g. edge=10m,2Gi; no gateway does yet \\[none]"),
    ] = None,
    prompts: Annotated[
        int | None, typer.Option(min=1, max=1_000_000_000, help="Number of different prompts, for --answer-cache")
    ] = None,
    prefixes: Annotated[
        str | None, typer.Option(help="Beginnings of prompts and their tokens, e.g. 50=1000 \\[none are shared]")
    ] = None,
    prefix_cache: Annotated[
        int | None, typer.Option(min=0, help="Tokens of beginnings that each pool keeps \\[all]")
    ] = None,
    zipf: Annotated[
        float,
        typer.Option(
            min=0.0, max=10.0, callback=finite, help="How much more often some are asked: the k-th as 1/k^ZIPF"
        ),
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of all dice: the same seed gives the same run")] = 1,
    out: Annotated[Path | None, typer.Option(help="Picture \\[out/simulate-NAME.png]")] = None,
    output: Annotated[Literal["table", "json"], typer.Option("-o", "--output", help="Form of the figures")] = "table",
) -> None:
    """Let scaling rules run the pools of a service under a load, and show what users and the bill would see.

    Replicas batch step by step as engines do, start as slowly as the file says, and stop drained. Tiers overflow into
    the next as at the gateway, with the times of their networks.

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
