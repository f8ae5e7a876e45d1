"""Output of commands: tables as wide as the terminal, JSON or YAML."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import orjson
import typer
import yaml
from rich.console import Console

PIPED_WIDTH = 160  # characters; the widest table
TEXT_WIDTH = (40, 80)  # characters of a line of text: at least, at most; longer lines are hard to read
TextOrData = Annotated[Literal["text", "json", "yaml"], typer.Option("--output", "-o", help="Output format")]
TableOrData = Annotated[Literal["table", "json", "yaml"], typer.Option("--output", "-o", help="Output format")]


def console() -> Console:
    """Return a console of the terminal's width, or of PIPED_WIDTH for piped output."""
    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Discard what HiGHS writes to stdout from C++ even with its log turned off: it would break the JSON output."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        ctypes.CDLL(None).fflush(None)  # C stdio may hold it in its buffer until exit
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def text_width() -> int:
    """Return the width of lines of text: that of the terminal, within `TEXT_WIDTH`."""
    least, most = TEXT_WIDTH
    return max(least, min(most, shutil.get_terminal_size((most, 24)).columns))


def emit(document: Any, form: str) -> None:
    """Print a document as `json` or `yaml`."""
    # Through JSON, so that both forms have the same values: numbers that are not finite become null.
    data = orjson.dumps(document, option=orjson.OPT_INDENT_2)
    if form == "json":
        sys.stdout.write(data.decode() + "\n")
    else:
        sys.stdout.write(yaml.safe_dump(orjson.loads(data), sort_keys=False, allow_unicode=True))
