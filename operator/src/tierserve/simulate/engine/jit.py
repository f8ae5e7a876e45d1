"""Typed wrapper of numba's compiler, with a hint where numba is not installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])


class NumbaMissingError(ImportError):
    """The simulator's inner loops are compiled; without numba they would take a hundred times as long."""

    def __init__(self) -> None:
        super().__init__("the simulator needs numba: pip install 'tierserve[simulate]'")


def jit(function: F) -> F:
    """Compile `function` to machine code on its first call; the code is kept beside the module for the next process."""
    return _compiled(function, "never")


def inlined(function: F) -> F:
    """As `jit`, but inlined: passing all arrays of a machine costs more than a short function."""
    return _compiled(function, "always")


def _compiled(function: F, inline: str) -> F:
    try:
        import numba
    except ImportError as error:
        raise NumbaMissingError from error
    try:
        compiled: F = numba.njit(cache=True, inline=inline)(function)
    except RuntimeError:
        # Neither beside the module nor in the home can code be kept (an image run as another user). A folder in /tmp
        # would do, but whoever made it first could have this process run code of theirs: so compile at every start.
        compiled = numba.njit(inline=inline)(function)
    return compiled
