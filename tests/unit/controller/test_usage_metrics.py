"""What pools use is shown as gauges and added up in counters; what is not known is neither zero nor added."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tierserve.controller.usage_metrics import LONGEST_S, UsageMetrics

KEY = ("chat", "assistant", "cloud")
POOL: dict[str, Any] = {
    "watts": 500.0, "idleWatts": 160.0, "costPerHour": 3.6, "carbonGramsPerHour": 72.0, "embodiedGramsPerHour": None,
    "carbonIntensity": 144.0, "carbonIntensitySource": "uk",
}  # fmt: skip


class Shown:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = UsageMetrics(self.registry)

    def __call__(self, name: str, **more: str) -> float | None:
        labels = dict(zip(("namespace", "name", "pool"), KEY, strict=True)) | more
        return self.registry.get_sample_value(f"tierserve_pool_{name}", labels)


def test_counters_add_up_what_is_used_between_two_reconciles() -> None:
    shown = Shown()
    for now in (100.0, 110.0, 120.0):
        shown.metrics.update(KEY, POOL, now)
    assert shown("power_watts") == 500.0
    assert shown("energy_joules_total") == pytest.approx(10_000.0)
    assert shown("cost_total") == pytest.approx(0.02)
    assert shown("carbon_grams_total") == pytest.approx(0.4)
    assert shown("embodied_carbon_grams_per_hour") is None


def test_time_without_a_reconcile_and_unknown_power_are_not_counted() -> None:
    shown = Shown()
    shown.metrics.update(KEY, POOL, 0.0)
    shown.metrics.update(KEY, POOL, LONGEST_S + 1.0)
    shown.metrics.update(KEY, {**POOL, "watts": None}, LONGEST_S + 11.0)
    assert shown("energy_joules_total") == 0.0
    assert shown("power_watts") is None


def test_an_intensity_has_one_source_at_a_time() -> None:
    shown = Shown()
    shown.metrics.update(KEY, POOL, 0.0)
    shown.metrics.update(KEY, {**POOL, "carbonIntensitySource": "uk, last value"}, 10.0)
    assert shown("carbon_intensity_grams_per_kwh", source="uk") is None
    assert shown("carbon_intensity_grams_per_kwh", source="uk, last value") == 144.0


def test_a_removed_pool_has_no_series() -> None:
    shown = Shown()
    shown.metrics.update(KEY, POOL, 0.0)
    shown.metrics.update(KEY, POOL, 10.0)
    shown.metrics.drop(KEY)
    assert shown("energy_joules_total") is shown("power_watts") is None
    assert shown("carbon_intensity_grams_per_kwh", source="uk") is None
