"""`GenAIDeployment` v1alpha1: the custom resource as one frozen value."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from tierserve.api.v1alpha1.base import SERVICE_NAME_LENGTH, SERVICE_NAME_PATTERN, Part
from tierserve.api.v1alpha1.gateway import Gateway
from tierserve.api.v1alpha1.models import Model
from tierserve.api.v1alpha1.objective import Objective
from tierserve.api.v1alpha1.tiers import Tier
from tierserve.api.v1alpha1.traffic import KINDS_ALLOWED, Routing, TrafficClass

GROUP, VERSION, KIND, PLURAL = "serving.tierserve.io", "v1alpha1", "GenAIDeployment", "genaideployments"
API_VERSION = f"{GROUP}/{VERSION}"


class Metadata(Part):
    """Standard object metadata; fields that are not declared here are kept."""

    model_config = ConfigDict(extra="allow")
    name: str = Field(pattern=SERVICE_NAME_PATTERN, max_length=SERVICE_NAME_LENGTH, description="Name of the service.")
    namespace: str | None = None
    generation: int | None = None
    uid: str | None = None
    labels: dict[str, str] = Field({})
    annotations: dict[str, str] = Field({})


class Spec(Part):
    """Desired state of the service."""

    objective: Objective = Field(
        description="Response-time objective of the service, and limits on its resource usage."
    )
    models: tuple[Model, ...] = Field(min_length=1, max_length=16, description="Models (variants) that may run.")
    tiers: tuple[Tier, ...] = Field(min_length=1, max_length=16, description="Tiers on which the models may run.")
    traffic: tuple[TrafficClass, ...] = Field(
        (TrafficClass(name="default"),), min_length=1, max_length=16, description="Traffic classes of the requests."
    )
    routing: Routing = Field(Routing(), description="Order of the tiers, failover, and default class.")
    gateway: Gateway = Field(Gateway(), description="Gateway: the endpoint in front of the tiers.")
    paused: bool = Field(False, description="If true, the operator changes nothing and only reports the status.")


class GenAIDeployment(Part):
    """A generative-AI service across cloud, edge and device tiers."""

    api_version: Literal["serving.tierserve.io/v1alpha1"] = "serving.tierserve.io/v1alpha1"
    kind: Literal["GenAIDeployment"] = "GenAIDeployment"
    metadata: Metadata
    spec: Spec
    status: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """Name of the service."""
        return self.metadata.name

    def tier(self, name: str) -> Tier:
        """The tier of this name; KeyError if there is none."""
        return {tier.name: tier for tier in self.spec.tiers}[name]

    def model(self, name: str) -> Model:
        """The model of this name; KeyError if there is none."""
        return {model.name: model for model in self.spec.models}[name]

    def models_of(self, tier: Tier) -> tuple[Model, ...]:
        """The models allowed on `tier`, in the order given there; all models if it names none."""
        return tuple(self.model(name) for name in tier.models) or self.spec.models

    @property
    def tiers_on(self) -> tuple[Tier, ...]:
        """Tiers that may run a replica, in the order of the file."""
        return tuple(tier for tier in self.spec.tiers if not tier.is_off)

    @property
    def overflow(self) -> tuple[Tier, ...]:
        """All tiers in the order in which they are filled: those of routing.overflow, then the others, nearest
        first."""
        order, by_name = self.spec.routing.overflow, {tier.name: tier for tier in self.spec.tiers}
        rest = sorted((tier for name, tier in by_name.items() if name not in order), key=lambda tier: tier.rtt_s)
        return (*(by_name[name] for name in order), *rest)

    def tiers_for(self, traffic: TrafficClass) -> tuple[Tier, ...]:
        """Enabled tiers that may serve requests of this class, in the order in which they are filled; fails closed.

        If routing.overflow names some of them, only those are used: a device is no spare capacity of a cloud. A class
        that may use none of those named uses the others that its privacy allows (a private one its device).
        """
        allowed = [tier for tier in self.overflow if tier.kind in KINDS_ALLOWED[traffic.privacy]]
        named = [tier for tier in allowed if tier.name in self.spec.routing.overflow]
        return tuple(tier for tier in named or allowed if not tier.is_off)

    @property
    def default_class(self) -> TrafficClass:
        """Class of a request that names none: `routing.defaultClass`, or the first class if all are public."""
        classes = {traffic.name: traffic for traffic in self.spec.traffic}
        return classes[self.spec.routing.default_class or self.spec.traffic[0].name]
