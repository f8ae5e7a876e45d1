"""Whether arrivals climb, and where the climb arrives by the time that a replica asked for now would serve.

Counts of equal times are fitted by a line and, for loads that grow by a share, by an exponential; the one that fits
better is followed. A climb counts if its slope is beyond chance, so that a constant load moves nothing; if the line
fits better than one step, for a step has happened and does not continue; and unless a climb that has come to a level
fits much better. A short time shows a steep climb soon, a longer one a slow climb that would take many more requests to
show in a short one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from tierserve.autoscale.history import History

IMPLAUSIBLE = 4.5  # standard errors
_COUNTS = 12
_LEVEL = 3  # counts at least on either side of the moment at which a climb ended
_ENDED = 10.0  # F of a climb that ended over one that goes on: the 1% point of 1 and 9 degrees of freedom
_LEAST_S, _MOST_S = 15.0, 120.0
_SLOW, _SLOWEST_S = 4.0, 300.0
_LEAST_COUNT = 10.0  # under it a logarithm tells little


class Line(NamedTuple):
    """A line through values at 0, 1, ..., n - 1, by least squares; `residual`: the sum of squares left."""

    mean: float
    slope: float
    residual: float
    centre: float
    sxx: float

    def at(self, j: float) -> float:
        """Return its value at a place, which may be beyond the last."""
        return self.mean + self.slope * (j - self.centre)


def line(y: Sequence[float]) -> Line:
    """Return the line through at least two values."""
    n = len(y)
    mean, centre = sum(y) / n, (n - 1) / 2.0
    sxx = n * (n * n - 1) / 12.0
    slope = sum((j - centre) * v for j, v in enumerate(y)) / sxx
    return Line(mean, slope, sum((v - mean - slope * (j - centre)) ** 2 for j, v in enumerate(y)), centre, sxx)


def ramp_rate(h: History, ahead_s: float, confidence: float = 0.0) -> float | None:
    """Return the arrival rate `ahead_s` from now if arrivals climb steadily, None otherwise.

    Args:
        h: what was seen.
        ahead_s: seconds, > 0; a climb is followed no further than the time in which it was seen.
        confidence: standard errors of that rate by which it is enlarged.
    """
    short = min(max(2.0 * ahead_s, _LEAST_S), _MOST_S)
    lengths = (short, min(_SLOW * short, _SLOWEST_S))
    rates = (_climb(h, length, ahead_s, confidence) for length in lengths if h.now - h.marks[0].t >= length)
    return next((rate for rate in rates if rate is not None), None)


def _climb(h: History, length: float, ahead_s: float, confidence: float) -> float | None:
    width = length / _COUNTS
    cuts = [h.mark_at(h.now - (_COUNTS - j) * width).arrivals for j in range(_COUNTS)] + [h.marks[-1].arrivals]
    y = [b - a for a, b in itertools.pairwise(cuts)]
    fit = line(y)
    noise = max(fit.residual / (_COUNTS - 2), fit.mean)
    if fit.slope <= 0 or fit.slope < IMPLAUSIBLE * math.sqrt(noise / fit.sxx) or _step_residual(y) <= fit.residual:
        return None
    place = _COUNTS - 0.5 + min(ahead_s / width, _COUNTS)  # now is half a count after the middle of the last
    arrives, left = _followed(y, fit, place)
    ended = _ended_residual(y)
    if left - ended > _ENDED * ended / (_COUNTS - 3):
        return None
    error = math.sqrt(noise * (1.0 / _COUNTS + (place - fit.centre) ** 2 / fit.sxx))
    return (arrives + confidence * error) / width


def around_growth(y: Sequence[float]) -> float:
    """Return the sum of squares around the line or the exponential through at least two values, whichever is less."""
    fit = line(y)
    return _followed(y, fit, 0.0)[1]


def _followed(y: Sequence[float], fit: Line, place: float) -> tuple[float, float]:
    """Return where the line or the exponential arrives, whichever fits better, and the squares that it leaves."""
    if min(y) < _LEAST_COUNT:
        return fit.at(place), fit.residual
    grown = line([math.log(v) for v in y])
    left = sum((v - math.exp(grown.at(j))) ** 2 for j, v in enumerate(y))
    return (math.exp(grown.at(place)), left) if left < fit.residual else (fit.at(place), fit.residual)


def _ended_residual(y: Sequence[float]) -> float:
    """Return the squares left by the best line that is level from some moment on."""

    def around(j: int) -> float:
        x = [min(k, j) for k in range(len(y))]
        mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
        sxx = sum((a - mean_x) ** 2 for a in x)
        slope = sum((a - mean_x) * b for a, b in zip(x, y, strict=True)) / sxx
        return sum((b - mean_y - slope * (a - mean_x)) ** 2 for a, b in zip(x, y, strict=True))

    return min(around(j) for j in range(_LEVEL - 1, len(y) - _LEVEL))


def _step_residual(y: Sequence[float]) -> float:
    def around_mean(v: Sequence[float]) -> float:
        m = sum(v) / len(v)
        return sum((x - m) ** 2 for x in v)

    return min(around_mean(y[:i]) + around_mean(y[i:]) for i in range(1, len(y)))
