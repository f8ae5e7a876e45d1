"""`status` as the CRD declares it: written by `tierserve.status.build`, shown by `kubectl get` and `describe`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from tierserve.api.units import Duration
from tierserve.api.v1alpha1.base import MODEL_NAME_LENGTH, Name, Part


class StatusPart(Part):
    """A piece of the status; what a newer version writes is ignored when read."""

    model_config = ConfigDict(extra="ignore")


class Condition(StatusPart):
    """A condition as in Kubernetes' meta/v1."""

    type: str = Field(max_length=316, description="Name in CamelCase, e.g. Ready.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: str = Field("", max_length=1024, description="One word in CamelCase.")
    message: str = Field("", max_length=32768, description="One sentence for people.")
    last_transition_time: str | None = Field(None, max_length=64, description="When the status changed, RFC 3339.")
    observed_generation: int | None = Field(None, description="Generation of the spec that it is about.")


class MeasuredProfile(StatusPart):
    """Step times as measured in operation, in the units of `models[].profile`."""

    alpha: Duration = Field(description="Time of an iteration that does not depend on the batch.")
    beta: Duration = Field(description="Time per token that is computed.")
    gamma: Duration = Field(description="Time per token of context that is attended to.")
    given: bool | None = Field(None, description="Whether the model brings a profile; else it was an estimate.")


class PoolStatus(StatusPart):
    """What one tier at one site does, and why."""

    pool: str = Field(max_length=81, description="Name of the pool, tier-site.")
    tier: Name = Field(description="Name of the tier.")
    site: Name = Field(description="Name of the site.")
    kind: str | None = Field(None, max_length=16, description="Kind of the tier.")
    model: str | None = Field(None, max_length=MODEL_NAME_LENGTH, description="Model that runs there.")
    engine: str | None = Field(None, max_length=16, description="Engine that runs it.")
    slots: int | None = Field(None, description="Requests that one replica holds at once.")
    min_replicas: int | None = Field(None, description="Floor.")
    max_replicas: int | None = Field(None, description="Ceiling.")
    app: str | None = Field(None, max_length=32, description="State of the Ray Serve application that serves.")
    update: str | None = Field(
        None, max_length=32, description="State of the application of a new version that does not serve yet."
    )
    message: str | None = Field(None, max_length=4096, description="What Ray Serve says about it.")
    desired: int | None = Field(None, description="Desired number of replicas.")
    running: int | None = Field(None, description="Replicas that serve, of whatever version.")
    updated: int | None = Field(None, description="Replicas that serve this generation; the others are older.")
    ready: bool | None = Field(None, description="Whether it serves this generation with at least its floor.")
    scaled_to_zero: bool | None = Field(None, description="Whether it has no replica because it has no load.")
    watts: float | None = Field(None, description="Electrical power that its replicas take at this load.")
    cost_per_hour: float | None = Field(None, description="What its replicas cost, in the currency of the prices.")
    carbon_grams_per_hour: float | None = Field(None, description="CO2e of that power.")
    target_seconds: float | None = Field(None, description="What is left of the target for waiting and inference.")
    percentile: float | None = Field(None, description="Percentile of the objective.")
    decision: dict[str, Any] | None = Field(
        None,
        description="Last decision of the autoscaler: lambda, mu, servers, rho (carried load over servers), "
        "offered_load_ratio, P(wait), predicted p95, reason.",
    )
    gateway: dict[str, Any] | None = Field(None, description="What the gateway saw: arrivals, queue, percentiles.")
    model_error: float | None = Field(
        None, description="Predicted p95 over the observed one, less 1: 0.1 is 10% too high; left out without traffic."
    )
    profile_error: float | None = Field(
        None,
        description="Time of a request in a full replica by the profile over that as measured, less 1: -0.4 is 40% too "
        "fast; left out until enough was seen.",
    )
    measured_profile: MeasuredProfile | None = Field(None, description="The profile as measured, to put in the file.")


class Status(StatusPart):
    """The whole status."""

    observed_generation: int | None = Field(None, description="Generation of the spec that was acted on.")
    conditions: tuple[Condition, ...] = Field((), max_length=32, description="Conditions, by type.")
    ready: Literal["True", "False", "Unknown"] | None = Field(None, description="The condition Ready, for short.")
    tiers: str | None = Field(None, max_length=16, description="Pools ready of all pools, e.g. 3/3.")
    replicas: int | None = Field(None, description="Replicas that serve, over all tiers.")
    p95: str | None = Field(None, max_length=32, description="Response time seen at the percentile of the objective.")
    connections: int | None = Field(None, description="Requests open at the gateway.")
    watts: float | None = Field(None, description="Electrical power of all replicas at this load.")
    cost_per_hour: float | None = Field(None, description="What all replicas cost, in the currency of the prices.")
    carbon_grams_per_hour: float | None = Field(None, description="CO2e of that power.")
    endpoint: str | None = Field(None, max_length=512, description="Address of the gateway.")
    pools: tuple[PoolStatus, ...] = Field((), max_length=1024, description="Each tier at each site.")
    components: dict[str, bool] | None = Field(None, description="Components of the service and whether they run.")
