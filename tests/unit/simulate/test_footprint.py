"""What a simulated pool took is what its replicas took, minute by minute, at the intensity of each minute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tierserve.api.v1alpha1.tiers import Tier
from tierserve.plan.energy import accelerator_watts
from tierserve.simulate.footprint import footprint
from tierserve.simulate.run import Result

SLOTS = 4


def tier(**changes: Any) -> Tier:
    whole = {
        "name": "cloud", "kind": "cloud", "accelerator": {"preset": "A100-80GB"}, "price": 3.0,
        "power": {"idle": "100W", "max": "300W"}, "carbonIntensity": 500,
    }  # fmt: skip
    return Tier.model_validate(whole | changes)


def run(spans: list[tuple[float, float]], held: list[tuple[float, int]], length_s: float) -> Result:
    begin, end = np.array(spans, dtype=np.float64).reshape(-1, 2).T
    counts = np.array([count for _, count in held])
    return Result(
        arrive_s=begin, start_s=begin, first_s=begin, end_s=end, output_tokens=np.ones(len(spans), dtype=np.int64),
        decided_s=np.array([t for t, _ in held]), target=counts, ready=counts, held=counts,
        length_s=length_s, aborted=0,
    )  # fmt: skip


def test_idle_replicas_take_their_idle_power() -> None:
    found = footprint(run([], [(0.0, 2)], 7200.0), tier(), SLOTS)
    assert found.kwh == pytest.approx(0.4)
    assert found.carbon_g == pytest.approx(200.0)
    assert found.cost == pytest.approx(12.0)


def test_requests_add_the_rise_in_proportion_to_the_slots_they_hold() -> None:
    found = footprint(run([(0.0, 3600.0), (1800.0, 5400.0)], [(0.0, 1)], 7200.0), tier(), SLOTS)
    # two of four slots for an hour in all
    assert found.kwh == pytest.approx(0.2 + 0.2 * 0.5)


def test_a_measured_curve_counts_instead_where_there_is_one() -> None:
    measured = tier(power={"idle": "100W", "max": "300W", "halfBatch": 1, "steepness": 2})
    found = footprint(run([(0.0, 3600.0)], [(0.0, 1)], 3600.0), measured, SLOTS)
    assert found.kwh == pytest.approx(accelerator_watts(measured.hardware, 1 / SLOTS, SLOTS) / 1e3)


def test_each_minute_has_its_own_intensity() -> None:
    changing = tier(carbonSource={"series": "00:00,100\n01:00,900"})
    found = footprint(run([], [(0.0, 1)], 7200.0), changing, SLOTS)
    assert found.carbon_g == pytest.approx(0.1 * 100 + 0.1 * 900)


def test_replicas_count_from_when_they_are_held_and_requests_that_never_end_hold_to_the_end() -> None:
    found = footprint(run([(3600.0, np.nan)], [(0.0, 0), (3600.0, 1)], 7200.0), tier(pue=1.5), SLOTS)
    assert found.kwh == pytest.approx(1.5 * (0.1 + 0.2 / SLOTS))
    assert found.cost == pytest.approx(3.0)
