"""Argument checks shared by the queueing functions: each error names the argument, its value and the hint.

Those of arrays are in `_arrays`: numpy would double the start of what needs numbers alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any


def complain(name: str, value: object, need: str, hint: str) -> ValueError:
    """Make the error for a bad argument; the caller raises it."""
    return ValueError(f"{name} must be {need}, got {value!r}: {hint}")


def at_least_zero(name: str, value: Any, hint: str) -> float:
    """Return `value` as a float that is finite and not negative."""
    return _number(name, value, "a finite number >= 0", hint, lambda x: 0 <= x < math.inf)


def above_zero(name: str, value: Any, hint: str) -> float:
    """Return `value` as a float that is finite and positive."""
    return _number(name, value, "a finite number > 0", hint, lambda x: 0 < x < math.inf)


def fraction(name: str, value: Any, hint: str) -> float:
    """Return `value` as a float of the open interval (0, 1)."""
    return _number(name, value, "between 0 and 1 (both excluded)", hint, lambda x: 0 < x < 1)


def whole(name: str, value: Any, hint: str) -> int:
    """Return `value` as an int that is 1 or more."""
    if value < 1 or int(value) != value:
        raise complain(name, value, "a whole number >= 1", hint)
    return int(value)


def _number(name: str, value: Any, need: str, hint: str, good: Callable[[float], bool]) -> float:
    try:
        x = float(value)
    except (TypeError, ValueError):
        raise complain(name, value, need, hint) from None
    if not good(x):
        raise complain(name, value, need, hint)
    return x
