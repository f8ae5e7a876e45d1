"""Standby rules: replicas to keep ready for bursts shorter than a start-up, chosen by past arrivals.

A burst that is shorter than the start-up time cannot be forecast: only standby replicas can serve it. How many are
enough depends on the load, so it is learned. Many simple rules, each

    max(S, h x the maximum load of the last W seconds)  replicas, or
    max(S, h x the larger of the current load and that forecast for when a replica started now is ready),

are simulated side by side on the actual arrivals, each with a shadow pool: its replicas start as slowly as real ones
and serve the same work, and work served too late counts against the rule. Of the rules that kept the objective the
cheapest is applied; of those of about the same cost, the one that removes replicas least often. As all rules see the
same arrivals, no exploration is needed: prediction with expert advice
(Cesa-Bianchi and Lugosi, "Prediction, Learning, and Games", 2006, ch. 2), as follow-the-leader under a constraint.

The shadow pools are optimistic: they leave out batches that slow down and long prompts ahead of short ones. The share
of the error budget that a rule may use in its shadow pool corrects for that: it falls where more requests are late in
operation than the objective allows, and rises where fewer are (as in adaptive conformal inference, Gibbs and Candes,
NeurIPS 2021).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

HOLD_S = (0.0, 60.0, 150.0, 300.0, 600.0, 1200.0, 4800.0)
"""W: windows of the maximum load, seconds; 0: the current load."""
HEADROOM = (0.7, 0.77, 0.85, 0.92, 1.0, 1.2, 1.5, 2.0)
"""h: factors on the load. (Below 1: where some requests may wait, a peak need not be met in full.)"""
STANDING = tuple(1.2**k for k in range(40))
"""S: minimum number of replicas, from 1 to 1,200."""
MOST_STEPS = 60
"""Steps of the shadow pools in one start-up time: bounds memory; fewer where a step would be under half a second."""
_SHORTEST_STEP_S = 0.5
_MINUTE_S = 60.0
_LEAST_TRUST, _MOST_TRUST = 0.02, 3.0
BUDGET_STARTS = 20.0
"""Half-life of observed late requests, in start-up times: a change shows no sooner."""
WARM_STARTS = 2.0
"""Warm-up, in start-up times (at least two minutes): no rule is scored in it."""
_PRIOR_ANSWERS = 1000.0
ALIKE = 0.02
"""Relative cost above the cheapest up to which rules count as equal."""
LOYALTY = 0.03
"""Relative saving from which the rule is changed: otherwise two of the same cost would alternate."""
_STEADIER, _FEW = 1.5, 2.0  # of drops: so many times those of the steadiest of the cheapest, and so many more
_MARGIN = 1.1
"""Removals are counted at the load and at a tenth more: a rule next to a threshold is not steady."""

_LOADS = ("current load", *(f"maximum load of the last {s:.0f} s" for s in HOLD_S[1:]), "current or forecast load")
_RULES = np.array([(w, h, s) for w in range(len(HOLD_S) + 1) for h in HEADROOM for s in STANDING])
_HOLD, _HEAD, _STAND = _RULES[:, 0].astype(np.int64), _RULES[:, 1].copy(), _RULES[:, 2].copy()


@dataclass(frozen=True, slots=True)
class StandbySettings:
    """Settings of the rules; times in seconds.

    Attributes:
        startup_s: from a raised target to a replica that serves.
        slack_s: how long work may wait without missing the target.
        may_miss: share of the requests that may miss it.
        trust: share of `may_miss` that a rule may use in its shadow pool when the error budget is just used up in
            operation.
        gain: decrease of the logarithm of that share for each budget used up in operation; 0: constant.
        half_life_s: half-life of the statistics.
        churn: replica-start-ups that giving up a replica costs: it may have to be started again.
    """

    startup_s: float
    slack_s: float
    may_miss: float = 0.01
    trust: float = 0.5
    gain: float = 2.0
    half_life_s: float = 6 * 3600.0
    churn: float = 1.0

    def __post_init__(self) -> None:
        for name in ("startup_s", "gain", "churn"):
            if not getattr(self, name) >= 0.0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)!r}: give seconds or a share")
        for name in ("slack_s", "may_miss", "trust", "half_life_s"):
            if not getattr(self, name) > 0.0:
                raise ValueError(
                    f"{name} must be above 0, got {getattr(self, name)!r}: a miss can be made rare, not never"
                )

    @property
    def steps(self) -> int:
        """Steps of the shadow pools in one start-up time."""
        return min(max(round(self.startup_s / _SHORTEST_STEP_S), 1), MOST_STEPS)

    @property
    def step_s(self) -> float:
        """Seconds of one of them."""
        return max(self.startup_s / self.steps, _SHORTEST_STEP_S)

    @property
    def drain_s(self) -> float:
        """Seconds in which a backlog is drained: as long as a replica takes to start, which would be too late
        otherwise."""
        return max(self.startup_s, 4.0 * self.slack_s)


class Arrivals(NamedTuple):
    """Arrivals of an interval.

    Attributes:
        seconds: how long.
        work: seconds that a full replica needs for what came.
        requests: how many came.
        answered, late: responses observed, and those of them that were late.
    """

    seconds: float = 0.0
    work: float = 0.0
    requests: float = 0.0
    answered: float = 0.0
    late: float = 0.0


class Peak(NamedTuple):
    """Loads that could yet be the highest of a window, falling, each with when it was seen."""

    seen: tuple[tuple[float, float], ...] = ()

    def add(self, t: float, load: float, window_s: float) -> Peak:
        """Return it with one load more."""
        kept = [one for one in self.seen if one[1] > load and one[0] >= t - window_s]
        return Peak((*kept, (t, load)))

    @property
    def load(self) -> float:
        """The highest of the window."""
        return self.seen[0][1] if self.seen else 0.0


@dataclass(frozen=True, slots=True)
class ShadowPool:
    """Shadow pools of all rules; arrays have one value per rule and are never written to.

    `asked`: replicas requested by the rules; `with_margin`: the same at `_MARGIN` x the load; `backlog`: seconds of
    work that waits; `missed`, `cost`, `drops`: requests too late, replica-seconds and replicas given up, discounted.
    `block`: what the rules asked for in the last steps; `lowest`: the least of them; `before`: for each step of the
    block before, the least from there to its end. So the least of the last start-up time, which is what serves, takes
    one comparison however long that time is (van Herk, Pattern Recognition Letters 13, 1992).
    """

    block: tuple[Floats, ...] = ()
    before: tuple[Floats, ...] = ()
    lowest: Floats = field(default_factory=lambda: np.full(_STAND.size, np.inf))
    asked: Floats = field(default_factory=lambda: _STAND)
    with_margin: Floats = field(default_factory=lambda: _STAND)
    backlog: Floats = field(default_factory=lambda: np.zeros(_STAND.size))
    missed: Floats = field(default_factory=lambda: np.zeros(_STAND.size))
    cost: Floats = field(default_factory=lambda: np.zeros(_STAND.size))
    drops: Floats = field(default_factory=lambda: np.zeros(_STAND.size))

    def serving(self) -> Floats:
        """Ready replicas: those requested a whole start-up time ago, and ever since."""
        at = len(self.block)
        return np.minimum(self.lowest, self.before[at]) if at < len(self.before) else self.lowest

    def ask(self, asked: Floats, steps: int) -> ShadowPool:
        """Return it with one step more, of so many in a start-up time."""
        block = (*self.block, asked)
        if len(block) < steps:
            return replace(self, block=block, lowest=np.minimum(self.lowest, asked), asked=asked)
        suffix = np.minimum.accumulate(np.array(block)[::-1], axis=0)[::-1]
        return replace(self, block=(), before=tuple(suffix), lowest=np.full(asked.size, np.inf), asked=asked)


@dataclass(frozen=True, slots=True)
class StandbyState:
    """State of the standby rules. Start with `StandbyState()`.

    Attributes:
        t: seconds since the first call.
        arrivals: those since the last step.
        fast, slow: load in replicas, over the slack and over a minute.
        peaks: the highest loads, one per window of `HOLD_S`.
        ahead: forecast load, in replicas, for when a replica started now is ready; 0 without a forecast.
        shadow: the shadow pools.
        seen: requests, discounted.
        answered, late: responses observed and late ones, discounted over `BUDGET_STARTS` start-ups.
        trust: share of `may_miss` that a rule may use up now.
        own_from: Unix seconds from which late requests count against the rule; inf until its replicas are ready and the
            requests queued before are served.
        rule: index of the rule in force.
    """

    t: float = 0.0
    arrivals: Arrivals = field(default_factory=Arrivals)
    fast: float = 0.0
    slow: float = 0.0
    peaks: tuple[Peak, ...] = (Peak(),) * len(HOLD_S)
    ahead: float = 0.0
    shadow: ShadowPool = field(default_factory=ShadowPool)
    seen: float = 0.0
    answered: float = 0.0
    late: float = 0.0
    own_from: float = math.inf
    trust: float | None = None
    rule: int | None = None

    def replicas(self, backlog_s: float, settings: StandbySettings) -> int:
        """Replicas of the rule in force, 0 while there is none.

        Args:
            backlog_s: queued work, seconds of a full replica; the shadow pool may have less.
            settings: as given to `learn`.
        """
        if self.rule is None:
            return 0
        standing = float(max(_STAND[self.rule], _HEAD[self.rule] * self.loads[_HOLD[self.rule]]))
        return math.ceil(standing + backlog_s / settings.drain_s - 1e-9)

    @property
    def loads(self) -> tuple[float, ...]:
        """Inputs of the rules: maximum load of each window of `HOLD_S`, then the larger of current and forecast
        load."""
        highest = tuple(peak.load for peak in self.peaks)
        return (*highest, max(highest[0], self.ahead))

    @property
    def serving(self) -> int:
        """Ready replicas in the shadow pool of the rule in force."""
        return 0 if self.rule is None else int(min(self.shadow.serving()[self.rule], self.shadow.asked[self.rule]))

    @property
    def reason(self) -> str:
        """The rule in force, for the reason of a decision."""
        if self.rule is None:
            return "no standby rule selected yet"
        hold, head, stand = int(_HOLD[self.rule]), _HEAD[self.rule], math.ceil(_STAND[self.rule])
        return f"standby rule ({head:g} x {_LOADS[hold]}, at least {stand})"


def learn(state: StandbyState, arrivals: Arrivals, settings: StandbySettings, ahead: float = 0.0) -> StandbyState:
    """Return the state after what came since the last call.

    Args:
        state: what the last call returned.
        arrivals: those since then.
        settings: may change between calls.
        ahead: forecast load, in replicas, for when a replica started now is ready; 0 without a forecast.
    """
    state = replace(state, ahead=ahead)
    total = Arrivals(*(a + b for a, b in zip(state.arrivals, arrivals, strict=True)))
    steps = min(int(total.seconds / settings.step_s + 1e-9), MOST_STEPS)
    if steps < 1:
        return replace(state, arrivals=total)
    each = Arrivals(*(value / steps for value in total))
    for _ in range(steps):
        state = _step(state, each, settings)
    keep = 0.5 ** (total.seconds / max(BUDGET_STARTS * settings.startup_s, 1.0))
    state = replace(
        state,
        arrivals=Arrivals(),
        answered=state.answered * keep + total.answered,
        late=state.late * keep + total.late,
    )
    trust = _trust(state, settings)
    return replace(state, trust=trust, rule=_leader(state, trust, settings))


def _trust(state: StandbyState, settings: StandbySettings) -> float:
    prior = settings.may_miss * _PRIOR_ANSWERS
    used = (state.late + prior) / (settings.may_miss * state.answered + prior)
    return min(max(settings.trust * math.exp(settings.gain * (1.0 - used)), _LEAST_TRUST), _MOST_TRUST)


def _towards(old: float, new: float, seconds: float, window_s: float) -> float:
    return old + (new - old) * -math.expm1(-seconds / window_s)


def _step(state: StandbyState, arrivals: Arrivals, settings: StandbySettings) -> StandbyState:
    """Simulate one step of all rules."""
    t, dt, shadow = state.t + arrivals.seconds, arrivals.seconds, state.shadow
    load = arrivals.work / dt
    fast = _towards(state.fast, load, dt, max(settings.slack_s, 2.0 * dt))
    slow = _towards(state.slow, load, dt, _MINUTE_S)
    peaks = tuple(p.add(t, max(fast, slow), w) for p, w in zip(state.peaks, HOLD_S, strict=True))
    state = replace(state, t=t, fast=fast, slow=slow, peaks=peaks)
    desired = _HEAD * np.array(state.loads)[_HOLD]
    # as in `standby_recommendation`: a queue within the slack needs no extra replicas
    helpers = np.maximum(shadow.backlog - settings.slack_s * shadow.asked, 0.0) / settings.drain_s - 1e-9
    asked = np.ceil(np.maximum(desired, _STAND) + helpers)
    with_margin = np.ceil(np.maximum(_MARGIN * desired, _STAND) + helpers)
    # warm-up: loads are not known yet
    if t <= max(WARM_STARTS * settings.startup_s, 2.0 * _MINUTE_S):
        return replace(state, shadow=replace(shadow, asked=asked, with_margin=with_margin))
    serving = np.minimum(shadow.serving(), asked)
    left = np.maximum(shadow.backlog + arrivals.work - serving * dt, 0.0)
    late = np.clip((left / serving - settings.slack_s) / dt, 0.0, 1.0)
    keep = 0.5 ** (dt / settings.half_life_s)
    dropped = np.maximum(shadow.asked - asked, 0.0)
    scored = replace(
        shadow,
        with_margin=with_margin,
        backlog=left,
        missed=shadow.missed * keep + late * arrivals.requests,
        cost=shadow.cost * keep + asked * dt + dropped * (settings.churn * settings.startup_s),
        drops=shadow.drops * keep + dropped + np.maximum(shadow.with_margin - with_margin, 0.0),
    )
    return replace(state, shadow=scored.ask(asked, settings.steps), seen=state.seen * keep + arrivals.requests)


def _leader(state: StandbyState, trust: float, settings: StandbySettings) -> int | None:
    """Return the rule to apply: the steadiest of the cheapest admissible ones, or the current one if it is as good.

    Misses of even the most generous rule count against none.
    """
    if state.seen <= 0.0:
        return None
    shadow, rule = state.shadow, state.rule
    allowed = float(shadow.missed.min()) + settings.may_miss * trust * state.seen
    cost = np.where(shadow.missed <= allowed, shadow.cost, np.inf)
    least = float(cost.min())
    alike = np.flatnonzero(cost <= (1.0 + ALIKE) * least)
    # of equally steady rules the one with the fewest misses, then the cheapest
    order = np.lexsort((shadow.cost[alike], shadow.missed[alike], np.floor(shadow.drops[alike])))
    best = int(alike[order[0]])
    if rule is None or cost[rule] > (1.0 + LOYALTY) * least:
        return best
    return rule if shadow.drops[rule] <= _STEADIER * shadow.drops[best] + _FEW else best
