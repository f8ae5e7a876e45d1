"""Fields that this version understands but does not act on yet: none is ignored in silence.

One table; whoever makes a field work takes its line away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tierserve.api.document import nodes, to_document
from tierserve.api.errors import Problem
from tierserve.api.v1alpha1.deployment import GenAIDeployment

NO_NODES = "only a cluster acts on it: on this machine there are no nodes to choose from"

ONLY_PLANNED = "only `tierserve plan --best` acts on it"
SEE_PLAN = "see what it would change with tierserve plan FILE --best, which says how to bring the file near that"


@dataclass(frozen=True, slots=True)
class Unused:
    """A field at `path`; it counts as set when it holds something other than one of `plain`.

    What is `local` is acted on by the operator and not by the runtime on one machine.
    """

    path: str
    why: str = "this version does not act on it yet"
    hint: str = "leave it, or take it out: it changes nothing"
    plain: tuple[object, ...] = field(default=())
    local: bool = False


UNUSED: tuple[Unused, ...] = (
    Unused(
        "spec.objective.optimize",
        f"{ONLY_PLANNED}: what runs is the first model of each tier that meets the objective, in the order of overflow",
        SEE_PLAN,
        plain=("cost",),
    ),
    Unused("spec.objective.caps", f"{ONLY_PLANNED}: what runs may take more", SEE_PLAN),
    Unused(
        "spec.models[].engine",
        "this version does not start vLLM; it plans for it",
        "to run the file on this machine use emulated or llamacpp",
        plain=("emulated", "llamacpp"),
    ),
    Unused(
        "spec.models[].quality",
        f"{ONLY_PLANNED}, between plans as good otherwise: what runs is the first model that fits and is in time",
        SEE_PLAN,
    ),
    Unused("spec.tiers[].placement", NO_NODES, local=True),
    Unused("spec.tiers[].sites[].placement", NO_NODES, local=True),
    Unused("spec.tiers[].accelerator.type", "nodes are chosen by placement alone"),
    Unused("spec.traffic[].origin", f"{ONLY_PLANNED}: requests of a class may come in anywhere", SEE_PLAN),
    Unused("spec.cache"),
    Unused("spec.pipeline"),
    Unused("spec.sync"),
    Unused("spec.guard"),
    Unused("spec.gateway.tls", "the gateway speaks plain HTTP on loopback", local=True),
    Unused("spec.gateway.tls.mutual", "gateway and tiers speak plain HTTP to each other", plain=(False,)),
    Unused("spec.gateway.auth", "the gateway asks nobody who they are", plain=({"mode": "none"},)),
    Unused("spec.gateway.rateLimits"),
)


def unused_fields(gaid: GenAIDeployment, *, cluster: bool = False) -> list[Problem]:
    """A warning for each field of the table that the user set, named once, at its first place.

    Args:
        gaid: the service.
        cluster: it runs on Kubernetes, where more fields are acted on.
    """
    whole = to_document(gaid)
    hits = [
        (unused, *hit) for unused in UNUSED if not (cluster and unused.local) and (hit := _first_set(unused, whole))
    ]
    named = {path for _, path, _ in hits}
    return [
        Problem(path, f"is set, but {unused.why}", unused.hint, value if isinstance(value, str) else None)
        for unused, path, value in hits
        if not any(path.startswith(f"{other}.") for other in named)  # what it is in is named already
    ]


def _first_set(unused: Unused, whole: Mapping[str, Any]) -> tuple[str, Any] | None:
    return next((hit for hit in nodes(whole, unused.path) if hit[1] not in unused.plain), None)
