"""What commands print: tables as wide as the terminal, or JSON."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import orjson
from rich.console import Console

PIPED_WIDTH = 160


def console() -> Console:
    """A console as wide as the terminal, or wide enough for the tables where the output is piped."""
    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep off stdout what HiGHS at times writes there from C++, whatever it is asked: JSON must stay JSON."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        ctypes.CDLL(None).fflush(None)  # it may lie in the buffer of C's stdio until the end
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def write(document: dict[str, object]) -> None:
    """Print a document as JSON."""
    sys.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n")
