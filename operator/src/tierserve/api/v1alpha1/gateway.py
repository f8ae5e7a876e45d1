"""The parts around serving: cache, pipeline, sync, guard and gateway."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tierserve.api.units import Duration, Quantity
from tierserve.api.v1alpha1.base import Name, Part


class Cache(Part):
    """Cache of responses at a tier, per tenant, invalidated with the version of the model."""

    tier: Name = Field(description="Tier that holds the cache.")
    ttl: Duration = Field(Duration("10m"), description="How long a response is kept.")
    size: Quantity = Field(Quantity("1Gi"), description="Memory of the cache, per site.")


class Module(Part):
    """A module of the pipeline and where it may run."""

    tiers: tuple[Name, ...] = Field((), max_length=16, description="Tiers where it may run; any if left out.")
    entrypoint: str | None = Field(
        None,
        max_length=253,
        pattern=r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$",
        description="Python callable, as module:name.",
    )
    memory: Quantity | None = Field(None, description="Memory that the module takes.")


class Pipeline(Part):
    """Input, generation and output modules."""

    input: Module = Field(Module(), description="Before generation: retrieval, checks, features.")
    generation: Module = Field(Module(), description="The model itself.")
    output: Module = Field(Module(), description="After generation: guard, rendering.")


class Sync(Part):
    """Distribution of model bundles from the cloud to the other tiers."""

    schedule: str = Field("0 3 * * *", max_length=64, description="When to look for new versions: a cron line, UTC.")
    source: Name | None = Field(None, description="Tier that others copy from; the first cloud tier when left out.")
    keep: int = Field(2, ge=1, le=16, description="Versions kept, so that the last good one serves when offline.")
    verify: bool = Field(True, description="Whether a bundle must be signed.")


class Guard(Part):
    """Checks of what is shown to the user."""

    action: Literal["block", "annotate", "allow"] = Field("block", description="What becomes of an answer that fails.")
    checks: tuple[Name, ...] = Field((), max_length=32, description="Names of the checks.")
    provenance: bool = Field(False, description="Whether generated media carry a mark of their origin.")


class Tls(Part):
    """Encryption between clients and gateway, and between gateway and tiers."""

    secret_name: Name | None = Field(None, description="Secret of type kubernetes.io/tls.")
    plain_http: Literal["redirect", "refuse"] = Field(
        "redirect",
        description="What a gateway that serves TLS answers to plain HTTP: 308 to the same address with https, or 403.",
    )
    mutual: bool = Field(True, description="Whether gateway and tiers authenticate each other.")


class Auth(Part):
    """Who may use the gateway."""

    mode: Literal["none", "apiKey", "oidc"] = Field("none", description="How clients prove who they are.")
    secret_name: Name | None = Field(None, description="Secret with the keys, for apiKey.")
    issuer: str | None = Field(None, max_length=512, pattern="^https://.+$", description="Issuer, for oidc.")


class RateLimit(Part):
    """Bound on the requests or tokens of one tenant."""

    name: Name = Field(description="Name of the limit, unique in the list.")
    traffic_class: Name | None = Field(None, description="Class it applies to; all when left out.")
    requests_per_minute: int | None = Field(None, ge=1, description="Most requests in a minute.")
    tokens_per_minute: int | None = Field(None, ge=1, description="Most tokens in a minute.")


class Gateway(Part):
    """The one endpoint in front of the tiers."""

    max_queue: int = Field(1024, ge=0, le=1_000_000, description="Most requests that wait in the gateway.")
    queue_order: Literal["adaptiveLIFO", "arrival"] = Field(
        "adaptiveLIFO",
        description="Order of the queue: `arrival`, first in, first out; or `adaptiveLIFO`, the same while all are "
        "answered within the target, newest first once the oldest would miss it.",
    )
    queue_timeout: Duration = Field(Duration("30s"), description="Longest wait before 503 with Retry-After.")
    response_timeout: Duration = Field(Duration("10m"), description="Longest silence of a tier before 504.")
    tls: Tls | None = Field(None, description="Encryption; none when left out.")
    auth: Auth | None = Field(None, description="Authentication; none when left out.")
    rate_limits: tuple[RateLimit, ...] = Field((), max_length=32, description="Limits per tenant.")
