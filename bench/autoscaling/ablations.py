"""TierServe's rule without one part of its decision, to show the effect of the part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tierserve.autoscale.budget import ErrorBudget
from tierserve.autoscale.decide import State
from tierserve.autoscale.replay import ReplayState
from tierserve.simulate.policies.base import Rule
from tierserve.simulate.policies.ours import Ours
from tierserve.simulate.types import Pool, Snapshot


class Forgetful(Ours):
    """The rule whose state loses a part before each decision, so that the part has no effect."""

    def __init__(self, pool: Pool, strictness: float, forget: Callable[[State], State]) -> None:
        super().__init__(pool, strictness)
        self.forget = forget

    def decide(self, seen: Snapshot) -> int:
        """Return the desired replicas."""
        self.state = self.forget(self.state)
        return super().decide(seen)


def _without_replay(state: State) -> State:
    return replace(state, replay=ReplayState())


def _without_error_budget(state: State) -> State:
    return replace(state, budget=ErrorBudget())


def _without_regret(state: State) -> State:
    return replace(state, stabilization=state.stabilization._replace(factor=1.0))


def _part(name: str, title: str, what: str, forget: Callable[[State], State]) -> Rule:
    return _rule(name, title, what, lambda pool, value: Forgetful(pool, value, forget))


def _rule(name: str, title: str, what: str, make: Callable[[Pool, float], Ours]) -> Rule:
    return Rule(f"ours-{name}", f"TierServe, {title}", what, "the share that may miss, divided by", 1.0, (1.0,), make)


PARTS = (
    _rule(
        "no-profile",
        "without the batching profile",
        "replicas are servers with the measured service time, as in M/M/c",
        lambda pool, value: Ours(pool, value, profile=None),
    ),
    _part(
        "no-replay",
        "without the replay",
        "the replay begins anew at each decision: replicas for the forecast rate and the backlog only",
        _without_replay,
    ),
    _part(
        "no-budget",
        "without the error budget",
        "late responses do not make the decision more cautious",
        _without_error_budget,
    ),
    _part(
        "no-regret",
        "with a constant stabilization window",
        "a removal that is followed by a scale-up does not lengthen the window",
        _without_regret,
    ),
)
