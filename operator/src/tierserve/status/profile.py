"""How far a model's profile is from what its replicas show, in the units and words of the file (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tierserve.api.units import Duration
from tierserve.plan.placement import Placement

OFF = 0.15
"""Share by which the time of a full replica may differ from the profile's before it is said."""
_UNITS = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))


def profile_status(placement: Placement, decision: Mapping[str, Any]) -> dict[str, Any]:
    """What the status of a pool says of its profile; None each until enough was seen to be sure.

    Args:
        placement: the pool as planned.
        decision: its last decision, empty if that is old.
    """
    seen = decision.get("calibration") or {}
    if not seen.get("used"):
        return {"profileError": None, "measuredProfile": None}
    measured = {name: str(duration(float(seen[name]))) for name in ("alpha", "beta", "gamma")}
    return {
        "profileError": round(float(seen["profile_error"]), 3),
        "measuredProfile": measured | {"given": placement.measured},
    }


def duration(seconds: float) -> Duration:
    """Return a time to four digits, in the unit that suits it."""
    unit, factor = next(((u, f) for u, f in _UNITS if seconds >= f), _UNITS[-1])
    number = seconds / factor
    text = f"{number:.4g}" if number >= 1.0 else f"{number:.6f}".rstrip("0").rstrip(".")
    return Duration("0s" if text == "0" else text + unit)


def profiles_off(pools: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each pool whose profile is off by more than `OFF`, with the figures to put in its place."""
    return [_sentence(p) for p in pools if p["profileError"] is not None and abs(p["profileError"]) > OFF]


def _sentence(pool: Mapping[str, Any]) -> str:
    error, seen = pool["profileError"], pool["measuredProfile"]
    what = "the profile" if seen["given"] else "the estimate in place of a profile"
    figures = ", ".join(f"{name}: {seen[name]}" for name in ("alpha", "beta", "gamma"))
    than = f"{abs(error):.0%} {'less' if error < 0 else 'more'}"
    return (
        f"{pool['pool']}: by {what} of {pool['model']} a request in a full replica takes {than} than measured; "
        f"measured is profile: {{{figures}}}"
    )
