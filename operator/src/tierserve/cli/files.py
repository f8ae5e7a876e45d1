"""Argument FILE of the commands: a path, a pipe, or - for standard input; read once, as a pipe requires."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated

import typer

from tierserve.api import GenAIDeployment, ValidationFailed
from tierserve.api.loading import load_text, text_in, text_of
from tierserve.cli.errors import UserError, invalid
from tierserve.observe.model_files import with_model_sizes

STDIN = Path("-")
Service = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="File with a GenAIDeployment, as for `kubectl apply`; - reads standard input"),
]


def read_text(file: Path) -> str:
    """Return the text of a file or of standard input.

    Raises:
        UserError: it cannot be read.
        ValidationFailed: it is not text.
    """
    try:
        return text_in(sys.stdin.buffer) if file == STDIN else text_of(file)
    except OSError as error:
        raise UserError(
            f"{file}: {error.strerror or error}", "give the path of a GenAIDeployment file", code=1
        ) from error


def read(file: Path) -> GenAIDeployment:
    """Read and validate a file, with the sizes of models that are on this machine.

    Raises:
        UserError: it names file, field and hint.
    """
    return with_model_sizes(parsed(file)[1])


def parsed(file: Path) -> tuple[str, GenAIDeployment]:
    """Return the text of a file and its GenAIDeployment; raises UserError."""
    try:
        text = read_text(file)
        return text, load_text(text)
    except ValidationFailed as error:
        raise invalid(file, error.problems) from error


def check_writable(option: str, path: Path) -> None:
    """Raise UserError, before any work, when the file of an option cannot be written; leaves nothing behind."""
    there = path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            pass
    except OSError as error:
        raise UserError(f"{option}: {error.strerror or error} ({path})", "give a writable path") from error
    if not there:
        path.unlink()


def finite(value: float | None) -> float | None:
    """Callback of an option: reject NaN and infinity, which pass every range check."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value
