"""`tierserve load`: load test of an OpenAI-compatible service. The work is in `cli.loadgen.run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tierserve.cli.files import check_writable, finite
from tierserve.cli.loadgen.options import Options
from tierserve.cli.output import TableOrData

MAX_TOKENS = 1_000_000_000
"""Of one prompt or response: beyond any context window, and safe in arithmetic with 64 bits."""


def load(
    url: Annotated[str, typer.Argument(help="Base URL of the service, e.g. http://127.0.0.1:8080")],
    *,
    connections: Annotated[
        str | None, typer.Option(help="Closed loop: number of concurrent users; steps 1,2,4,8 or doubling 1..128")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(help="Open loop: requests per second; steps 5,10,20 or a ramp 1..50")
    ] = None,
    trace: Annotated[
        str | None, typer.Option(help="Replay azure-code, mooncake-conversation or a file (docs/load.md)")
    ] = None,
    duration: Annotated[str, typer.Option(help="Length of each step")] = "20s",
    warmup: Annotated[
        str | None, typer.Option(help="Warm-up of each step, left out of the results \\[40% of the step]")
    ] = None,
    think: Annotated[str, typer.Option(help="Closed loop: think time between response and next request")] = "0s",
    arrivals: Annotated[str, typer.Option(help="Open loop: arrival process, poisson or constant")] = "poisson",
    time_scale: Annotated[
        float, typer.Option(min=0.001, max=100_000.0, callback=finite, help="Trace: speed-up factor of the replay")
    ] = 1.0,
    start: Annotated[str, typer.Option(help="Trace: start of the replayed part")] = "0s",
    length: Annotated[
        str | None, typer.Option(help="Trace: length of the replayed part, in trace time \\[to the end]")
    ] = None,
    token_scale: Annotated[
        float, typer.Option(min=0.001, max=1000.0, callback=finite, help="Trace: factor on the token counts")
    ] = 1.0,
    max_input: Annotated[int, typer.Option(min=1, max=MAX_TOKENS, help="Trace: maximum tokens of a prompt")] = 2048,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, max=MAX_TOKENS, help="Maximum tokens of a response (max_tokens)")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model name \\[the first of /v1/models]")] = None,
    klass: Annotated[str | None, typer.Option("--class", help="Traffic class (header X-TierServe-Class)")] = None,
    prompt: Annotated[str | None, typer.Option(help="Prompt (not with --trace) \\[a short question]")] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Stream responses; measures time to first token and inter-token latency")
    ] = False,
    also: Annotated[
        list[str] | None,
        typer.Option(help="Additional traffic, e.g. class=personal,think=2s (docs/load.md; repeatable)"),
    ] = None,
    slo: Annotated[str | None, typer.Option(help="Response-time objective; failed requests count as misses")] = None,
    timeout: Annotated[str, typer.Option(help="Timeout of a request")] = "60s",
    max_requests: Annotated[int, typer.Option(min=1, max=1_000_000_000, help="Maximum number of requests")] = 1_000_000,
    max_in_flight: Annotated[
        int, typer.Option(min=1, max=60_000, help="Open loop: maximum number of requests in flight")
    ] = 15_000,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Random seed of arrivals and think times")] = 1,
    samples: Annotated[Path | None, typer.Option(help="Write every request to this CSV file")] = None,
    output: TableOrData = "table",
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="Allow a service on another machine")] = False,
    api_key: Annotated[
        str | None, typer.Option(envvar="OPENAI_API_KEY", show_envvar=True, help="API key, sent as a bearer token")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option("-H", "--header", help="Additional header 'Name: value' (repeatable)")
    ] = None,
    cacert: Annotated[
        Path | None, typer.Option(help="CA certificates in PEM \\[those of the system, or SSL_CERT_FILE]")
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Skip verification of the server certificate")] = False,
) -> None:
    """Run a load test against a service and show latencies and errors.

    Give one of --connections, --rate or --trace. Latency counts from the intended start of each request, so a stalled
    service cannot hide its waiting time (no coordinated omission).

    [bold]Examples[/bold]

      tierserve load http://127.0.0.1:8080 --connections 1,2,4,8

      tierserve load http://127.0.0.1:8080 --rate 5,10,20 --slo 2s --stream
    """
    if samples:
        check_writable("--samples", samples)
    options = Options(
        url, connections, rate, trace, duration, warmup, think, arrivals, time_scale, start, length, token_scale,
        max_input, max_tokens, model, klass, prompt, stream, tuple(also or ()), slo, timeout, max_requests,
        max_in_flight, seed, samples, output, allow_remote, api_key, tuple(header or ()), cacert, insecure,
    )  # fmt: skip
    from tierserve.cli.loadgen.run import execute

    execute(options)
