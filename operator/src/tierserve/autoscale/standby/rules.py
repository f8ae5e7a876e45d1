"""How many replicas to keep ready for what may come before more can start, learned from what has come so far.

No forecast tells a burst that is shorter than the time to start a replica: it is borne by replicas that stand ready, or
it is not borne. How many that takes is a matter of experience, so experience decides. Many simple rules, each

    max(S, h x the highest load of the last W seconds)  replicas, or
    max(S, h x the higher of the load now and that forecast for when a replica asked for now will serve),

run side by side on the arrivals as they come, each with replicas of its own that exist on paper only: they start as
slowly as real ones and bear the same work, and what they bear too late is counted against the rule. Of those that kept
the objective the cheapest is followed; of those that cost about as much, the one that gives up replicas the least
often. As all rules are played on the same arrivals, nothing has to be explored: prediction with expert advice
(Cesa-Bianchi and Lugosi, "Prediction, Learning, and Games", 2006, ch. 2), as follow-the-leader under a constraint.

Paper is patient: what it leaves out (batches that slow down, long prompts before short ones) is made good by the share
of the objective that a rule may use up on paper. It follows the error budget: less of it where more requests are late
in truth than may be, more where fewer are (as in adaptive conformal inference, Gibbs and Candes, NeurIPS 2021).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

HOLD_S = (0.0, 60.0, 150.0, 300.0, 600.0, 1200.0, 4800.0)
"""W: seconds for which a load is remembered."""
HEADROOM = (0.7, 0.77, 0.85, 0.92, 1.0, 1.2, 1.5, 2.0)
"""h: factors on it. (Under 1: where some may wait, a peak need not be met.)"""
STANDING = tuple(1.2**k for k in range(40))
"""S: replicas that stand ready whatever was seen, from 1 to 1,200."""
MOST_STEPS = 60
"""Of the paper replicas' clock in one start-up time; fewer where they would be shorter than half a second."""
_SHORTEST_STEP_S = 0.5
_MINUTE_S = 60.0
_LEAST_TRUST, _MOST_TRUST = 0.02, 3.0
BUDGET_STARTS = 20.0
"""Start-up times after which what was late in truth counts half: sooner than that nothing that is done shows."""
WARM_STARTS = 2.0
"""Start-up times for which it only looks on, or two minutes."""
_PRIOR_ANSWERS = 1000.0
ALIKE = 0.02
"""Rules that cost so much more than the cheapest are as good as it."""
LOYALTY = 0.03
"""By how much cheaper another rule must be to be followed: else two that cost as much take turns."""
_STEADIER, _FEW = 1.5, 2.0  # of drops: so many times those of the steadiest of the cheapest, and so many more
_MARGIN = 1.1
"""Drops are counted at the load and at a tenth more: a rule that just does not move has been lucky."""

_LOADS = ("current load", *(f"maximum load of the last {s:.0f} s" for s in HOLD_S[1:]), "current or forecast load")
_RULES = np.array([(w, h, s) for w in range(len(HOLD_S) + 1) for h in HEADROOM for s in STANDING])
_HOLD, _HEAD, _STAND = _RULES[:, 0].astype(np.int64), _RULES[:, 1].copy(), _RULES[:, 2].copy()


@dataclass(frozen=True, slots=True)
class StandbySettings:
    """What the rules are judged by; times in seconds.

    Attributes:
        startup_s: from a raised target to a replica that serves.
        slack_s: how long work may wait without missing the target.
        may_miss: share of the requests that may miss it.
        trust: share of `may_miss` that a rule may use up on paper where the error budget is just used up in truth.
        gain: by how much that share falls (as a logarithm) for each time that the budget is used up in truth; 0: never.
        half_life_s: after so long experience counts half.
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
        """Steps of the paper replicas' clock in one start-up time."""
        return min(max(round(self.startup_s / _SHORTEST_STEP_S), 1), MOST_STEPS)

    @property
    def step_s(self) -> float:
        """Seconds of one of them."""
        return max(self.startup_s / self.steps, _SHORTEST_STEP_S)

    @property
    def drain_s(self) -> float:
        """Seconds in which what waits is worked off: as long as help takes to come, for later it would find it gone."""
        return max(self.startup_s, 4.0 * self.slack_s)


class Arrivals(NamedTuple):
    """What came in some time.

    Attributes:
        seconds: how long.
        work: seconds that a full replica needs for what came.
        requests: how many came.
        answered, late: how many were answered in truth, and of these how many too late.
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
    """The rules and their replicas on paper; arrays have one value per rule and are never written to.

    `asked`: what the rules ask for; `with_margin`: what they would at `_MARGIN` of the load; `backlog`: seconds of work
    that waits; `missed`, `cost`, `drops`: requests too late, replica-seconds and replicas given up, discounted.
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
        """Replicas that were asked for a whole start-up time ago, and ever since."""
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
    """What was learned so far. Start with `StandbyState()`.

    Attributes:
        t: seconds since the first call.
        came: what came since the last step.
        fast, slow: load in replicas, over the slack and over a minute.
        peaks: the highest loads, one per window of `HOLD_S`.
        ahead: load in replicas that is forecast for when a replica asked for now will serve; 0 where none is.
        paper: the rules' replicas.
        seen: requests, discounted.
        answered, late: answers in truth and those too late, discounted over `BUDGET_STARTS` start-ups.
        trust: share of `may_miss` that a rule may use up now.
        own_from: Unix seconds from which on what is late in truth is the rule's own; inf while its replicas are not all
            there, or what waited before they were is not yet served.
        rule: the one that is followed.
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
        """Replicas that the rule followed wants now, 0 while nothing was learned.

        Args:
            backlog_s: work that waits in truth, seconds of a full replica; on paper there may be less.
            settings: as given to `learn`.
        """
        if self.rule is None:
            return 0
        standing = float(max(_STAND[self.rule], _HEAD[self.rule] * self.loads[_HOLD[self.rule]]))
        return math.ceil(standing + backlog_s / settings.drain_s - 1e-9)

    @property
    def loads(self) -> tuple[float, ...]:
        """Loads that rules go by: the highest of each window of `HOLD_S`, and the forecast one where it is higher."""
        highest = tuple(peak.load for peak in self.peaks)
        return (*highest, max(highest[0], self.ahead))

    @property
    def serving(self) -> int:
        """Replicas that the rule followed has serving now, on paper."""
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
        came: arrivals of the time since then.
        settings: may change between calls.
        ahead: load in replicas that is forecast for when a replica asked for now will serve; 0 where none is.
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
    """Play one step of all rules."""
    t, dt, shadow = state.t + arrivals.seconds, arrivals.seconds, state.shadow
    load = arrivals.work / dt
    fast = _towards(state.fast, load, dt, max(settings.slack_s, 2.0 * dt))
    slow = _towards(state.slow, load, dt, _MINUTE_S)
    peaks = tuple(p.add(t, max(fast, slow), w) for p, w in zip(state.peaks, HOLD_S, strict=True))
    state = replace(state, t=t, fast=fast, slow=slow, peaks=peaks)
    wanted = _HEAD * np.array(state.loads)[_HOLD]
    # as in truth: what waits no longer than it may asks for nobody
    helpers = np.maximum(shadow.backlog - settings.slack_s * shadow.asked, 0.0) / settings.drain_s - 1e-9
    asked = np.ceil(np.maximum(wanted, _STAND) + helpers)
    with_margin = np.ceil(np.maximum(_MARGIN * wanted, _STAND) + helpers)
    # loads are not known yet, and no rule is judged by its first guess
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
    """The rule to follow: the steadiest of the cheapest that may be trusted, or that followed so far if it will do.

    What even the most generous one missed is no rule's fault.
    """
    if state.seen <= 0.0:
        return None
    shadow, rule = state.shadow, state.rule
    allowed = float(shadow.missed.min()) + settings.may_miss * trust * state.seen
    cost = np.where(shadow.missed <= allowed, shadow.cost, np.inf)
    least = float(cost.min())
    alike = np.flatnonzero(cost <= (1.0 + ALIKE) * least)
    # of those as steady the one with the fewest late on paper, and of these the cheapest
    order = np.lexsort((shadow.cost[alike], shadow.missed[alike], np.floor(shadow.drops[alike])))
    best = int(alike[order[0]])
    if rule is None or cost[rule] > (1.0 + LOYALTY) * least:
        return best
    return rule if shadow.drops[rule] <= _STEADIER * shadow.drops[best] + _FEW else best
