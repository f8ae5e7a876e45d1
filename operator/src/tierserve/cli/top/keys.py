"""Single keys of the terminal, without Enter."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

NextKey = Callable[[float], str]


@contextmanager
def keyboard() -> Iterator[NextKey]:
    """Read single keys from standard input, which must be a terminal; its mode is restored at the end.

    Yields a function that waits so many seconds for a key and returns it; empty if there was none.
    """
    terminal = sys.stdin.fileno()
    mode = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)

    def next_key(seconds: float) -> str:
        ready, _, _ = select.select([terminal], [], [], max(seconds, 0.0))
        if not ready:
            return ""
        # A read from the file descriptor: Python's own buffer would hide further keys from select.
        pressed = os.read(terminal, 1)
        if not pressed:
            raise EOFError
        return pressed.decode(errors="replace").lower()

    try:
        yield next_key
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, mode)
