"""A carbon intensity over time: CSV lines `time,gCO2e/kWh`, by date or for a day that repeats."""

from __future__ import annotations

import bisect
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

DAY_S = 86400.0
MOST = 5000.0
"""gCO2e/kWh above which a figure is taken for one in another unit; burning lignite emits about 1,100."""
HOLDS_S = 6 * 3600.0
"""How long a value holds where the series has a gap or has ended; published series have a value an hour or oftener."""
_OF_DAY = re.compile(r"^([01]\d|2[0-3]):([0-5]\d)$")


@dataclass(frozen=True, slots=True)
class CarbonSeries:
    """Values from a time on, until the next one.

    Attributes:
        times: ascending; Unix seconds, or seconds since midnight UTC.
        values: gCO2e/kWh from each time on.
        daily: the times are of a day that repeats.
    """

    times: tuple[float, ...]
    values: tuple[float, ...]
    daily: bool

    def at(self, now: float) -> float | None:
        """The intensity at a Unix time; None before the first value, and where the last one is older than six hours."""
        if self.daily:  # before its first time the last value of the day before holds
            return self.values[bisect.bisect_right(self.times, now % DAY_S) - 1]
        index = bisect.bisect_right(self.times, now) - 1
        return None if index < 0 or now - self.times[index] > HOLDS_S else self.values[index]

    @property
    def mean(self) -> float:
        """Mean over the time that the series covers."""
        if len(self.times) == 1:
            return self.values[0]
        end = self.times[0] + DAY_S if self.daily else self.times[-1]
        held = [b - a for a, b in zip(self.times, (*self.times[1:], end), strict=True)]
        return sum(value * part for value, part in zip(self.values, held, strict=True)) / sum(held)


@lru_cache(maxsize=256)
def carbon_series(text: str) -> CarbonSeries:
    """Read a series; empty lines, lines that begin with `#` and a heading are left out.

    Raises:
        ValueError: a line that is not `time,value`, times that do not ascend or of both kinds, or no line at all.
    """
    times: list[float] = []
    values: list[float] = []
    kinds: set[bool] = set()
    for number, line in enumerate(text.splitlines(), 1):
        first, _, second = (part.strip() for part in line.partition(","))
        if not first or first.startswith("#") or (not times and first.lower() in {"time", "datetime"}):
            continue
        at, daily = _time(first, number)
        kinds.add(daily)
        if len(kinds) > 1:
            raise ValueError(f"line {number}: {first!r} mixes times of day with dates; use one of the two")
        if times and at <= times[-1]:
            raise ValueError(f"line {number}: {first!r} is not after the line before; sort the lines by time")
        times.append(at)
        values.append(_value(second, number))
    if not times:
        raise ValueError("has no line `time,gCO2e/kWh`; give at least one, such as 00:00,230")
    return CarbonSeries(tuple(times), tuple(values), daily=kinds == {True})


def _time(text: str, number: int) -> tuple[float, bool]:
    """Seconds, and whether they are those of a day."""
    if match := _OF_DAY.match(text):
        return int(match[1]) * 3600.0 + int(match[2]) * 60.0, True
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"line {number}: {text!r} is no time; use HH:MM or RFC 3339") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp(), False


def _value(text: str, number: int) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"line {number}: {text!r} is no number; a gap has no line") from None
    if not 0.0 <= value <= MOST:  # NaN is refused too
        raise ValueError(f"line {number}: {text} is not between 0 and {MOST:g} gCO2e/kWh")
    return value
