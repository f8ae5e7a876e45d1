"""`tierserve load`: ask a service as many users would, and show what they waited. The work is in `cli.loadgen.run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from tierserve.cli.files import check_writable, finite
from tierserve.cli.loadgen.options import Options


def load(
    url: Annotated[str, typer.Argument(help="Base address of the service, for example http://127.0.0.1:8080")],
    *,
    connections: Annotated[
        str | None, typer.Option(help="Closed loop: users that wait for their answer; steps 1,2,4,8 or doubling 1..128")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(help="Open loop: requests per second; steps 5,10,20 or a ramp 1..50")
    ] = None,
    trace: Annotated[
        str | None, typer.Option(help="Replay azure-code, mooncake-conversation or a file (docs/load.md)")
    ] = None,
    duration: Annotated[str, typer.Option(help="Length of each step")] = "20s",
    warmup: Annotated[str | None, typer.Option(help="First part of each step that is not judged [40% of it]")] = None,
    think: Annotated[str, typer.Option(help="Closed loop: pause between answer and next question")] = "0s",
    arrivals: Annotated[str, typer.Option(help="Open loop: poisson or constant")] = "poisson",
    time_scale: Annotated[
        float, typer.Option(min=0.001, max=100_000.0, callback=finite, help="Trace: replay so many times as fast")
    ] = 1.0,
    start: Annotated[str, typer.Option(help="Trace: where the piece begins")] = "0s",
    length: Annotated[str | None, typer.Option(help="Trace: length of the piece, in its time \\[to its end]")] = None,
    token_scale: Annotated[
        float, typer.Option(min=0.001, max=1000.0, callback=finite, help="Trace: multiply its tokens")
    ] = 1.0,
    max_input: Annotated[int, typer.Option(min=1, help="Trace: most tokens of a prompt")] = 2048,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of an answer")] = None,
    model: Annotated[str | None, typer.Option(help="Model asked for \\[the first the service lists]")] = None,
    klass: Annotated[str | None, typer.Option("--class", help="Class of the traffic (X-TierServe-Class)")] = None,
    prompt: Annotated[str | None, typer.Option(help="What is asked (not of a trace) \\[a short question]")] = None,
    stream: Annotated[bool, typer.Option(help="Ask for a stream; measures first token and gaps")] = False,
    also: Annotated[
        list[str] | None, typer.Option(help="Traffic beside it: class=personal,connections=1,think=2s (repeatable)")
    ] = None,
    slo: Annotated[str | None, typer.Option(help="Objective of the response time; failures are misses")] = None,
    timeout: Annotated[str, typer.Option(help="Give a request up after")] = "60s",
    max_requests: Annotated[int, typer.Option(min=1, help="Bound of all requests")] = 1_000_000,
    max_in_flight: Annotated[
        int, typer.Option(min=1, max=60_000, help="Bound of requests under way (open loop)")
    ] = 15_000,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the arrivals and think times")] = 1,
    samples: Annotated[Path | None, typer.Option(help="Write every request to this CSV file")] = None,
    output: Annotated[Literal["table", "json"], typer.Option("-o", "--output", help="Form of the figures")] = "table",
    allow_remote: Annotated[bool, typer.Option(help="Allow a service that is not on this machine")] = False,
    api_key: Annotated[
        str | None, typer.Option(envvar="OPENAI_API_KEY", show_envvar=True, help="Sent as a bearer token")
    ] = None,
    header: Annotated[list[str] | None, typer.Option("-H", "--header", help="'Name: value' (repeatable)")] = None,
    cacert: Annotated[
        Path | None, typer.Option(help="CA certificates to trust, in PEM \\[the system's, or SSL_CERT_FILE]")
    ] = None,
    insecure: Annotated[bool, typer.Option(help="Accept any certificate")] = False,
) -> None:
    """Ask a service as many users would, and show what they waited.

    Give one of --connections, --rate or --trace. Latency counts from when a request was *meant* to start, so a service
    that stalls cannot hide those it made wait.
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
