"""Energy, emissions and cost of a simulated pool, from the replicas it held and the requests they served."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tierserve.api.v1alpha1.tiers import Tier
from tierserve.plan.energy import accelerator_watts
from tierserve.simulate.run import Result
from tierserve.simulate.slow_loop import intensity_at
from tierserve.simulate.types import Floats

BIN_S = 60.0
"""Time over which utilisation and intensity are taken as constant."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a pool took: kWh and grams of CO2e with the data centre's share, and cost in the currency of the prices."""

    kwh: float
    carbon_g: float
    cost: float

    def __add__(self, other: Footprint) -> Footprint:
        return Footprint(self.kwh + other.kwh, self.carbon_g + other.carbon_g, self.cost + other.cost)


def footprint(found: Result, tier: Tier, slots: int) -> Footprint:
    """Return what the pool of a run took until the end of the time that counts.

    Args:
        found: the run of the pool.
        tier: hardware, prices and intensities.
        slots: requests that a replica holds at once.
    """
    if not found.length_s:
        return Footprint(0.0, 0.0, 0.0)
    edges = np.append(np.arange(0.0, found.length_s, BIN_S), found.length_s)
    width = np.diff(edges)
    steps = np.append(found.decided_s, max(found.length_s, found.decided_s[-1]))
    held_s = np.interp(edges, steps, np.append(0.0, np.cumsum(np.diff(steps) * found.held)))
    replicas = np.diff(held_s) / width
    served = ~np.isnan(found.start_s)
    ends = np.nan_to_num(found.end_s[served], nan=found.length_s)
    busy = np.diff(_since(found.start_s[served], edges) - _since(ends, edges)) / width
    room = replicas * slots
    utilisation = np.clip(np.divide(busy, room, out=np.zeros_like(busy), where=room > 0), 0.0, 1.0)
    hardware = tier.hardware
    watts = np.array([accelerator_watts(hardware, float(part), slots) for part in utilisation])
    kwh = watts * replicas * hardware.per_replica * tier.pue * width / 3.6e6
    grams = kwh * np.array([intensity_at(tier, float(t)) for t in edges[:-1]])
    hours = float((replicas * width).sum()) * hardware.per_replica / 3600.0
    return Footprint(float(kwh.sum()), float(grams.sum()), hours * hardware.price)


def _since(moments: Floats, edges: Floats) -> Floats:
    """Sum over moments of the seconds from each to an edge, for each edge after it."""
    ordered = np.sort(moments)
    count = np.searchsorted(ordered, edges)
    total = np.append(0.0, np.cumsum(ordered))
    sums: Floats = count * edges - total[count]
    return sums
