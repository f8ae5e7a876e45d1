"""The covariance of three unknowns, as tuples of floats: what `calibration` does with it.

Every function keeps it symmetric, its variances at 0 or above and its covariances within what the variances allow,
whatever rounding does.
"""

from __future__ import annotations

import math

SPAN = 20.0
"""Largest ratio of a coefficient to its prior; 1 / SPAN is the least."""
ALIKE = 0.8
"""Share of the variance, opened after a drift, that moves all coefficients by one factor."""

Vector = tuple[float, float, float]
Matrix = tuple[Vector, Vector, Vector]


def quadratic(p: Matrix, v: Vector) -> float:
    """Return v' P v, not below 0 whatever rounding does."""
    diagonal = p[0][0] * v[0] * v[0] + p[1][1] * v[1] * v[1] + p[2][2] * v[2] * v[2]
    beside = p[0][1] * v[0] * v[1] + p[0][2] * v[0] * v[2] + p[1][2] * v[1] * v[2]
    return max(diagonal + 2.0 * beside, 0.0)


def _symmetric(variances: Vector, ab: float, ac: float, bc: float) -> Matrix:
    """Return the matrix with these variances (not below 0) and covariances, each within what the two allow."""
    a, b, c = max(variances[0], 0.0), max(variances[1], 0.0), max(variances[2], 0.0)
    ab, ac, bc = _allowed(ab, a, b), _allowed(ac, a, c), _allowed(bc, b, c)
    return ((a, ab, ac), (ab, b, bc), (ac, bc, c))


def _allowed(cross: float, one: float, other: float) -> float:
    most = math.sqrt(one * other)
    return min(max(cross, -most), most)


def minus_square(p: Matrix, d: Vector, variance: float) -> Matrix:
    """Return P - d d' / variance."""
    x, y, z = d
    return _symmetric(
        (p[0][0] - x * x / variance, p[1][1] - y * y / variance, p[2][2] - z * z / variance),
        p[0][1] - x * y / variance,
        p[0][2] - x * z / variance,
        p[1][2] - y * z / variance,
    )


def forgotten(p: Matrix, ratio: Vector, prior_sd: float, forgetting: float) -> Matrix:
    """Return P with the old samples weighing less, and as much of the prior in their place:

        1 / P <- forgetting / P + (1 - forgetting) / P0,        P0 = diag((prior_sd max(ratio, 1))^2).

    So nothing is ever less known than the prior has it, and nothing seems known that was not seen. (Variances capped
    one by one would turn the line along which one batch, always the same, says nothing.)
    """
    if forgetting >= 1.0:
        return p
    kept = _symmetric(
        (p[0][0] / forgetting, p[1][1] / forgetting, p[2][2] / forgetting),
        p[0][1] / forgetting,
        p[0][2] / forgetting,
        p[1][2] / forgetting,
    )
    for j in range(3):  # the prior as a measurement of each coefficient, with little weight
        variance = kept[j][j] + (prior_sd * max(ratio[j], 1.0)) ** 2 / (1.0 - forgetting)
        kept = minus_square(kept, kept[j], variance)
    return kept


def opened(p: Matrix, ratio: Vector, base: Vector, sd: float) -> Matrix:
    """Return P plus the doubt of a machine that changed by a share of about `sd`, mostly all coefficients alike."""
    x, y, z = (value if b else 0.0 for value, b in zip(ratio, base, strict=True))
    v = sd * sd
    return _symmetric(
        (p[0][0] + v * x * x, p[1][1] + v * y * y, p[2][2] + v * z * z),
        p[0][1] + ALIKE * v * x * y,
        p[0][2] + ALIKE * v * x * z,
        p[1][2] + ALIKE * v * y * z,
    )


def into_bounds(ratio: Vector, p: Matrix) -> Vector:
    """Return the ratios within their bounds: one that leaves is set to its bound, the others follow as expected.

    That is the mean of a normal distribution given the value at the bound; plain clipping would leave the others where
    they made up for a value that cannot be.
    """
    values, fixed = list(ratio), set[int]()
    for _ in range(3):
        outside = [j for j in range(3) if j not in fixed and not 1.0 / SPAN <= values[j] <= SPAN]
        if not outside:
            break
        worst = max(outside, key=lambda j: max(1.0 / SPAN - values[j], values[j] - SPAN))
        bound = min(max(values[worst], 1.0 / SPAN), SPAN)
        shift, variance = bound - values[worst], p[worst][worst]
        values = [v + (p[j][worst] / variance * shift if variance > 0 else 0.0) for j, v in enumerate(values)]
        values[worst] = bound
        fixed.add(worst)
    a, b, c = (min(max(v, 1.0 / SPAN), SPAN) for v in values)
    return (a, b, c)
