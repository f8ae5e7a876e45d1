"""Snapshots and pools made by hand: what a test leaves out is 0, or nothing asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tierserve.queueing.batching.profile import BatchProfile
from tierserve.simulate.types import Objective, Pool, Snapshot

COUNTERS = (
    "arrivals", "completions", "late", "first_tokens", "ttft_sum_s", "itl_sum_s", "response_sum_s", "service_sum_s",
    "service_sq_sum_s2", "input_tokens", "output_tokens", "in_system_s", "running_s", "replica_s",
)  # fmt: skip


def _snapshot(t: float, ready: int, *, batch: float | list[float] = 0.0, **given: Any) -> Snapshot:
    in_batch = np.full(ready, batch, dtype=float) if isinstance(batch, int | float) else np.array(batch, dtype=float)
    waiting = np.broadcast_to(np.asarray(given.pop("waiting", 0.0), dtype=float), (ready,)).copy()
    state = {
        "target": given.pop("target", ready + given.get("starting", 0)),
        "starting": given.pop("starting", 0),
        "draining": given.pop("draining", 0),
        "queued": given.pop("queued", float(waiting.sum())),
        "running": given.pop("running", float(in_batch.sum())),
    }
    counters = {name: float(given.pop(name, 0.0)) for name in COUNTERS}
    assert not given, f"no such field: {given}"
    return Snapshot(t=t, ready=ready, in_batch=in_batch, waiting=waiting, **state, **counters)


def _pool(**given: Any) -> Pool:
    """Ten slots; a step takes 0.1 s whatever is in it, so 9 output tokens take 1 s and r(n) = n per second."""
    asked = Objective(**{k: given.pop(k) for k in ("response_s", "ttft_s", "itl_s", "percentile") if k in given})
    profile = BatchProfile(*given.pop("profile", (0.1, 0.0, 0.0)))
    whole: dict[str, Any] = {"slots": 10, "startup_s": 60.0, "input_tokens": 100.0, "output_tokens": 9.0}
    return Pool(profile=profile, objective=asked, **(whole | given))


@pytest.fixture
def snap() -> Callable[..., Snapshot]:
    return _snapshot


@pytest.fixture
def pool() -> Callable[..., Pool]:
    return _pool
