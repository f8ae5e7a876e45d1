"""A run as it might have been, made from a seed."""

from __future__ import annotations

import numpy as np
import pytest

from tierserve.report import PoolPoint, RunRecord, StepRecord


def made_record(worst_s: float = 1.14) -> RunRecord:
    rng = np.random.default_rng(5)
    steps, cloud, edge, device, samples = [], [], [], [], []
    for i, n in enumerate((1, 2, 4, 8, 16, 32, 64, 128)):
        start, end, p95 = 13.0 * i, 13.0 * (i + 1), 1.0 + (worst_s - 1.0) * i / 7
        observed = {"edge-default": p95, "device-default": 0.6 + 0.02 * i} | (
            {"cloud-default": p95 + 0.05} if n > 8 else {}
        )
        predicted = {pool: value * (1 + 0.05 * rng.standard_normal()) for pool, value in observed.items()}
        steps.append(StepRecord(f"{n}", n, start, start + 5, end, 8 * n, n / 1.05, p95 - 0.06, p95, p95 + 0.1, 1.0, 0,
                                observed, predicted))  # fmt: skip
        for t in np.arange(start, end, 1.0):
            edge.append(PoolPoint(t, min(4, 1 + n // 8), rate=n / 1.05, rho=0.7))
            cloud.append(PoolPoint(t, max(1, (n - 32 + 7) // 8)))
            device.append(PoolPoint(t, 1))
        ends, values = rng.uniform(start, end, 8 * n), rng.normal(p95 - 0.05, 0.03, 8 * n)
        samples += [(float(e), float(v)) for e, v in zip(ends, values, strict=True)]
    trace = StepRecord("azure-code", None, 104, 106, 129, 240, 9.6, 0.9, 1.1, 1.3, 0.985, 2, {"edge-default": 1.1}, {})
    return RunRecord(
        title="assistant: three tiers on one machine",
        target_s=1.5,
        percentile=95,
        traffic="chat",
        steps=(*steps, trace),
        pools={"device-default": tuple(device), "edge-default": tuple(edge), "cloud-default": tuple(cloud)},
        samples=tuple(samples),
        machine="2 cores, 24 GB",
        beside={"personal": {"requests": 40, "p50_s": 0.5, "p95_s": 0.7, "within_slo": 1.0, "errors": 0}},
        texts=(("Why is the sky blue?", "Because <air> scatters blue light most."),),
        notes=("A note & more",),
        sources=("Azure LLM inference trace 2023 (code), CC-BY 4.0",),
    )


@pytest.fixture
def record() -> RunRecord:
    return made_record()


@pytest.fixture
def missed() -> RunRecord:
    return made_record(worst_s=2.2)
