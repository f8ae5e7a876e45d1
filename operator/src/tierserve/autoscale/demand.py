"""Replicas recommended for the current demand, by three estimates, with the reason.

Steady: Erlang C for the objective at the estimated load, or one slot for each of a constant number of connections.
Surge: requests in the system beyond random fluctuation. Ramp: the load reached by a steady rise within the start-up
time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tierserve.autoscale.history import History, Span
from tierserve.autoscale.load import Load
from tierserve.autoscale.sizing import Demand, reachable, replicas_for, response_quantile, wait_probability
from tierserve.autoscale.trend import ramp_rate
from tierserve.autoscale.types import Observation, Settings

_CHANCE = 1e-6  # P(queue) at the estimated load below which it is a surge: one false alarm in some days of decisions
_LEVEL_WINDOW_S, _LEVEL_SERVICES, _LEVEL_VARIANCE = 5.0, 5.0, 0.2  # variance to mean
_SMOOTH_S = 1.5  # replicas are sampled one by one, each about once a second


@dataclass(frozen=True, slots=True)
class Inputs:
    """Inputs of a recommendation: history, load estimate, observation, settings, learned start-up time."""

    history: History
    load: Load
    obs: Observation
    settings: Settings
    startup_s: float
    backlog_age_s: float = 0.0

    @property
    def demand(self) -> Demand:
        """The demand at the estimated load."""
        load = self.load
        return Demand(load.rate * load.service_s, load.service_s, load.service_sd_s, load.peakedness)

    @property
    def slots_running(self) -> int:
        """Slots of the running replicas."""
        return self.obs.running * self.settings.slots

    @property
    def tick_s(self) -> float:
        """Seconds until the next decision, taken as those since the last one."""
        marks = self.history.marks
        return max(marks[-1].t - marks[-2].t, 1.0) if len(marks) > 1 else 1.0

    @property
    def backlog(self) -> float:
        """Requests in the system beyond the running slots."""
        return max(smooth(self.history) - self.slots_running, 0.0)

    @property
    def slot_for_each(self) -> int:
        """Replicas with one slot for each request in the system, plus the headroom."""
        return max(self.hold(smooth(self.history)), 1)

    def connections(self) -> float | None:
        """Return the constant number of connections of a closed-loop load; None for other loads.

        One more is counted where a full pool may hide a queue.
        """
        h = self.history
        if not self.load.closed or not h.marks or not self.is_level():
            return None
        return round(self._recent().in_system) + (1 if h.source == "in system" else 0)

    def is_level(self) -> bool:
        """Return whether the number in the system is constant, as in a closed loop."""
        seen = self._recent()
        return seen.in_system_variance <= _LEVEL_VARIANCE * (seen.in_system + 1.0)

    def _recent(self) -> Span:
        # within a few service times the number in the system of any stream is nearly constant
        window_s = max(_LEVEL_WINDOW_S, _LEVEL_SERVICES * self.load.service_s)
        return self.history.since(max(self.load.began, self.history.now - window_s))

    def replicas(self, load: float) -> int:
        """Return the replicas that meet the objective at this offered load (erlangs) plus the headroom."""
        grown = self.demand.at(load * (1.0 + self.settings.headroom))
        return replicas_for(grown, self.settings.objective, self.settings.slots)

    def hold(self, requests: float) -> int:
        """Return the replicas with one slot for each of `requests`, plus the headroom."""
        return math.ceil(round(requests * (1.0 + self.settings.headroom), 9) / self.settings.slots)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Replicas recommended now (`up`), those that count in the scale-down window (`down`), and the reason."""

    up: int
    down: int
    reason: str

    def at_least(self, n: int, reason: str) -> Recommendation:
        """Return the larger of this recommendation and `n` replicas."""
        return Recommendation(n, max(n, self.down), reason) if n > self.up else self


def smooth(h: History) -> float:
    """Return the requests in the system; smoothed where replicas are sampled one by one."""
    if h.exact or len(h.marks) < 2:
        return h.in_system
    return max(h.since(h.now - _SMOOTH_S).in_system, min(h.in_system, h.in_system_before))


def _drain_s(v: Inputs) -> float:
    """Return the seconds in which a backlog is to be drained: at least as long as it took to build up.

    Otherwise the target would run away while replicas start. (A closed loop does not build a backlog: `_steady` gives
    each connection a slot.)
    """
    service_s = v.load.service_s
    base = v.settings.drain_s or max(service_s, v.settings.target_s - service_s)
    return max(base, v.backlog_age_s)


def _by_chance(backlog: float, servers: float, demand: Demand) -> bool:
    """Return whether a backlog is plausible at the estimated load (tail of the M/M/c queue length)."""
    if backlog < 1.0:
        return True
    if servers <= demand.load or demand.load <= 0.0:
        return False
    decay = math.exp(math.log(demand.load / servers) * backlog / demand.peakedness)
    return wait_probability(servers, demand) * decay > _CHANCE


def _surge(v: Inputs) -> float:
    """Return the slots for the requests in the system; 0 while randomness or the rate explains them."""
    level, demand = smooth(v.history), v.demand
    servers = max(v.obs.target, v.obs.running) * v.settings.slots
    if not v.load.young(v.history.now) and _by_chance(v.backlog, servers, demand):
        return 0.0
    if demand.load <= 0.0:
        return level
    # replicas started for the queue do not indicate load; busy ones do, while the estimate is young
    busy = v.slots_running if v.load.young(v.history.now) else 0
    return min(level, max(demand.load, busy) + v.backlog * v.load.service_s / _drain_s(v))


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"


def _steady_reason(n: int, v: Inputs) -> str:
    demand, settings = v.demand, v.settings
    if n <= 0:
        return "no traffic"
    if not reachable(demand, settings.objective):
        alone = response_quantile(1.0, demand.at(0.0), settings.percentile)
        return f"service time alone ({_ms(alone)}) exceeds the target ({_ms(settings.target_s)}), sized for rare waits"
    if n == 1:
        return f"one replica meets the target at {demand.load:.1f} erlangs"
    fewer = response_quantile((n - 1) * settings.slots, demand, settings.percentile)
    if not math.isfinite(fewer):
        return f"{n - 1} cannot carry {demand.load:.1f} erlangs"
    return f"{n - 1} would miss the target by {_ms(max(fewer - settings.target_s, 0.0))}"


def _steady(v: Inputs) -> Recommendation:
    load = v.demand.load
    n = v.replicas(load)
    connections = v.connections()
    if connections is not None:
        level = v.hold(connections)
        return Recommendation(
            level, level, f"one slot for each of {connections:.0f} connections" if level else "no traffic"
        )
    if v.load.closed:  # it has just changed: a connection uses at most one slot
        n = min(n, v.slot_for_each)
        return Recommendation(n, n, "")
    if v.load.mean_rate > v.load.rate and v.replicas(v.load.mean_rate * v.load.service_s) > n:
        n = v.replicas(v.load.guarded_rate * v.load.service_s)  # the settled rate has turned out too low
    down = max(n, v.replicas(load * (1.0 + v.settings.scale_down_margin)))
    # Synchronised connections make the rate jump; while their number is constant, one slot each is enough.
    return Recommendation(min(n, v.slot_for_each) if v.is_level() else n, down, "")


def recommend(v: Inputs) -> Recommendation:
    """Return the largest of the three recommendations."""
    recommendation = _steady(v)
    surge = _surge(v)
    n = math.ceil(round(surge, 3) / v.settings.slots)
    recommendation = recommendation.at_least(
        n, f"{smooth(v.history):.0f} requests in the system require {surge:.0f} slots"
    )
    # In a closed loop the rate rises because replicas were added, not because more connections arrive.
    still = v.load.closed or v.is_level()
    ahead = None if still else ramp_rate(v.history, v.startup_s + v.tick_s, v.settings.confidence)
    if ahead is not None:
        reason = f"arrival rate rises to {ahead:.1f}/s within the start-up time ({v.startup_s:.0f} s)"
        recommendation = recommendation.at_least(v.replicas(ahead * v.load.service_s), reason)
    return (
        recommendation
        if recommendation.reason
        else replace(recommendation, reason=_steady_reason(recommendation.up, v))
    )
