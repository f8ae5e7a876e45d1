"""Replicas recommended for the current demand, with the reason: the largest of three numbers.

Erlang C: for the arrival rate that is forecast for the end of the start-up time (autoscale.rate), or one slot for each
of a constant number of connections. Replay: what the arrivals of the stabilization window needed (autoscale.replay).
Backlog: what those who wait need, unless the replicas that serve will have worked it off before another one is ready.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tierserve.autoscale.history import History, Span
from tierserve.autoscale.load import Load
from tierserve.autoscale.rate import Rate
from tierserve.autoscale.sizing import load_to_carry, wait_allowed_s, wait_objective
from tierserve.autoscale.types import Observation, SetBy, Settings
from tierserve.queueing.sizing import Demand, reachable, replicas_for, response_quantile

_LEVEL_WINDOW_S, _LEVEL_SERVICES, _LEVEL_VARIANCE = 5.0, 5.0, 0.2  # variance to mean
_SMOOTH_S = 1.5  # replicas are sampled one by one, each about once a second
_NO_TRAFFIC = "no traffic"


@dataclass(frozen=True, slots=True)
class Inputs:
    """Inputs of a recommendation: history, load, observation, settings, learned start-up time, forecast rate.

    `margin` is a factor on the load (autoscale.budget).
    """

    history: History
    load: Load
    obs: Observation
    settings: Settings
    startup_s: float
    rate: Rate
    backlog_age_s: float = 0.0
    margin: float = 1.0

    @property
    def demand(self) -> Demand:
        """The demand at the forecast rate; clumps are the replay's."""
        load = self.load
        z = min(load.peakedness, 1.0)
        return Demand(self.rate.guarded * load.service_s, load.service_s, load.service_sd_s, z)

    @property
    def slots_running(self) -> int:
        """Slots of the running replicas."""
        return self.obs.running * self.settings.slots

    @property
    def backlog(self) -> float:
        """Requests in the system beyond the running slots."""
        return max(smooth(self.history) - self.slots_running, 0.0)

    @property
    def max_wait_s(self) -> float:
        """How long a request may wait and still meet the objective."""
        return max_wait_s(self.load, self.settings)

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

    def hold(self, requests: float) -> int:
        """Return the replicas with one slot for each of `requests`, plus the headroom."""
        return math.ceil(round(requests * (1.0 + self.settings.headroom), 9) / self.settings.slots)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Replicas recommended, what set the number (`types.SetBy`), and the reason."""

    replicas: int
    set_by: SetBy
    reason: str

    def at_least(self, n: int, set_by: SetBy, reason: str) -> Recommendation:
        """Return the larger of this recommendation and `n` replicas."""
        return Recommendation(n, set_by, reason) if n > self.replicas else self


def max_wait_s(load: Load, settings: Settings) -> float:
    """Return how long a request may wait and still meet the objective, seconds; a tenth of a service time at least."""
    return wait_allowed_s(load.service_s, settings.target_s, settings.max_wait_s)


def smooth(h: History) -> float:
    """Return the requests in the system; smoothed where replicas are sampled one by one."""
    if h.exact or len(h.marks) < 2:
        return h.in_system
    return max(h.since(h.now - _SMOOTH_S).in_system, min(h.in_system, h.in_system_before))


def recommend(v: Inputs, replayed: tuple[int, float], may_wait: float) -> Recommendation:
    """Return the largest of the three numbers.

    Args:
        v: all that is known now.
        replayed: replicas by the replay, and the share that one fewer would have kept waiting.
        may_wait: the share that the replay allows.
    """
    connections = v.connections()
    if connections is not None:
        n = v.hold(connections)
        return Recommendation(
            n, "connections", f"one slot for each of {connections:.0f} connections" if n else _NO_TRAFFIC
        )
    most = max(v.hold(smooth(v.history)), 1)  # one slot for each request in the system
    to_carry = load_to_carry(v.demand, v.settings.headroom, v.margin)
    n = replicas_for(to_carry, wait_objective(v.settings.percentile, v.max_wait_s), v.settings.slots)
    if v.load.closed or v.is_level():  # a connection uses at most one slot
        n = min(n, most)
    n_replay, fewer_late = replayed
    found = Recommendation(n, "erlang_c", _reason(n, v))
    found = found.at_least(
        n_replay,
        "replay",
        f"with one fewer {fewer_late:.1%} of the requests of the stabilization window would have waited too long, "
        f"{may_wait:.2%} may",
    )
    slots = _backlog_slots(v)
    return found.at_least(
        math.ceil(round(slots, 3) / v.settings.slots),
        "backlog",
        f"{v.backlog:.0f} requests wait, more than the replicas there will have served in {v.startup_s:.0f} s",
    )


def _backlog_slots(v: Inputs) -> float:
    """Return the slots for the load and the backlog; 0 while the replicas there or starting will work it off in time.

    It is to be worked off within a start-up time, or the time that it may wait or took to build up, whichever is
    longest: otherwise the target would run away while replicas start.
    """
    if v.backlog < 1.0:
        return 0.0
    service_s = v.load.service_s * v.margin
    load = v.rate.mean * service_s
    spare = max(v.obs.target, v.obs.running) * v.settings.slots - load
    if v.backlog * service_s <= spare * max(v.startup_s, v.max_wait_s):
        return 0.0
    return min(
        smooth(v.history), load + v.backlog * service_s / max(v.max_wait_s, service_s, v.startup_s, v.backlog_age_s)
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"


def _margin(v: Inputs) -> str:
    return f", times {v.margin:.2f} by the responses of full slots" if v.margin > 1.005 else ""


def _reason(n: int, v: Inputs) -> str:
    demand, settings, rate = v.demand, v.settings, v.rate
    if n <= 0:
        return _NO_TRAFFIC
    if not reachable(demand, settings.objective):
        alone = response_quantile(1.0, demand.at(0.0), settings.percentile)
        return f"service time alone ({_ms(alone)}) exceeds the target ({_ms(settings.target_s)}), sized for rare waits"
    load = (
        f"{demand.load:.1f} erlangs ({rate.mean:.2f}/s by the {rate.kind} of {rate.window_s:.0f} s, "
        f"off by {rate.error:.2f}/s so far){_margin(v)}"
    )
    if n == 1:
        return f"one replica meets the target at {load}"
    if (n - 1) * settings.slots <= demand.load * v.margin:
        return f"{n - 1} cannot carry {load}"
    return f"{n - 1} would miss the target at {load}"
