"""Watts, joules, grams of CO2e and money: of a pool in operation, and the paper's figures of training and inference."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tierserve.api.v1alpha1.tiers import Hardware, Tier

FLOPS_PER_WATT = 1e10
"""FLOP/s for one watt, the paper's figure for inference."""
POUNDS_PER_KWH = 0.818
"""Pounds of CO2e per kWh behind the paper's Table 3."""
JOULES_PER_WH = 3600.0


@dataclass(frozen=True, slots=True)
class Energy:
    """What a pool takes while it serves; power and carbon with the data centre's share (`tiers[].pue`).

    Attributes:
        accelerators: of all replicas.
        watts: at this load.
        idle_watts: the part of it that idle accelerators would take too.
        cost_per_hour: in the currency of the prices.
        carbon_g_per_hour: grams of CO2e at the carbon intensity.
        embodied_g_per_hour: grams of CO2e of the manufacture, apart from the former; None where unknown.
        joules_per_request, carbon_g_per_request, cost_per_request: None where nothing is served.
        joules_per_token: of the output tokens; None where nothing is served.
    """

    accelerators: int
    watts: float
    idle_watts: float
    cost_per_hour: float
    carbon_g_per_hour: float
    embodied_g_per_hour: float | None
    joules_per_request: float | None
    carbon_g_per_request: float | None
    cost_per_request: float | None
    joules_per_token: float | None


def energy_of(
    tier: Tier,
    replicas: int,
    *,
    utilisation: float,
    rate: float,
    slots: int,
    output_tokens: float,
    g_per_kwh: float | None = None,
) -> Energy:
    """Return what `replicas` replicas of `tier` take.

    Args:
        tier: hardware, prices and intensity.
        replicas: those that are up.
        utilisation: mean share of the slots that are in use, 0 to 1.
        rate: requests per second of all replicas.
        slots: requests that a replica holds at once.
        output_tokens: mean of a request.
        g_per_kwh: carbon intensity now; left out, that of the tier.
    """
    hardware = tier.hardware
    count = replicas * hardware.per_replica
    intensity = tier.carbon_g_per_kwh if g_per_kwh is None else g_per_kwh
    watts = count * accelerator_watts(hardware, utilisation, slots) * tier.pue
    grams, cost = watts / 1e3 * intensity, count * hardware.price
    tokens = rate * output_tokens
    return Energy(
        accelerators=count,
        watts=watts,
        idle_watts=count * hardware.idle_w * tier.pue,
        cost_per_hour=cost,
        carbon_g_per_hour=grams,
        embodied_g_per_hour=None if tier.embodied is None else count * tier.embodied.grams_per_hour,
        joules_per_request=watts / rate if rate > 0 else None,
        carbon_g_per_request=grams / 3600.0 / rate if rate > 0 else None,
        cost_per_request=cost / 3600.0 / rate if rate > 0 else None,
        joules_per_token=watts / tokens if tokens > 0 else None,
    )


def accelerator_watts(hardware: Hardware, utilisation: float, slots: int) -> float:
    """Return the watts of one accelerator whose replica has `utilisation` of its slots in use.

    With `power.halfBatch` (h) and steepness k the rise above idle is logistic in the binary logarithm of the batch b,
    1 / (1 + exp(-k log2(b / h))), the form that measurements of vLLM on H100 were fitted with (ML.ENERGY); without, it
    is proportional to the utilisation.
    """
    share = utilisation
    if hardware.half_batch is not None:
        batch = utilisation * slots
        share = 1.0 / (1.0 + (batch / hardware.half_batch) ** (-hardware.steepness / math.log(2.0))) if batch else 0.0
    return hardware.idle_w + (hardware.max_w - hardware.idle_w) * share


def joules_of_flops(flops: float, flops_per_watt: float = FLOPS_PER_WATT) -> float:
    """Return the joules of `flops` floating-point operations (the paper: 1e15 for an answer of GPT-3 take 1e5 J)."""
    return flops / flops_per_watt


def training_kwh(watts: float, hours: float) -> float:
    """Return the kWh of a training run on one accelerator (paper, Table 3)."""
    return watts * hours / 1e3


def training_pounds(kwh: float) -> float:
    """Return the pounds of CO2e of a training run (paper, Table 3)."""
    return kwh * POUNDS_PER_KWH
