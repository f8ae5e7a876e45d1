"""`tierserve init`: writes a new service file that `tierserve validate` accepts."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.prompt import IntPrompt, Prompt

from tierserve.api import ValidationFailed
from tierserve.api.loading import load_text
from tierserve.cli.errors import UserError
from tierserve.cli.files import STDIN, finite
from tierserve.cli.init import answers as given
from tierserve.cli.init.answers import Answers, TierAnswer
from tierserve.cli.init.text import as_json, as_yaml

FILE = Path("service.yaml")
MOST = 100_000
"""Largest number of tokens and of replicas, as in the CRD."""


def init(
    file: Annotated[
        Path | None, typer.Argument(help="File to write; - writes to standard output \\[service.yaml]")
    ] = None,
    *,
    name: Annotated[str | None, typer.Option(help="metadata.name \\[assistant]")] = None,
    target: Annotated[str | None, typer.Option(help="Response-time target \\[1500ms]")] = None,
    percentile: Annotated[
        float | None,
        typer.Option(min=1, max=99.99, callback=finite, help="Percentage of requests that meet it \\[95]"),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, max=MOST, help="Mean tokens of a response \\[32]", show_default=False)
    ] = None,
    tier: Annotated[
        list[str] | None,
        typer.Option(
            help="A tier: cloud, edge or device, and with commas KEY=VALUE of engine, source, preset, min, max, name, "
            "model; repeatable \\[cloud and device]"
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing: defaults for what no flag sets")] = False,
    output: Annotated[
        Literal["yaml", "json"], typer.Option("--output", "-o", help="Format of the file; JSON has no comments")
    ] = "yaml",
) -> None:
    """Write a new service file with comments: on a terminal by questions, else by flags and defaults.

    The file is valid before it is written, and an existing file is never overwritten.

    [bold]Examples[/bold]

      tierserve init

      tierserve init chat.yaml --name chat --target 800ms --tier cloud,max=20 --tier edge --yes

      tierserve init - --tier cloud,engine=vllm,source=hf://ORG/MODEL --tier device --yes
    """
    path = FILE.with_suffix(f".{output}") if file is None else file
    if path != STDIN:
        _check_new(path)
    asks = not yes and sys.stdin.isatty() and sys.stderr.isatty()
    answers = Answers(
        name=name if name is not None else _ask("Name of the service", "assistant", asks=asks),
        target=target if target is not None else _ask("Response-time target", "1500ms", asks=asks),
        percentile=95.0 if percentile is None else percentile,
        tokens=tokens if tokens is not None else _ask_number("Mean tokens of a response", 32, asks=asks),
        tiers=given.with_names(tuple(map(given.tier_of, tier)) if tier else _ask_tiers(asks=asks)),
    )
    text = as_json(answers) if output == "json" else as_yaml(answers)
    _check_valid(text, path)
    if path == STDIN:
        sys.stdout.write(text)
        return
    _write(path, text)
    typer.echo(
        f"{path} written\n  check  tierserve validate {path}\n  plan   tierserve plan {path} --connections 100\n"
        f"  needs  tierserve doctor {path}\n  start  tierserve up {path}"
    )


def _check_new(path: Path) -> None:
    if path.exists():
        raise UserError(f"FILE: {path} exists and is not overwritten", "give another name, or remove it", code=1)


def _check_valid(text: str, path: Path) -> None:
    """Raise UserError with every problem that `tierserve validate` would report of the file."""
    from tierserve.observe.model_files import with_model_sizes
    from tierserve.plan.placement import place

    try:
        place(with_model_sizes(load_text(text)))
    except ValidationFailed as error:
        problems = "\n".join(problem.format(str(path)) for problem in error.problems)
        raise UserError(f"{problems}\nno file was written", "change the flag of the field that is named") from error


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UserError(f"FILE: {error.strerror or error} ({path})", "give a writable path", code=1) from error


# Questions go to standard error: the file may be written to standard output.


def _ask(question: str, default: str, *, asks: bool, choices: tuple[str, ...] | None = None) -> str:
    if not asks:
        return default
    console = Console(stderr=True, highlight=False)
    allowed = list(choices) if choices else None
    return Prompt.ask(question, default=default, choices=allowed, console=console).strip()


def _ask_number(question: str, default: int, *, asks: bool) -> int:
    if not asks:
        return default
    console = Console(stderr=True, highlight=False)
    while not 1 <= (number := IntPrompt.ask(question, default=default, console=console)) <= MOST:
        console.print(f"must be from 1 to {MOST:,}")
    return number


def _ask_tiers(*, asks: bool) -> tuple[TierAnswer, ...]:
    kinds = _ask(f"Tiers, of {', '.join(given.KINDS)}", "cloud, device", asks=asks)
    tiers = tuple(given.tier_of(kind) for kind in kinds.split(","))
    return tuple(map(_ask_tier, tiers)) if asks else tiers


def _ask_tier(tier: TierAnswer) -> TierAnswer:
    engine = _ask(f"{tier.kind}: engine", tier.engine, asks=True, choices=given.ENGINES)
    source = ""
    if engine != "emulated":
        known = tier.source if engine == tier.engine else "hf://ORG/MODEL"
        source = _ask(f"{tier.kind}: source of the model", known, asks=True)
    preset = _ask(f"{tier.kind}: accelerator", tier.preset, asks=True, choices=given.PRESETS)
    most = _ask_number(f"{tier.kind}: maximum number of replicas", tier.most, asks=True)
    least = min(tier.least, most)
    return replace(tier, engine=engine, source=source, preset=preset, most=most, least=least)
