"""Fields that not every command acts on: none is ignored in silence.

One table, for `warnings.py` and docs/reference.md; whoever makes a field work takes its line away.
"""

from __future__ import annotations

from dataclasses import dataclass

NO_NODES = "only a cluster acts on it: on this machine there are no nodes to choose from"

ONLY_PLANNED = "only `tierserve plan --best` reads it"
SEE_PLAN = "see what it would change with tierserve plan FILE --best, which says how to bring the file near that"


@dataclass(frozen=True, slots=True)
class Unused:
    """A field at `path`; it counts as set when it holds something other than its default.

    What is `local` is acted on by the operator and not by the runtime on one machine.
    """

    path: str
    why: str = "this version does not act on it yet"
    hint: str = "leave it, or take it out: it changes nothing"
    local: bool = False


UNUSED: tuple[Unused, ...] = (
    Unused(
        "spec.objective.optimize",
        f"{ONLY_PLANNED}: what runs is the first model of each tier that meets the objective, in the order of overflow",
        SEE_PLAN,
    ),
    Unused("spec.objective.caps", f"{ONLY_PLANNED}: what runs may take more", SEE_PLAN),
    Unused(
        "spec.models[].quality",
        f"{ONLY_PLANNED}, between plans as good otherwise: what runs is the first model that fits and is in time",
        SEE_PLAN,
    ),
    Unused("spec.tiers[].placement", NO_NODES, local=True),
    Unused("spec.tiers[].sites[].placement", NO_NODES, local=True),
    Unused("spec.traffic[].origin", f"{ONLY_PLANNED}: requests of a class may come in anywhere", SEE_PLAN),
    Unused("spec.gateway.tls", "the gateway speaks plain HTTP on loopback", local=True),
)
