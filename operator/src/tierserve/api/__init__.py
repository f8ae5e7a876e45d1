"""The custom resource `GenAIDeployment` as frozen values, its units, presets and rules."""

from tierserve.api.advice import hints
from tierserve.api.deployment import API_VERSION, GROUP, KIND, PLURAL, VERSION, GenAIDeployment, Metadata, Spec
from tierserve.api.document import to_document
from tierserve.api.load import load, parse
from tierserve.api.models import Model, Profile
from tierserve.api.objective import Objective
from tierserve.api.problems import Problem, ValidationFailed
from tierserve.api.tiers import Accelerator, Hardware, Tier
from tierserve.api.traffic import Routing, TrafficClass
from tierserve.api.units import Amount, BitRate, Duration, Mass, Power, Quantity

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
