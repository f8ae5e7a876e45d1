"""Fit of the batching profile: error of a model's profile against the measured times, in the units of the file
(pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tierserve.api.units import Duration
from tierserve.plan.placement import Placement

OFF = 0.15
"""Relative error of the time of a request in a full replica from which ProfileFits is False."""
_UNITS = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))


def profile_status(placement: Placement, decision: Mapping[str, Any]) -> dict[str, Any]:
    """Profile fields of a pool's status; None until enough requests have been measured.

    Args:
        placement: the pool as planned.
        decision: its last decision, empty if it is stale.
    """
    calibration = decision.get("calibration") or {}
    if not calibration.get("used"):
        return {"profileError": None, "measuredProfile": None}
    measured = {name: str(duration(float(calibration[name]))) for name in ("alpha", "beta", "gamma")}
    return {
        "profileError": round(float(calibration["profile_error"]), 3),
        "measuredProfile": measured | {"configured": placement.measured},
    }


def duration(seconds: float) -> Duration:
    """Return a time with four significant digits, in the largest unit that gives at least 1."""
    unit, factor = next(((u, f) for u, f in _UNITS if seconds >= f), _UNITS[-1])
    number = seconds / factor
    text = f"{number:.4g}" if number >= 1.0 else f"{number:.6f}".rstrip("0").rstrip(".")
    return Duration("0s" if text == "0" else text + unit)


def profiles_off(pools: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a message for each pool whose profile is off by more than `OFF`, with the measured profile."""
    return [_message(p) for p in pools if p["profileError"] is not None and abs(p["profileError"]) > OFF]


def _message(pool: Mapping[str, Any]) -> str:
    error, measured = pool["profileError"], pool["measuredProfile"]
    source = "profile" if measured["configured"] else "estimated profile"
    figures = ", ".join(f"{name}: {measured[name]}" for name in ("alpha", "beta", "gamma"))
    comparison = f"{abs(error):.0%} {'less' if error < 0 else 'more'}"
    return (
        f"{pool['pool']}: the {source} of {pool['model']} predicts {comparison} than measured for a request in a full "
        f"replica; hint: set profile: {{{figures}}}"
    )
