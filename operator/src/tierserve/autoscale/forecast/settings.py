"""How a forecaster is set: its step, its horizon, its season, and what follows from them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tierserve.queueing._validation import above_zero

_BLOCKS = 16  # about as many blocks in a horizon
_MOST_BINS = 1008  # of a season: ten minutes of a week


@dataclass(frozen=True, slots=True)
class Forecaster:
    """The settings; times in seconds.

    Attributes:
        step_s: time between two calls of `observe`.
        horizon_s: how far ahead: start-up time plus the time between decisions.
        period_s: length of the season; a day by default.
        block, blocks: steps in a block, and blocks in a horizon.
        bins, steps_per_bin: parts that the season is cut into.
        gains: weights of a new step in the two levels.
        season_gains: the same for the two corrections of the season's level.
        keep, damping: weights of the past, and of the slope, in the trend.
    """

    step_s: float
    horizon_s: float
    period_s: float = 86400.0
    block: int = field(init=False)
    blocks: int = field(init=False)
    bins: int = field(init=False)
    gains: tuple[float, float] = field(init=False)
    season_gains: tuple[float, float] = field(init=False)
    steps_per_bin: float = field(init=False)
    keep: float = field(init=False)
    damping: float = field(init=False)

    def __post_init__(self) -> None:
        above_zero("step_s", self.step_s, "give the seconds between two observations")
        above_zero("horizon_s", self.horizon_s, "give the start-up time plus the time between decisions, in seconds")
        above_zero("period_s", self.period_s, "give the length of the season, 86400 for a day")
        steps = max(math.ceil(self.horizon_s / self.step_s - 1e-9), 1)
        block = max(steps // _BLOCKS, 1)
        horizon = max(self.horizon_s, self.step_s)
        bin_s = max(self.step_s, min(600.0, self.period_s / 24.0), self.period_s / _MOST_BINS)
        bins = max(round(self.period_s / bin_s), 1)
        derived = {
            "block": block,
            "blocks": math.ceil(steps / block),
            "bins": bins,
            "steps_per_bin": self.period_s / bins / self.step_s,
            "gains": (self._gain(horizon / 4.0), self._gain(2.0 * horizon)),
            "season_gains": (self._gain(horizon / 4.0), self._gain(max(6.0 * horizon, 3.0 * bin_s))),
            "keep": math.exp(-self.step_s / horizon),
            "damping": 0.7 ** (self.step_s / horizon),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def _gain(self, time_s: float) -> float:
        """The weight of a new step in exponential smoothing over `time_s`."""
        return -math.expm1(-self.step_s / time_s)

    @property
    def steps(self) -> int:
        """The horizon in steps, rounded up to whole blocks."""
        return self.block * self.blocks

    @property
    def seasonal(self) -> bool:
        """Whether a season is usable: it has enough bins and is longer than the horizon."""
        return self.bins >= 4 and self.period_s > self.horizon_s

    def phase(self, step: float) -> float:
        """Return where a step lies in the period, counted in bins."""
        return (step * self.step_s % self.period_s) / self.period_s * self.bins
