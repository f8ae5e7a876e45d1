"""`spec.objective`: what the service promises, and what to save while keeping the promise."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tierserve.api.units import Duration, Mass, Power
from tierserve.api.v1alpha1.base import Part


class ResponseTime(Part):
    """The promise: `percentile` per cent of the responses end within `target`, as seen by the client."""

    percentile: float = Field(95, ge=1, le=99.99, description="Per cent of the responses that must meet the target.")
    target: Duration = Field(description="Upper bound of the response time, seen by the client.")


class Caps(Part):
    """Upper bounds on what the deployment may spend."""

    cost_per_hour: float | None = Field(None, ge=0, description="Most money per hour, in the currency of the prices.")
    power: Power | None = Field(None, description="Most electrical power of all accelerators together.")
    carbon_per_hour: Mass | None = Field(None, description="Most CO2-equivalent emitted per hour.")


class Objective(Part):
    """Targets of response time and what to minimise while they are met."""

    response_time: ResponseTime = Field(description="Target of the whole response time.")
    first_token: Duration | None = Field(None, description="Target of the time to the first token, same percentile.")
    per_token: Duration | None = Field(None, description="Target of the time between tokens, at the same percentile.")
    optimize: Literal["cost", "energy", "carbon", "latency"] = Field(
        "cost",
        description="What to minimise among the plans that meet the targets. Only `tierserve plan --best` reads it.",
    )
    caps: Caps | None = Field(
        None, description="Upper bounds on what the deployment may spend. Only `tierserve plan --best` reads them."
    )
