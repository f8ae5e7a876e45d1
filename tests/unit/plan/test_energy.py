"""Power, money and emissions of a pool follow from its load, its data centre and its manufacture."""

from __future__ import annotations

from typing import Any

import pytest

from tierserve.api.v1alpha1.tiers import Tier
from tierserve.plan.energy import accelerator_watts, energy_of

TIER: dict[str, Any] = {
    "name": "cloud", "kind": "cloud", "accelerator": {"preset": "A100-80GB", "perReplica": 2}, "price": 2.0,
    "power": {"idle": "80W", "max": "400W"}, "carbonIntensity": 200,
}  # fmt: skip
LOAD: dict[str, Any] = {"utilisation": 0.5, "rate": 4.0, "slots": 16, "output_tokens": 100.0}


def tier(**changes: Any) -> Tier:
    return Tier.model_validate({**TIER, **changes})


def test_power_rises_with_the_utilisation_from_idle_and_per_request_figures_follow() -> None:
    found = energy_of(tier(), 3, **LOAD)
    assert (found.watts, found.idle_watts) == (6 * 240.0, 6 * 80.0)
    assert found.carbon_g_per_hour == pytest.approx(1.44 * 200)
    assert (found.joules_per_request, found.joules_per_token) == (360.0, 3.6)
    assert found.cost_per_hour == 12.0
    assert found.embodied_g_per_hour is None  # unknown, not zero


def test_a_pool_without_requests_takes_its_idle_power_and_has_nothing_per_request() -> None:
    found = energy_of(tier(), 1, **{**LOAD, "utilisation": 0.0, "rate": 0.0})
    assert found.watts == found.idle_watts == 160.0
    assert found.joules_per_request is found.joules_per_token is found.carbon_g_per_request is None


def test_the_data_centre_multiplies_power_and_carbon_but_not_the_price() -> None:
    plain, with_pue = energy_of(tier(), 1, **LOAD), energy_of(tier(pue=1.5), 1, **LOAD)
    assert with_pue.watts == 1.5 * plain.watts
    assert with_pue.carbon_g_per_hour == 1.5 * plain.carbon_g_per_hour
    assert with_pue.cost_per_hour == plain.cost_per_hour


def test_an_intensity_of_now_stands_before_that_of_the_tier() -> None:
    assert energy_of(tier(), 1, **LOAD, g_per_kwh=50).carbon_g_per_hour == pytest.approx(0.48 * 50)


def test_a_measured_curve_is_half_way_at_its_half_batch_and_saturates() -> None:
    hardware = tier(power={"idle": "80W", "max": "400W", "halfBatch": 4, "steepness": 1.0}).hardware
    watts = [accelerator_watts(hardware, batch / 64, 64) for batch in (0, 2, 4, 8, 64)]
    assert watts[0] == 80.0
    assert watts[2] == pytest.approx(240.0)
    # 1 / (1 + e) one doubling below, and as far above it
    assert watts[1] == pytest.approx(80 + 320 / (1 + 2.718281828), abs=1e-6)
    assert watts[3] == pytest.approx(400 - 320 / (1 + 2.718281828), abs=1e-6)
    assert watts == sorted(watts)
    assert watts[4] < 400.0


def test_the_manufacture_is_spread_over_the_lifetime_and_shown_apart() -> None:
    found = energy_of(tier(embodied={"carbon": "164kg", "lifetime": "10000h"}), 3, **LOAD)
    assert found.embodied_g_per_hour == pytest.approx(6 * 16.4)
    assert found.carbon_g_per_hour == energy_of(tier(), 3, **LOAD).carbon_g_per_hour
