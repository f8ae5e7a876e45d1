"""Argument checks shared by the queueing functions: each error names the argument, its value and the mend."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]
"""What the array forms return."""

Real: TypeAlias = float | npt.ArrayLike
"""A number, or anything numpy can make an array of numbers from."""

_SCALARS = (float, int)
_T = TypeVar("_T")


def is_scalar(*values: object) -> bool:
    """Tell whether every value is one number, so that the path without arrays may be taken."""
    return all(type(v) in _SCALARS or isinstance(v, np.floating | np.integer) or np.ndim(v) == 0 for v in values)  # type: ignore[arg-type]


def complain(name: str, value: object, need: str, mend: str) -> ValueError:
    """Make the error for a bad argument; the caller raises it."""
    return ValueError(f"{name} must be {need}, got {value!r}: {mend}")


def at_least_zero(name: str, value: Any, mend: str) -> float:
    """Return `value` as a float that is finite and not negative."""
    return _number(name, value, "a finite number >= 0", mend, lambda x: 0 <= x < math.inf)


def above_zero(name: str, value: Any, mend: str) -> float:
    """Return `value` as a float that is finite and positive."""
    return _number(name, value, "a finite number > 0", mend, lambda x: 0 < x < math.inf)


def fraction(name: str, value: Any, mend: str) -> float:
    """Return `value` as a float of the open interval (0, 1)."""
    return _number(name, value, "between 0 and 1 (both excluded)", mend, lambda x: 0 < x < 1)


def _number(name: str, value: Any, need: str, mend: str, good: Callable[[float], bool]) -> float:
    try:
        x = float(value)
    except (TypeError, ValueError):
        raise complain(name, value, need, mend) from None
    if not good(x):
        raise complain(name, value, need, mend)
    return x


def array_of(name: str, value: Real, mend: str, *, zero: bool = True) -> Array:
    """Return `value` as an array of finite numbers that are not negative (`zero=False`: positive)."""
    x = np.asarray(value, dtype=np.float64)
    good = np.isfinite(x) & ((x >= 0) if zero else (x > 0))
    if not good.all():
        need = f"finite numbers {'>=' if zero else '>'} 0"
        raise complain(name, float(x[~good].flat[0]), need, mend)
    return x
