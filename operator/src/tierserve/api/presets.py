"""Presets: common accelerators, and the three kinds of tier of the paper's Table 2.

Accelerators: data sheets of the manufacturers (dense FP16/BF16 tensor throughput); A100 312 TFLOP/s and V100 120
TFLOP/s are the figures of Wang et al. 2023. Prices are rounded on-demand list prices in USD per accelerator hour, to be
overridden.
"""

from __future__ import annotations

from dataclasses import dataclass

RESERVE = 0.05  # share of the memory of an accelerator that is kept free, unless the file sets another


@dataclass(frozen=True, slots=True)
class AcceleratorPreset:
    """One accelerator: memory and reserve in bytes, flops in FLOP/s, bandwidth in bytes/s, watts, price per hour."""

    name: str
    memory: str
    flops: str
    bandwidth: float
    idle_w: float
    max_w: float
    price: float
    resource: str | None = "nvidia.com/gpu"


_A = AcceleratorPreset
ACCELERATORS: dict[str, AcceleratorPreset] = {
    preset.name: preset
    for preset in (
        _A("A100-80GB", "80Gi", "312T", 2.039e12, 55, 400, 2.1),
        _A("A100-40GB", "40Gi", "312T", 1.555e12, 50, 400, 1.6),
        _A("V100-32GB", "32Gi", "120T", 0.9e12, 40, 300, 0.9),
        _A("V100-16GB", "16Gi", "120T", 0.9e12, 40, 300, 0.7),
        _A("H100-80GB", "80Gi", "989T", 3.35e12, 70, 700, 3.5),
        _A("L4", "24Gi", "121T", 0.3e12, 16, 72, 0.7),
        _A("Jetson-Orin", "64Gi", "42.5T", 0.2048e12, 15, 60, 0.1),
        _A("cpu", "8Gi", "200G", 0.04e12, 10, 65, 0.05, None),
    )
}
ACCELERATORS["H100"] = ACCELERATORS["H100-80GB"]
ACCELERATORS["A100"] = ACCELERATORS["A100-80GB"]
ACCELERATORS["V100"] = ACCELERATORS["V100-32GB"]


@dataclass(frozen=True, slots=True)
class TierPreset:
    """Defaults of a kind of tier (paper, Table 2; RTT in the middle of its range)."""

    kind: str
    memory_bytes: float
    storage_bytes: float
    rtt_s: float
    rtt_range_s: tuple[float, float]
    energy_kwh_per_year: float
    connections: int
    uplink_bps: float
    downlink_bps: float
    max_replicas: int
    startup_s: float


TIERS: dict[str, TierPreset] = {
    "cloud": TierPreset("cloud", 24e12, 25e15, 0.040, (0.030, 0.050), 2e12, 500_000, 100e9, 100e9, 100, 100.0),
    "edge": TierPreset("edge", 500e9, 1e15, 0.008, (0.0, 0.010), 7_500, 1_000, 10e9, 10e9, 8, 60.0),
    "device": TierPreset("device", 64e9, 10e12, 0.0, (0.0, 0.0), 600, 1, 1e9, 1e9, 1, 10.0),
}
