"""CapsMet compares what runs with the caps; Optimized says whether the choice in effect is the best that is known."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tierserve.api import parse
from tierserve.status.optimization import caps_conditions, optimize_conditions

NOW = 1_800_000_000.0


def gaid(caps: Any = None, mode: str = "apply") -> Any:
    objective: dict[str, Any] = {"responseTime": {"target": "4s"}, "optimize": {"by": "carbon", "mode": mode}}
    return parse(
        {
            "apiVersion": "serving.tierserve.io/v1alpha1",
            "kind": "GenAIDeployment",
            "metadata": {"name": "green"},
            "spec": {
                "objective": objective | ({"caps": caps} if caps else {}),
                "models": [{"name": "m", "engine": "emulated", "memory": {"weights": "2Gi", "perRequest": "100Mi"}}],
                "tiers": [{"name": "cloud", "kind": "cloud", "accelerator": {"preset": "A100-80GB"}}],
            },
        }
    )


@pytest.mark.parametrize(
    ("caps", "used", "status", "reason"),
    [
        ({"costPerHour": 5}, {"costPerHour": 4.0}, "True", "WithinCaps"),
        ({"costPerHour": 5}, {"costPerHour": 6.0}, "False", "CapExceeded"),
        ({"power": "1kW"}, {"watts": 1001.0}, "False", "CapExceeded"),
        ({"carbonPerHour": "1kg"}, {"carbonGramsPerHour": 999.0}, "True", "WithinCaps"),
        ({"costPerHour": 0}, {"costPerHour": 0.1}, "False", "CapExceeded"),
        ({"costPerHour": 5}, {"costPerHour": None}, "Unknown", "NotObserved"),
        ({"costPerHour": 5, "power": "1kW"}, {"costPerHour": 6.0, "watts": None}, "False", "CapExceeded"),
    ],
)
def test_caps_are_compared_with_what_runs(caps: Any, used: Any, status: str, reason: str) -> None:
    whole = {"costPerHour": None, "watts": None, "carbonGramsPerHour": None} | used
    (found,) = caps_conditions(gaid(caps), whole)
    assert (found.type, found.status, found.reason) == ("CapsMet", status, reason)


def test_a_cap_that_is_missed_is_named_with_by_how_much() -> None:
    whole = {"costPerHour": 6.0, "watts": None, "carbonGramsPerHour": None}
    (found,) = caps_conditions(gaid({"costPerHour": 5}), whole)
    assert "costPerHour" in found.message
    assert "20%" in found.message


def test_without_caps_or_with_the_mode_off_there_is_no_condition() -> None:
    assert list(caps_conditions(gaid(), {})) == []
    assert list(optimize_conditions(gaid(mode="off"), {}, NOW)) == []


def text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


CHOICE = {"overflow": ["b", "a"], "models": {}}
BETTER = {**CHOICE, "message": "fill b first", "present": 10.0, "expected": 6.0, "saving": 0.4}
SOLVED = {"solvedTime": text(NOW)}


@pytest.mark.parametrize(
    ("memory", "better", "status", "reason"),
    [
        ({}, None, "Unknown", "NoLoad"),
        (SOLVED, None, "True", "NothingBetter"),
        ({**SOLVED, "pending": CHOICE}, BETTER, "False", "BetterChoiceKnown"),
        ({**SOLVED, "applied": CHOICE}, None, "True", "Applied"),
        ({**SOLVED, "heldUntil": text(NOW + 60)}, None, "False", "ObjectiveMissed"),
        ({**SOLVED, "heldUntil": text(NOW - 60)}, None, "True", "NothingBetter"),
    ],
)
def test_the_reason_is_that_of_what_the_loop_did(memory: Any, better: Any, status: str, reason: str) -> None:
    (found,) = optimize_conditions(gaid(), {"optimization": memory, "recommendation": better}, NOW)
    assert (found.type, found.status, found.reason) == ("Optimized", status, reason)
