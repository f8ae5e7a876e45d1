"""TierServe's rule without one part of its decision, to show the effect of the part."""

from __future__ import annotations

from tierserve.simulate.policies.base import Rule
from tierserve.simulate.policies.ours import OURS, Ours

_NEVER_S = 1e9


def _without(name: str, title: str, what: str, **settings: object) -> Rule:
    return Rule(
        f"ours-{name}",
        f"TierServe, {title}",
        what,
        "the share that may miss, divided by",
        1.0,
        (1.0,),
        lambda pool, value: Ours(pool, value, **settings),
    )


PARTS = (
    *(one for one in OURS if one.name != "ours"),
    _without(
        "no-profile",
        "without the batching profile",
        "replicas are servers with the measured service time, as in M/M/c",
        profile=None,
    ),
    _without(
        "erlang-no-queue",
        "Erlang C alone, without queue length",
        "without replicas for requests that already wait",
        adaptive_standby=False,
        drain_s=_NEVER_S,
    ),
    _without(
        "erlang-mean",
        "Erlang C alone, for the mean",
        "without standard errors of the arrival rate",
        adaptive_standby=False,
        confidence=0.0,
    ),
)
