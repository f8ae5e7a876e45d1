"""`spec.gateway`: the endpoint in front of the tiers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tierserve.api.units import Duration
from tierserve.api.v1alpha1.base import Part, Subdomain


class Tls(Part):
    """Encryption between clients and gateway."""

    secret_name: Subdomain = Field(description="Secret of type kubernetes.io/tls.")
    plain_http: Literal["redirect", "refuse"] = Field(
        "redirect",
        description="What a gateway that serves TLS answers to plain HTTP: 308 to the same address with https, or 403.",
    )


Origin = Annotated[str, Field(max_length=253, pattern=r"^(\*|[a-z][a-z0-9+.-]*://[A-Za-z0-9.:\[\]_-]+)$")]


class Cors(Part):
    """Pages of other origins that may call the gateway from a browser (CORS); cookies are not used."""

    allow_origins: tuple[Origin, ...] = Field(
        min_length=1,
        max_length=32,
        description='Origins as browsers send them, such as `https://chat.example.com`; `"*"` allows every origin.',
    )


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
    cors: Cors | None = Field(None, description="Pages of other origins that may call the gateway; none when left out.")
    tls: Tls | None = Field(None, description="Encryption; none when left out.")
