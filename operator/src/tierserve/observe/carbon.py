"""Carbon intensity of each tier now: from its series, from a provider of live data, or as the resource states it.

A provider is an entry point of the group `tierserve.carbon_sources`: a function from a zone (or None) to gCO2e/kWh,
which may take seconds and may raise. It is asked at most every five minutes for each zone. Between failures its last
value holds for six hours, then the constant of the tier; the source that is reported says which it was.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import entry_points

from tierserve.api import GenAIDeployment
from tierserve.api.carbon_series import HOLDS_S, carbon_series
from tierserve.api.v1alpha1.tiers import CarbonSource, Tier
from tierserve.state import Intensity

log = logging.getLogger("tierserve")
GROUP = "tierserve.carbon_sources"
EVERY_S = 300.0
"""Published intensities are of five minutes (Electricity Maps) or half an hour (National Grid ESO)."""
RETRY_S = 60.0
MOST = 5000.0
"""gCO2e/kWh above which an answer is taken for one in another unit; burning lignite emits about 1,100."""
Provider = Callable[[str | None], float]


@lru_cache(maxsize=64)
def provider_of(name: str) -> Provider:
    """The provider of a name.

    Raises:
        LookupError: no installed package has it.
    """
    for point in entry_points(group=GROUP, name=name):
        found: Provider = point.load()
        return found
    known = ", ".join(sorted(entry_points(group=GROUP).names))
    raise LookupError(f"no package has the entry point {name} of {GROUP}; there are: {known}")


@dataclass(slots=True)
class _Last:
    value: float | None = None
    at: float = 0.0
    ask_from: float = 0.0
    failing: bool = False


@dataclass(slots=True)
class CarbonReader:
    """Reads intensities, and remembers the last value of each provider and zone."""

    find: Callable[[str], Provider] = provider_of
    clock: Callable[[], float] = time.time
    _last: dict[tuple[str, str | None], _Last] = field(default_factory=dict)

    async def read(self, gaid: GenAIDeployment) -> dict[str, Intensity]:
        """The intensity of each tier that is on, by its name."""
        sources = [tier.carbon_source for tier in gaid.tiers_on if tier.carbon_source is not None]
        due = {(one.provider, one.zone) for one in sources if one.provider is not None}
        await asyncio.gather(*(asyncio.to_thread(self._ask, *key) for key in due))
        return {tier.name: self._intensity(tier) for tier in gaid.tiers_on}

    def _ask(self, provider: str, zone: str | None) -> None:
        now, last = self.clock(), self._last.setdefault((provider, zone), _Last())
        if now < last.ask_from:
            return
        try:
            value = float(self.find(provider)(zone))
            if not 0.0 <= value <= MOST:
                raise ValueError(f"{value} is not between 0 and {MOST:g} gCO2e/kWh")
        except Exception as error:  # a plug-in may raise whatever it likes
            if not last.failing:
                log.warning("carbon intensity of %s, zone %s: %s: %s", provider, zone, type(error).__name__, error)
            last.failing, last.ask_from = True, now + RETRY_S
            return
        self._last[provider, zone] = _Last(value, now, now + EVERY_S)

    def _intensity(self, tier: Tier) -> Intensity:
        source = tier.carbon_source
        value, name = self._of_source(source) if source is not None else (None, "")
        return Intensity(tier.carbon_g_per_kwh, "constant") if value is None else Intensity(value, name)

    def _of_source(self, source: CarbonSource) -> tuple[float | None, str]:
        if source.series is not None:
            return carbon_series(source.series).at(self.clock()), "series"
        last = self._last.get((str(source.provider), source.zone), _Last())
        if last.value is None or self.clock() - last.at > HOLDS_S:
            return None, ""
        return last.value, f"{source.provider}, last value" if last.failing else str(source.provider)


READER = CarbonReader()
"""Of this process: services in one zone share an answer."""


async def intensities(gaid: GenAIDeployment) -> Mapping[str, Intensity]:
    """The intensity of each tier that is on, by its name."""
    return await READER.read(gaid)
