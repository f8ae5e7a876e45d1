"""Forecast errors: a window of the ratios observed / forecast, and their conformal quantiles.

That is split conformal prediction (Vovk et al.; Lei et al. 2018) on ratios: with n past ratios, the one to come is not
above the ceil((n + 1) q)-th smallest with probability q at least, if they are exchangeable. Arrivals are so only
roughly: the window is bounded, so that it is of the recent past.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from statistics import NormalDist
from typing import NamedTuple

WINDOW = 512
"""Ratios kept: the recent past, and a quantile up to 0.998."""
FEW = 32
"""Ratios below which a prior spread is used instead."""
PRIOR_SD = 0.2
"""Relative standard deviation of a forecast of which nothing is known, beside the Poisson noise of a step."""
_NORMAL = NormalDist()


class Residuals(NamedTuple):
    """The last ratios as they came, and the same sorted (so that a quantile is one look-up)."""

    recent: tuple[float, ...] = ()
    ordered: tuple[float, ...] = ()

    def after(self, ratio: float) -> Residuals:
        """Return the window with one ratio more, without the oldest if it is full."""
        ordered = list(self.ordered)
        recent = self.recent
        if len(recent) >= WINDOW:
            del ordered[bisect_left(ordered, recent[0])]
            recent = recent[1:]
        insort(ordered, ratio)
        return Residuals((*recent, ratio), tuple(ordered))

    def quantile(self, q: float) -> float | None:
        """Return the ratio not exceeded with probability `q`; None where the window is too short."""
        n = len(self.ordered)
        rank = max(math.ceil((n + 1) * q - 1e-9), 1)
        return self.ordered[rank - 1] if n >= FEW and rank <= n else None


class Band(NamedTuple):
    """Distribution of one forecast rate, in arrivals per second.

    Attributes:
        forecast: the forecast that the ratios refer to.
        one: the rate that one arrival in a step makes; added to both sides of a ratio, so that 0 can be forecast.
        residuals: the ratios of this figure.
        steps: over how many steps it is the largest; 1 for the rate of one step.
    """

    forecast: float
    one: float
    residuals: Residuals
    steps: int = 1

    def ratio(self, seen: float) -> float:
        """Return seen over forecast."""
        return (seen + self.one) / (self.forecast + self.one)

    def quantile(self, q: float) -> float:
        """Return the rate that is not exceeded with probability `q`; rises with q, never below 0."""
        if not 0.0 < q < 1.0:
            raise ValueError(f"q must be between 0 and 1 (both excluded), got {q!r}")
        known = self.residuals.quantile(q)
        if known is not None:
            return self._rate(known)
        prior = self._prior(q)
        if len(self.residuals.ordered) < FEW:
            return prior
        return max(prior, self._rate(self.residuals.ordered[-1]))  # q is beyond all observed ratios

    def _rate(self, ratio: float) -> float:
        return max(ratio * (self.forecast + self.one) - self.one, 0.0)

    def _prior(self, q: float) -> float:
        """Return the quantile by a normal spread; the largest of several steps lies sqrt(2 ln steps) higher."""
        poisson = math.sqrt(max(self.forecast, self.one) * self.one)
        sd = math.hypot(poisson, PRIOR_SD * self.forecast)
        return max(self.forecast + poisson * math.sqrt(2.0 * math.log(self.steps)) + sd * _NORMAL.inv_cdf(q), 0.0)
