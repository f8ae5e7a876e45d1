"""`spec.gateway`: the endpoint in front of the tiers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tierserve.api.units import Duration
from tierserve.api.v1alpha1.base import Part, Subdomain


class Tls(Part):
    """TLS between clients and gateway."""

    secret_name: Subdomain = Field(description="Name of a Secret of type kubernetes.io/tls.")
    plain_http: Literal["redirect", "refuse"] = Field(
        "redirect",
        description="Response to plain HTTP: `redirect`, 308 to the same address with https; `refuse`, 403.",
    )


Origin = Annotated[str, Field(max_length=253, pattern=r"^(\*|[a-z][a-z0-9+.-]*://[A-Za-z0-9.:\[\]_-]+)$")]


class Cors(Part):
    """Cross-origin resource sharing (CORS) for browsers; cookies are not used."""

    allow_origins: tuple[Origin, ...] = Field(
        min_length=1,
        max_length=32,
        description='Allowed origins, e.g. `https://chat.example.com`; `"*"` allows every origin.',
    )


class Gateway(Part):
    """The endpoint in front of the tiers."""

    max_queue: int = Field(1024, ge=0, le=1_000_000, description="Maximum number of requests queued in the gateway.")
    queue_order: Literal["adaptiveLIFO", "arrival"] = Field(
        "adaptiveLIFO",
        description="Order of the queue: `arrival`, first in, first out; `adaptiveLIFO`, first in, first out while all "
        "requests meet the target, newest first once the oldest would miss it.",
    )
    queue_timeout: Duration = Field(
        Duration("30s"), description="Maximum time in the queue before 503 with Retry-After."
    )
    response_timeout: Duration = Field(
        Duration("10m"), description="Maximum time without data from a replica before 504."
    )
    cors: Cors | None = Field(None, description="CORS; defaults to no other origin.")
    tls: Tls | None = Field(None, description="TLS; defaults to plain HTTP.")
