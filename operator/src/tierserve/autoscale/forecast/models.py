"""The models that a forecast is chosen from: what each keeps, how a step updates it, what it expects ahead.

All take the arrivals per second seen in one step, or None where nothing was seen, and cost a few microseconds:

* level: exponential smoothing (Brown), once over a short and once over a long time;
* trend: double exponential smoothing (Holt's level and trend with Brown's gains), the trend damped (Gardner and
  McKenzie 1985);
* season: the mean of each bin of the period over the last periods, times the level of now over that of the same time
  before.

Until enough was seen, gains are those of a plain mean or a plain line, so that the first value is no burden.
"""

from __future__ import annotations

import math
from typing import NamedTuple

FURTHEST = 4.0
"""Largest factor by which a trend or season may carry a rate away from its level within one horizon."""
_BIN_GAIN = 0.3  # share of the last period in a bin of the season
_BIN_SEEN = 0.5  # share of a bin's steps that must be seen for it to count


class Level(NamedTuple):
    """A smoothed rate: arrivals per second, and the steps it was made of."""

    rate: float = 0.0
    seen: int = 0

    def after(self, rate: float | None, gain: float) -> Level:
        """Return the level after a step; a step without data changes nothing."""
        if rate is None:
            return self
        seen = self.seen + 1
        return Level(self.rate + max(gain, 1.0 / seen) * (rate - self.rate), seen)


class Trend(NamedTuple):
    """Level and slope: arrivals per second, and their growth per step."""

    rate: float = 0.0
    slope: float = 0.0
    seen: int = 0

    def after(self, rate: float | None, keep: float, damping: float) -> Trend:
        """Return the line after a step; `keep` is Brown's weight of the past, `damping` that of the slope.

        Without data the line continues with a damped slope. With data the slope is not damped: it would lag behind a
        ramp.
        """
        if rate is None:
            slope = self.slope * damping
            return Trend(max(self.rate + slope, 0.0), slope, self.seen)
        level, slope = max(self.rate + self.slope, 0.0), self.slope
        n = self.seen + 1
        off = rate - level
        gain = max(1.0 - keep * keep, 2.0 * (2 * n - 1) / (n * (n + 1)) if n > 1 else 1.0)
        steepen = max((1.0 - keep) ** 2, 6.0 / (n * (n + 1))) if n > 1 else 0.0
        return Trend(level + gain * off, slope + steepen * off, n)

    def ahead(self, steps: int, damping: float) -> float:
        """Return the rate expected after `steps` more."""
        travelled = damping * (1.0 - damping**steps) / (1.0 - damping) if damping < 1.0 else float(steps)
        return min(max(self.rate + self.slope * travelled, 0.0), FURTHEST * self.rate)


class Season(NamedTuple):
    """A period cut into bins.

    Attributes:
        bins: mean arrivals per second of each, None where no period showed it.
        visits: periods in each, up to the number that the gain needs.
        at: the bin that is being filled.
        total, seen: sum of the rates in it and how many steps gave one.
        now: smoothed rate of now, over a short and a long time.
        usual: the bins smoothed alike, at the same times; now over usual corrects the level.
    """

    bins: tuple[float | None, ...]
    visits: tuple[int, ...]
    at: int = 0
    total: float = 0.0
    seen: int = 0
    now: tuple[float, float] = (0.0, 0.0)
    usual: tuple[float, float] = (0.0, 0.0)

    @staticmethod
    def of(bins: int) -> Season:
        """Return a season of which nothing is known."""
        return Season((None,) * bins, (0,) * bins)

    def usual_at(self, phase: float) -> float | None:
        """Return the mean rate of earlier periods at `phase`, counted in bins and taken between bin centres."""
        count = len(self.bins)
        place = phase - 0.5
        below = math.floor(place)
        share = place - below
        left, right = self.bins[below % count], self.bins[(below + 1) % count]
        if left is None or right is None:
            return None
        return left + share * (right - left)

    def after(self, rate: float | None, phase: float, steps_per_bin: float, gains: tuple[float, float]) -> Season:
        """Return the season after a step whose middle lies at `phase` (in bins)."""
        at = int(phase) % len(self.bins)
        season = self if at == self.at else self._turned(at, steps_per_bin)
        if rate is None:
            return season
        now, usual = season.now, season.usual
        expected = season.usual_at(phase)
        if expected is not None:
            if now == (0.0, 0.0) == usual:  # the first comparison: begin at it, not at 0 / 0
                gains = (1.0, 1.0)
            g, h = gains
            now = (now[0] + g * (rate - now[0]), now[1] + h * (rate - now[1]))
            usual = (usual[0] + g * (expected - usual[0]), usual[1] + h * (expected - usual[1]))
        return Season(season.bins, season.visits, at, season.total + rate, season.seen + 1, now, usual)

    def _turned(self, at: int, steps_per_bin: float) -> Season:
        if self.seen < _BIN_SEEN * steps_per_bin:
            return self._replace(at=at, total=0.0, seen=0)
        k, mean = self.at, self.total / self.seen
        old, visits = self.bins[k], self.visits[k] + 1
        value = mean if old is None else old + max(_BIN_GAIN, 1.0 / visits) * (mean - old)
        bins = (*self.bins[:k], value, *self.bins[k + 1 :])
        counts = (*self.visits[:k], visits, *self.visits[k + 1 :])
        return self._replace(bins=bins, visits=counts, at=at, total=0.0, seen=0)

    def ahead(self, phase: float) -> tuple[float | None, float | None]:
        """Return the rate expected at `phase` (in bins), its level corrected over a short and a long time.

        None while earlier periods did not show it.
        """
        expected = self.usual_at(phase)
        if expected is None:
            return None, None
        one, other = (_corrected(expected, n, u) for n, u in zip(self.now, self.usual, strict=True))
        return one, other


def _corrected(expected: float, now: float, usual: float) -> float | None:
    if usual <= 0.0:
        return expected if now <= 0.0 else None
    return expected * min(max(now / usual, 1.0 / FURTHEST), FURTHEST)
