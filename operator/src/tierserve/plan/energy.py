"""Watts, joules, grams of CO2e and money: of a pool in operation, and the paper's figures of training and inference."""

from __future__ import annotations

from dataclasses import dataclass

from tierserve.api.v1alpha1.tiers import Tier

FLOPS_PER_WATT = 1e10
"""FLOP/s for one watt, the paper's figure for inference."""
POUNDS_PER_KWH = 0.818
"""Pounds of CO2e per kWh behind the paper's Table 3."""
JOULES_PER_WH = 3600.0


@dataclass(frozen=True, slots=True)
class Energy:
    """What a pool takes while it serves.

    Attributes:
        accelerators: of all replicas.
        watts: idle power of all, and the rest of the maximum in proportion to the utilisation.
        cost_per_hour: in the currency of the prices.
        carbon_g_per_hour: grams of CO2e at the tier's carbon intensity.
        joules_per_request, carbon_g_per_request, cost_per_request: None where nothing is served.
    """

    accelerators: int
    watts: float
    cost_per_hour: float
    carbon_g_per_hour: float
    joules_per_request: float | None
    carbon_g_per_request: float | None
    cost_per_request: float | None


def energy_of(tier: Tier, replicas: int, utilisation: float, rate: float) -> Energy:
    """Return what `replicas` replicas of `tier` take at a utilisation of 0 to 1 and `rate` requests per second."""
    hardware = tier.hardware
    count = replicas * hardware.per_replica
    watts = count * (hardware.idle_w + (hardware.max_w - hardware.idle_w) * utilisation)
    grams, cost = watts / 1e3 * tier.carbon_g_per_kwh, count * hardware.price
    return Energy(
        accelerators=count,
        watts=watts,
        cost_per_hour=cost,
        carbon_g_per_hour=grams,
        joules_per_request=watts / rate if rate > 0 else None,
        carbon_g_per_request=grams / 3600.0 / rate if rate > 0 else None,
        cost_per_request=cost / 3600.0 / rate if rate > 0 else None,
    )


def joules_of_flops(flops: float, flops_per_watt: float = FLOPS_PER_WATT) -> float:
    """Return the joules of `flops` floating-point operations (the paper: 1e15 for an answer of GPT-3 take 1e5 J)."""
    return flops / flops_per_watt


def training_kwh(watts: float, hours: float) -> float:
    """Return the kWh of a training run on one accelerator (paper, Table 3)."""
    return watts * hours / 1e3


def training_pounds(kwh: float) -> float:
    """Return the pounds of CO2e of a training run (paper, Table 3)."""
    return kwh * POUNDS_PER_KWH
