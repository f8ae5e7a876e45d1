"""API: the custom resource `GenAIDeployment` as frozen values, its units, presets and validation."""

from tierserve.api.errors import Problem, ValidationFailed
from tierserve.api.loading import load, parse, to_document
from tierserve.api.units import Amount, BitRate, Duration, Mass, Power, Quantity
from tierserve.api.v1alpha1.deployment import API_VERSION, GROUP, KIND, PLURAL, VERSION, GenAIDeployment, Metadata, Spec
from tierserve.api.v1alpha1.models import Model, Profile
from tierserve.api.v1alpha1.objective import Objective
from tierserve.api.v1alpha1.tiers import Accelerator, Hardware, Tier
from tierserve.api.v1alpha1.traffic import Routing, TrafficClass
from tierserve.api.warnings import hints

__all__ = [
    "API_VERSION",
    "GROUP",
    "KIND",
    "PLURAL",
    "VERSION",
    "Accelerator",
    "Amount",
    "BitRate",
    "Duration",
    "GenAIDeployment",
    "Hardware",
    "Mass",
    "Metadata",
    "Model",
    "Objective",
    "Power",
    "Problem",
    "Profile",
    "Quantity",
    "Routing",
    "Spec",
    "Tier",
    "TrafficClass",
    "ValidationFailed",
    "hints",
    "load",
    "parse",
    "to_document",
]
