"""`spec.objective`: response-time target, and what to minimise while meeting it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tierserve.api.units import Duration, Mass, Power
from tierserve.api.v1alpha1.base import Part


class ResponseTime(Part):
    """Objective: `percentile` per cent of the responses end within `target`, as seen by the client."""

    percentile: float = Field(95, ge=1, le=99.99, description="Percentage of the responses that must meet the target.")
    target: Duration = Field(description="Upper bound of the response time as seen by the client.")


class Caps(Part):
    """Upper bounds on cost, power and carbon emissions."""

    cost_per_hour: float | None = Field(None, ge=0, description="Maximum cost per hour, in the currency of the prices.")
    power: Power | None = Field(None, description="Maximum electrical power of all accelerators together.")
    carbon_per_hour: Mass | None = Field(None, description="Maximum CO2-equivalent emissions per hour.")


class Optimize(Part):
    """What to minimise while the targets are met, and what the operator does about it."""

    by: Literal["cost", "energy", "carbon", "latency"] = Field(
        "cost", description="What to minimise. Only `tierserve plan --best` reads it while mode is off."
    )
    mode: Literal["off", "recommend", "apply"] = Field(
        "off",
        description="What the operator does with a better order of tiers, or model of one, for the observed load: "
        "`recommend` writes status.recommendation, `apply` also changes order and models while serving. "
        'YAML 1.1 reads off without quotes as false: leave it out or write "off".',
    )
    interval: Duration = Field(
        Duration("10m"), description="Time between two searches, over which the observed load is averaged."
    )


class Objective(Part):
    """Response-time targets, and what to minimise while they are met."""

    response_time: ResponseTime = Field(description="Target of the response time.")
    first_token: Duration | None = Field(None, description="Target of the time to first token, at the same percentile.")
    per_token: Duration | None = Field(None, description="Target of the time per output token, at the same percentile.")
    optimize: Optimize = Field(
        Optimize(), description="What to minimise among the plans that meet the targets; `tierserve plan --best` too."
    )
    caps: Caps | None = Field(
        None,
        description="Upper bounds on cost, power and emissions. The condition CapsMet is whether they are kept; "
        "`optimize` and `tierserve plan --best` choose within them. They never take replicas from a service.",
    )
