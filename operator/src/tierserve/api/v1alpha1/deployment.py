"""`GenAIDeployment` v1alpha1: the whole custom resource as one frozen value."""

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
    """The metadata of the object that matter here; what else Kubernetes keeps there is kept too."""

    model_config = ConfigDict(extra="allow")
    name: str = Field(pattern=SERVICE_NAME_PATTERN, max_length=SERVICE_NAME_LENGTH, description="Name of the service.")
    namespace: str | None = None
    generation: int | None = None
    uid: str | None = None
    labels: dict[str, str] = Field({})
    annotations: dict[str, str] = Field({})


class Spec(Part):
    """What the user wants."""

    objective: Objective = Field(description="What the service promises.")
    models: tuple[Model, ...] = Field(min_length=1, max_length=16, description="The models that may run.")
    tiers: tuple[Tier, ...] = Field(min_length=1, max_length=16, description="Where they may run.")
    traffic: tuple[TrafficClass, ...] = Field(
        (TrafficClass(name="default"),), min_length=1, max_length=16, description="Classes of requests."
    )
    routing: Routing = Field(Routing(), description="Order of the tiers, failover, and the default class.")
    gateway: Gateway = Field(Gateway(), description="The endpoint in front of the tiers.")
    paused: bool = Field(False, description="Whether the operator leaves everything as it is.")


class GenAIDeployment(Part):
    """A generative-AI service over cloud, edge and device tiers."""

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
        """The models allowed on `tier`, in the order given there; all of the deployment when it names none."""
        return tuple(self.model(name) for name in tier.models) or self.spec.models

    @property
    def tiers_on(self) -> tuple[Tier, ...]:
        """Tiers that may run a replica, in the order of the file."""
        return tuple(tier for tier in self.spec.tiers if not tier.is_off)

    @property
    def overflow(self) -> tuple[Tier, ...]:
        """All tiers in the order in which they are filled: those of routing.overflow, the rest after, nearest first."""
        order, by_name = self.spec.routing.overflow, {tier.name: tier for tier in self.spec.tiers}
        rest = sorted((tier for name, tier in by_name.items() if name not in order), key=lambda tier: tier.rtt_s)
        return (*(by_name[name] for name in order), *rest)

    def tiers_for(self, traffic: TrafficClass) -> tuple[Tier, ...]:
        """Tiers that may see requests of this class and are on, in the order in which they are filled; fail closed.

        Where routing.overflow names some of them, the others are left alone: a device is not a spare cloud. A class
        that may go to none of those named goes to the rest that may see it (a private one to its device).
        """
        allowed = [tier for tier in self.overflow if tier.kind in KINDS_ALLOWED[traffic.privacy]]
        named = [tier for tier in allowed if tier.name in self.spec.routing.overflow]
        return tuple(tier for tier in named or allowed if not tier.is_off)

    @property
    def default_class(self) -> TrafficClass:
        """Class of a request that names none: `routing.defaultClass`, or the first where all are public."""
        classes = {traffic.name: traffic for traffic in self.spec.traffic}
        return classes[self.spec.routing.default_class or self.spec.traffic[0].name]
