"""`spec.traffic[]` and `spec.routing`: traffic classes, their privacy, and the order of the tiers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tierserve.api.v1alpha1.base import Name, Part

Privacy = Literal["public", "site", "device"]  # from the loosest to the strictest
# Kinds of tier that may serve a request of each privacy.
KINDS_ALLOWED: dict[str, frozenset[str]] = {
    "public": frozenset({"cloud", "edge", "device"}),
    "site": frozenset({"edge", "device"}),
    "device": frozenset({"device"}),
}


class TrafficClass(Part):
    """A traffic class; clients name it in the header X-TierServe-Class."""

    name: Name = Field(description="Name, unique in the list.")
    share: float = Field(1, ge=0, le=1, description="Share of all requests; the shares sum to 1.")
    privacy: Privacy = Field(
        "public",
        description="Tiers that may serve a request: `public`, any; `site`, edge and device; `device`, device only.",
    )
    input: int = Field(256, ge=1, le=10_000_000, description="Mean number of input tokens.")
    output: int | None = Field(
        None, ge=1, le=1_000_000, description="Mean number of output tokens; defaults to that of the model."
    )
    origin: Name | None = Field(
        None,
        description="Tier or site of the clients; defaults to any. Only `tierserve plan --best` reads it.",
    )


class Routing(Part):
    """Order of the tiers, and failover."""

    overflow: tuple[Name, ...] = Field(
        (), max_length=16, description="Tiers in the order in which they are filled; defaults to nearest first."
    )
    failover: bool = Field(True, description="Whether requests fail over to the next tier when one is down.")
    default_class: Name | None = Field(
        None,
        description="Class of a request that names none; required if a class is not public, else the first.",
    )
