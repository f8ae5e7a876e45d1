"""`status` as the CRD declares it; written by `tierserve.status.build`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from tierserve.api.units import Duration
from tierserve.api.v1alpha1.base import MODEL_NAME_LENGTH, Name, Part


class StatusPart(Part):
    """Base class of the status; fields of a newer version are ignored."""

    model_config = ConfigDict(extra="ignore")


class Condition(StatusPart):
    """A condition as in Kubernetes' meta/v1."""

    type: str = Field(max_length=316, description="Name in CamelCase, e.g. Ready.")
    status: Literal["True", "False", "Unknown"] = Field(description="Status of the condition.")
    reason: str = Field("", max_length=1024, description="Reason of the last transition, in CamelCase.")
    message: str = Field("", max_length=32768, description="Human-readable message.")
    last_transition_time: str | None = Field(
        None, max_length=64, description="Time at which the status last changed, RFC 3339."
    )
    observed_generation: int | None = Field(None, description="Generation of the spec for which the condition was set.")


class MeasuredProfile(StatusPart):
    """Batching profile measured in operation, as in `models[].profile`."""

    alpha: Duration = Field(description="Time of an iteration that does not depend on the batch.")
    beta: Duration = Field(description="Time per token computed.")
    gamma: Duration = Field(description="Time per token of context attended to.")
    configured: bool | None = Field(None, description="Whether the model sets a profile; if not, an estimate was used.")


class Download(StatusPart):
    """Download of a model by the nodes of a pool."""

    done_bytes: int = Field(description="Bytes received, of all nodes.")
    total_bytes: int = Field(description="Bytes of the model, times the nodes that download it.")
    nodes: int = Field(description="Nodes that download.")


class PoolStatus(StatusPart):
    """Status of one pool: one tier at one site."""

    pool: str = Field(max_length=81, description="Name of the pool: tier-site.")
    tier: Name = Field(description="Name of the tier.")
    site: Name = Field(description="Name of the site.")
    kind: str | None = Field(None, max_length=16, description="Kind of the tier.")
    model: str | None = Field(None, max_length=MODEL_NAME_LENGTH, description="Model that runs in the pool.")
    engine: str | None = Field(None, max_length=16, description="Inference engine.")
    slots: int | None = Field(None, description="Concurrent requests per replica.")
    min_replicas: int | None = Field(None, description="Minimum number of replicas.")
    max_replicas: int | None = Field(None, description="Maximum number of replicas.")
    app: str | None = Field(None, max_length=32, description="Status of the active Ray Serve application.")
    update: str | None = Field(
        None, max_length=32, description="Status of the Ray Serve application of a revision that is rolling out."
    )
    message: str | None = Field(None, max_length=4096, description="Error message of Ray Serve.")
    desired: int | None = Field(None, description="Desired number of replicas.")
    running: int | None = Field(None, description="Running replicas of any revision.")
    updated: int | None = Field(None, description="Running replicas of the current revision.")
    ready: bool | None = Field(
        None, description="Whether the current revision serves with at least minReplicas replicas."
    )
    scaled_to_zero: bool | None = Field(None, description="Whether the pool is scaled to zero because it has no load.")
    download: Download | None = Field(None, description="Download of the model, while there is one.")
    watts: float | None = Field(None, description="Electrical power of the replicas at the current load.")
    idle_watts: float | None = Field(
        None, description="Part of it that the replicas would take without a request; shared by all requests."
    )
    cost_per_hour: float | None = Field(
        None, description="Cost of the replicas per hour, in the currency of the prices."
    )
    carbon_grams_per_hour: float | None = Field(None, description="Grams of CO2-equivalent per hour of that power.")
    embodied_grams_per_hour: float | None = Field(
        None, description="Grams of CO2-equivalent per hour of the manufacture of the accelerators (tiers[].embodied)."
    )
    joules_per_request: float | None = Field(None, description="Energy per request, idle power included.")
    joules_per_token: float | None = Field(None, description="Energy per output token, idle power included.")
    carbon_grams_per_request: float | None = Field(None, description="Grams of CO2-equivalent per request.")
    cost_per_request: float | None = Field(None, description="Cost per request, in the currency of the prices.")
    carbon_intensity: float | None = Field(None, description="Carbon intensity of the electricity now, in gCO2e/kWh.")
    carbon_intensity_source: str | None = Field(
        None,
        max_length=80,
        description="Where it is from: constant, series, or a provider; `NAME, last value` while the provider fails.",
    )
    target_seconds: float | None = Field(
        None, description="Target less network time: what is left for queueing and inference."
    )
    percentile: float | None = Field(None, description="Percentile of the objective.")
    decision: dict[str, Any] | None = Field(
        None,
        description="Last decision of the autoscaling policy: lambda, mu, servers, rho (carried load over servers), "
        "offered_load_ratio, P(wait), predicted p95, reason.",
    )
    gateway: dict[str, Any] | None = Field(None, description="Figures of the gateway: arrivals, queue, percentiles.")
    model_error: float | None = Field(
        None, description="Relative error of the predicted p95: 0.1 is 10% too high; omitted without traffic."
    )
    profile_error: float | None = Field(
        None,
        description="Relative error of the profile for a request in a full replica: -0.4 is 40% less than measured; "
        "omitted until enough requests are measured.",
    )
    measured_profile: MeasuredProfile | None = Field(
        None, description="The measured profile, to be set as models[].profile."
    )


class Choice(StatusPart):
    """Order of the tiers, and the model of each."""

    overflow: tuple[Name, ...] = Field((), max_length=16, description="Tiers in the order in which they are filled.")
    models: dict[str, str] = Field({}, description="Model by tier.")


class Recommendation(Choice):
    """The best choice found for the observed load."""

    by: str = Field(max_length=16, description="What is minimised.")
    time: str = Field(max_length=64, description="When it was found, RFC 3339.")
    rate: float = Field(description="Observed requests per second for which it was found.")
    present: float = Field(description="What is in effect: cost per hour, watts, gCO2e per hour or mean seconds.")
    expected: float = Field(description="The same after the change.")
    saving: float = Field(description="Saving as a share: 0.2 is 20% less.")
    confidence: Literal["High", "Low"] = Field(description="High if all profiles are measured and predictions hold.")
    message: str = Field("", max_length=1024, description="The change in words.")


class Optimization(StatusPart):
    """What `objective.optimize` has done and remembers."""

    observed_time: str | None = Field(None, max_length=64, description="Time up to which the load is averaged.")
    rate: float | None = Field(None, description="Requests per second, averaged over about one interval.")
    solved_time: str | None = Field(None, max_length=64, description="Time of the last search.")
    applied: Choice | None = Field(None, description="Choice in effect instead of that of the spec.")
    pending: Choice | None = Field(None, description="Better choice that the next search must confirm.")
    change_times: tuple[str, ...] = Field((), max_length=16, description="Changes of the last hour.")
    held_until: str | None = Field(None, max_length=64, description="No change before, as the objective was missed.")


class Status(StatusPart):
    """Observed state of the service."""

    observed_generation: int | None = Field(None, description="Generation of the spec that was last reconciled.")
    conditions: tuple[Condition, ...] = Field((), max_length=32, description="Conditions, by type.")
    ready: Literal["True", "False", "Unknown"] | None = Field(None, description="Status of the condition Ready.")
    tiers: str | None = Field(None, max_length=16, description="Ready pools of all pools, e.g. 3/3.")
    replicas: int | None = Field(None, description="Running replicas of all pools.")
    p95: str | None = Field(None, max_length=32, description="Observed p95 response time of the slowest pool.")
    download: str | None = Field(
        None, max_length=64, description="Models that nodes download, e.g. 3.1 of 15 GB on 2 nodes."
    )
    connections: int | None = Field(None, description="Requests in flight or queued at the gateway.")
    watts: float | None = Field(None, description="Electrical power of all replicas at the current load.")
    cost_per_hour: float | None = Field(
        None, description="Cost of all replicas per hour, in the currency of the prices."
    )
    carbon_grams_per_hour: float | None = Field(None, description="Grams of CO2-equivalent per hour of that power.")
    idle_watts: float | None = Field(None, description="Part of it that idle replicas would take too.")
    embodied_grams_per_hour: float | None = Field(
        None, description="Grams of CO2-equivalent per hour of the manufacture of all accelerators."
    )
    recommendation: Recommendation | None = Field(None, description="What `objective.optimize` recommends.")
    optimization: Optimization | None = Field(None, description="State of `objective.optimize`.")
    endpoint: str | None = Field(None, max_length=512, description="URL of the gateway.")
    pools: tuple[PoolStatus, ...] = Field((), max_length=1024, description="Pools: one per tier and site.")
    components: dict[str, bool] | None = Field(
        None, description="Components of the service, and whether each is running."
    )
