"""Conditions of `objective.caps` and `objective.optimize` (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from tierserve.api import GenAIDeployment
from tierserve.plan.optimizer import UNITS
from tierserve.status.conditions import Condition, Status


def caps_conditions(gaid: GenAIDeployment, status: Status) -> Iterator[Condition]:
    """CapsMet, if there are caps: whether cost, power and emissions of the running replicas are within them."""
    caps = gaid.spec.objective.caps
    if caps is None:
        return
    bounds = {
        "costPerHour": (caps.cost_per_hour, status["costPerHour"], "per hour"),
        "power": (caps.power.value if caps.power else None, status["watts"], "W"),
        "carbonPerHour": (
            caps.carbon_per_hour.value if caps.carbon_per_hour else None, status["carbonGramsPerHour"], "g per hour"
        ),
    }  # fmt: skip
    over = [
        f"{name} is {used:,.4g} {unit}, {used / cap - 1.0:.0%} above {cap:,.4g}" if cap else f"{name} must be 0"
        for name, (cap, used, unit) in bounds.items()
        if cap is not None and used is not None and used > cap
    ]
    if over:
        yield Condition("CapsMet", "False", "CapExceeded", "; ".join(over))
    elif unknown := [name for name, (cap, used, _) in bounds.items() if cap is not None and used is None]:
        yield Condition("CapsMet", "Unknown", "NotObserved", f"not all pools report: {', '.join(unknown)}")
    else:
        yield Condition("CapsMet", "True", "WithinCaps", "cost, power and emissions are within objective.caps")


def optimize_conditions(gaid: GenAIDeployment, found: Mapping[str, Any], now: float) -> Iterator[Condition]:
    """Optimized, unless the mode is off: whether the choice in effect is the best that is known for the load."""
    if not found:
        return
    memory, better, by = found["optimization"], found["recommendation"], gaid.spec.objective.optimize.by
    held = memory.get("heldUntil")
    if held and now < datetime.fromisoformat(held).timestamp():
        message = f"the objective was missed, so the choice of the spec is in effect; no change before {held}"
        yield Condition("Optimized", "False", "ObjectiveMissed", message)
    elif not memory.get("solvedTime"):
        yield Condition("Optimized", "Unknown", "NoLoad", "no load is observed for which to search")
    elif better and memory.get("pending"):
        saving = f"{better['saving']:.0%} less {by}"
        message = f"{better['message']}: {better['present']:,.4g} to {better['expected']:,.4g} {UNITS[by]}, {saving}"
        yield Condition("Optimized", "False", "BetterChoiceKnown", message)
    elif memory.get("applied"):
        order = ", ".join(memory["applied"]["overflow"])
        yield Condition("Optimized", "True", "Applied", f"in effect instead of the spec's: order {order}")
    else:
        yield Condition("Optimized", "True", "NothingBetter", f"no other choice saves 5% of {by}")
