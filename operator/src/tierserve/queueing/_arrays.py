"""Checks of arguments that may be arrays."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from tierserve.queueing._validation import complain

Array: TypeAlias = npt.NDArray[np.float64]
"""What the array forms return."""

Real: TypeAlias = float | npt.ArrayLike
"""A number, or anything numpy can make an array of numbers from."""

_SCALARS = (float, int)


def is_scalar(*values: object) -> bool:
    """Return whether every value is one number, so that the path without arrays may be taken."""
    return all(type(v) in _SCALARS or isinstance(v, np.floating | np.integer) or np.ndim(v) == 0 for v in values)  # type: ignore[arg-type]


def array_of(name: str, value: Real, hint: str, *, zero: bool = True) -> Array:
    """Return `value` as an array of finite numbers that are not negative (`zero=False`: positive)."""
    x = np.asarray(value, dtype=np.float64)
    good = np.isfinite(x) & ((x >= 0) if zero else (x > 0))
    if not good.all():
        need = f"finite numbers {'>=' if zero else '>'} 0"
        raise complain(name, float(x[~good].flat[0]), need, hint)
    return x
