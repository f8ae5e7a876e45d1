"""Metrics of power, money and emissions of each pool, from the status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

LONGEST_S = 60.0
"""Time between two reconciles beyond which nothing is added to the counters: what happened then is not known."""
_POOL = ("namespace", "name", "pool")
Key = tuple[str, str, str]
_GAUGES = {
    "watts": ("power_watts", "Electrical power of the replicas of a pool, from a model of the accelerator's power."),
    "idleWatts": ("idle_power_watts", "Part of the power that idle replicas would take too."),
    "costPerHour": ("cost_per_hour", "Cost per hour of the replicas of a pool, in the currency of the prices."),
    "carbonGramsPerHour": ("carbon_grams_per_hour", "Grams of CO2e per hour of the power of a pool."),
    "embodiedGramsPerHour": (
        "embodied_carbon_grams_per_hour", "Grams of CO2e per hour of the manufacture of the accelerators of a pool."
    ),
}  # fmt: skip
_COUNTERS = {
    "watts": ("energy_joules", "Energy of the replicas of a pool.", 1.0),
    "costPerHour": ("cost", "Cost of the replicas of a pool, in the currency of the prices.", 1.0 / 3600.0),
    "carbonGramsPerHour": ("carbon_grams", "Grams of CO2e of the energy of a pool.", 1.0 / 3600.0),
}


@dataclass(slots=True)
class UsageMetrics:
    """Gauges by field of the status, and counters that add them up over the time between two reconciles."""

    registry: CollectorRegistry
    gauges: dict[str, Gauge] = field(init=False)
    counters: dict[str, tuple[Counter, float]] = field(init=False)
    intensity: Gauge = field(init=False)
    _at: dict[Key, float] = field(default_factory=dict)
    _source: dict[Key, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        own: Any = {"registry": self.registry}
        self.gauges = {
            name: Gauge(f"tierserve_pool_{end}", text, _POOL, **own) for name, (end, text) in _GAUGES.items()
        }
        self.counters = {
            name: (Counter(f"tierserve_pool_{end}", text, _POOL, **own), factor)
            for name, (end, text, factor) in _COUNTERS.items()
        }
        self.intensity = Gauge(
            "tierserve_pool_carbon_intensity_grams_per_kwh", "Carbon intensity of the electricity of a pool.",
            (*_POOL, "source"), **own,
        )  # fmt: skip

    def update(self, key: Key, pool: Mapping[str, Any], now: float) -> None:
        """Set the gauges of a pool, and add to its counters what was used since the last call; unknown adds nothing."""
        passed = now - self._at.get(key, now)
        self._at[key] = now
        for name, gauge in self.gauges.items():
            value = pool.get(name)
            if value is None:
                gauge.remove(*key)
            else:
                gauge.labels(*key).set(value)
        for name, (counter, factor) in self.counters.items():
            value = pool.get(name)
            if value is not None and 0.0 <= passed <= LONGEST_S:
                counter.labels(*key).inc(value * factor * passed)
        source = pool.get("carbonIntensitySource")
        if (before := self._source.pop(key, None)) not in {None, source}:
            self.intensity.remove(*key, str(before))
        if source is not None:
            self._source[key] = source
            self.intensity.labels(*key, source).set(pool["carbonIntensity"])

    def drop(self, key: Key) -> None:
        """Remove the series of a pool."""
        self._at.pop(key, None)
        for gauge in self.gauges.values():
            gauge.remove(*key)
        for counter, _ in self.counters.values():
            counter.remove(*key)
        if (source := self._source.pop(key, None)) is not None:
            self.intensity.remove(*key, source)
