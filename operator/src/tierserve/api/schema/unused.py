"""Fields without effect in some commands: one table for `warnings.py` and docs/reference.md.

Remove an entry when the field is implemented.
"""

from __future__ import annotations

from dataclasses import dataclass

NO_NODES = "it has an effect on Kubernetes only: the local runtime has no nodes to choose from"
NO_PODS = "it has an effect on Kubernetes only: the local runtime has no pods"
NO_SECRETS = "it has an effect on Kubernetes only: local replicas have the environment of `tierserve up`"
ONE_CACHE = "it has an effect on Kubernetes only: local replicas share ~/.cache/tierserve/models"

ONLY_PLANNED = "only `tierserve plan --best` reads it"
SEE_PLAN = "run tierserve plan FILE --best to see its effect, and the changes of the file that come close to that plan"


@dataclass(frozen=True, slots=True)
class Unused:
    """A field without effect at `path`; it counts as set if its value is not the default.

    If `local`, the operator implements the field and the local runtime does not. If `optimized`, it is in effect once
    `objective.optimize.mode` is not `off`.
    """

    path: str
    why: str = "it is not implemented in this version"
    hint: str = "remove it; it has no effect"
    local: bool = False
    optimized: bool = False


UNUSED: tuple[Unused, ...] = (
    Unused(
        "spec.objective.optimize.by",
        f"{ONLY_PLANNED} while mode is off",
        "set mode to recommend or apply, or run tierserve plan FILE --best",
        optimized=True,
    ),
    Unused(
        "spec.models[].quality",
        f"{ONLY_PLANNED}, to choose between equal plans: each tier runs its first model that meets the objective",
        SEE_PLAN,
        optimized=True,
    ),
    Unused("spec.tiers[].placement", NO_NODES, local=True),
    Unused("spec.tiers[].sites[].placement", NO_NODES, local=True),
    Unused("spec.models[].sourceSecretName", NO_SECRETS, "set the variables in the shell", local=True),
    Unused("spec.tiers[].modelCache", ONE_CACHE, local=True),
    Unused("spec.tiers[].podTemplate", NO_PODS, local=True),
    Unused("spec.tiers[].sites[].podTemplate", NO_PODS, local=True),
    Unused("spec.traffic[].origin", f"{ONLY_PLANNED}: requests of a class may arrive at any tier", SEE_PLAN),
    Unused("spec.gateway.tls", "the local gateway serves plain HTTP on loopback", local=True),
)
