"""Output of commands: tables as wide as the terminal, or JSON."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import orjson
from rich.console import Console

PIPED_WIDTH = 160  # characters; the widest table


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


def write(document: dict[str, object]) -> None:
    """Print a document as JSON."""
    sys.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n")
