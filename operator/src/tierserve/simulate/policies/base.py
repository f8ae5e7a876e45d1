"""A scaling rule with the one knob that is tuned on the first part of a trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tierserve.simulate.types import Policy, Pool


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to scale.

    Attributes:
        name: as on the command line.
        title: as in tables.
        source: where the rule is published.
        knob: the parameter that trades replicas for speed, in the rule's own words.
        default: its value as published.
        values: values to tune over, from few replicas to many.
        make: the policy for a pool and a value of the knob.
    """

    name: str
    title: str
    source: str
    knob: str
    default: float
    values: tuple[float, ...]
    make: Callable[[Pool, float], Policy]
