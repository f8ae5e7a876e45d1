"""`tierserve profile`: batching profile of a replica, by measurement. The work is in `cli.profile.run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tierserve.cli.files import check_writable
from tierserve.cli.output import TableOrData
from tierserve.cli.profile.options import Options

MAX_TOKENS = 1_000_000
MAX_BATCH = 4096


def profile(
    target: Annotated[
        str,
        typer.Argument(
            metavar="URL|FILE",
            help="URL of an OpenAI-compatible server with one replica, or a file with a GenAIDeployment",
        ),
    ],
    *,
    model: Annotated[
        str | None, typer.Option(help="Model name \\[URL: the first of /v1/models; FILE: the only one]")
    ] = None,
    tier: Annotated[
        str | None, typer.Option(help="FILE: tier of the replica \\[the first that runs the model]")
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_BATCH,
            help="Largest batch \\[the slots of the replica; 8 if the server does not report them]",
        ),
    ] = None,
    prompts: Annotated[str, typer.Option(help="Prompt lengths, tokens")] = "16,128,512",
    output_tokens: Annotated[int, typer.Option(min=1, max=MAX_TOKENS, help="Tokens of a response")] = 32,
    long_output_tokens: Annotated[
        int, typer.Option(min=1, max=MAX_TOKENS, help="Tokens of a long response, with the middle prompt length")
    ] = 96,
    rounds: Annotated[
        int, typer.Option(min=2, max=1000, help="Requests of each connection of a closed loop, after the warm-up")
    ] = 4,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare predicted and measured response at 0.5 and 0.9 of the capacity")
    ] = False,
    verify_duration: Annotated[str, typer.Option(help="Length of each load of --verify")] = "3m",
    write: Annotated[bool, typer.Option("--write", help="Write the profile into FILE; comments are kept")] = False,
    out: Annotated[Path | None, typer.Option(help="File of the plot \\[out/profile-MODEL.png]")] = None,
    output: TableOrData = "table",
    timeout: Annotated[str, typer.Option(help="Timeout of a request")] = "10m",
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Random seed of prompts and arrivals")] = 1,
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="Allow a server on another machine")] = False,
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
    """Measure the step times of a replica (alpha, beta, gamma) and print them as `models[].profile`.

    Closed loops of 1, 2, 4, ... connections send prompts of several lengths. URL is one replica, of TierServe, vLLM or
    llama.cpp, with no other load. With FILE the engine of the model is started on this machine, without Ray.

    [bold]Examples[/bold]

      tierserve profile http://127.0.0.1:8000 --batch 16

      tierserve profile service.yaml --model light --write

      tierserve profile service.yaml --model light --verify -o json
    """
    if out:
        check_writable("--out", out)
    options = Options(
        target, model, tier, batch, prompts, output_tokens, long_output_tokens, rounds, verify, verify_duration, write,
        out, output, timeout, seed, allow_remote, api_key, tuple(header or ()), cacert, insecure,
    )  # fmt: skip
    from tierserve.cli.profile.run import execute

    execute(options)
