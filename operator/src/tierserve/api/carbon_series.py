"""A carbon intensity over time: CSV lines `time,gCO2e/kWh`, by date or for a day that repeats."""

from __future__ import annotations

import bisect
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache

DAY_S = 86400.0
HOLDS_S = 6 * 3600.0
"""How long a value holds where the series has a gap or has ended; published series have a value an hour or oftener."""
_CLOCK = "([01][0-9]|2[0-3]):[0-5][0-9]"
_ZONE = "(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_DATED = f"[1-9][0-9]{{3}}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T{_CLOCK}(:[0-5][0-9])?{_ZONE}"
_VALUE = r",[0-9]{1,4}(\.[0-9]{1,6})?"
SERIES_PATTERN = rf"^(time,[ -~]*\n)?({_CLOCK}{_VALUE}(\n{_CLOCK}{_VALUE})*|{_DATED}{_VALUE}(\n{_DATED}{_VALUE})*)\n?$"
"""A heading or none; then lines that are all of one kind. The API server checks the same, so that both agree."""
_LINE = re.compile(r"(?:(\d+)-(\d+)-(\d+)T)?(\d\d):(\d\d)(?::(\d\d))?(Z|[+-]\d\d:\d\d)?,([0-9.]+)")


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
    """Read a series that matches `SERIES_PATTERN`: lines in any order; of two with one time the later line holds."""
    found: dict[float, float] = {}
    daily = True
    for match in _LINE.finditer(text):
        year, month, day, hour, minute, second, zone, value = match.groups()
        at = int(hour) * 3600.0 + int(minute) * 60.0 + int(second or 0)
        if year is not None:
            daily = False
            # Days are counted from the first of the month, so that 30 February is 2 March and no error.
            first = datetime(int(year), int(month), 1, tzinfo=_zone(zone)) + timedelta(days=int(day) - 1)
            at += first.timestamp()
        found[at] = float(value)
    times = sorted(found)
    return CarbonSeries(tuple(times), tuple(found[at] for at in times), daily)


def _zone(text: str) -> timezone:
    if text == "Z":
        return UTC
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[4:6]))
    return timezone(-offset if text[0] == "-" else offset)
