"""Scale to zero and back, for a pool with min_replicas 0.

Each second that the last replica is idle costs a replica-second; a restart costs the replica-seconds of its start-up.
Keeping the last replica idle for as long as a restart takes costs at most twice the optimum with known arrivals: the
ski-rental rule (Karlin, Manasse, Rudolph and Sleator, "Competitive snoopy caching", Algorithmica 3, 1988; for power
states: Irani, Shukla and Gupta, "Online strategies for dynamic power management in systems with multiple power-saving
states", ACM TECS 2, 2003). The same rule applies in the other direction: while other pools serve the requests of this
one, it stays at zero until that has lasted as long as a restart takes.

Missing metrics do not count as idle time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tierserve.autoscale.demand import Inputs, Recommendation
from tierserve.autoscale.history import History
from tierserve.autoscale.stabilization import LEAST_S
from tierserve.autoscale.types import Settings


@dataclass(frozen=True, slots=True)
class IdleState:
    """Idle time of a pool; times in Unix seconds.

    Attributes:
        busy: last time with a request in the system, or without metrics.
        asked: whether a request is in the system, or arrived since the previous observation.
        passed: the gateway's counter of requests that other pools served while this one was at zero.
        passing: first and last time of those without a longer pause; None: there were none.
    """

    busy: float
    has_work: bool = False
    bypassed_total: float = 0.0
    bypassed_between: tuple[float, float] | None = None


def idle_window_s(settings: Settings, startup_s: float) -> float:
    """Return the idle time before scaling to zero, seconds: as long as a restart takes.

    At least the shortest stabilization window.
    """
    if settings.idle_window_s is not None:
        return settings.idle_window_s
    return max(LEAST_S, startup_s)


def watch(idle: IdleState | None, before: History, v: Inputs) -> IdleState:
    """Return the idle state after one more observation.

    Args:
        quiet: what was known, None at first.
        before: the history without this observation.
        v: all that is known now.
    """
    arrived = v.history.marks[-1].arrivals - before.marks[-1].arrivals if before.marks else 0.0
    has_work = v.history.in_system > 0.0 or arrived > 0.0
    if idle is None:
        return IdleState(v.obs.t, has_work, v.history.gateway.bypassed if v.history.gateway else 0.0)
    starting = v.obs.running == 0 < v.obs.target  # a starting replica is not idle
    busy = v.obs.t if has_work or starting or _without_queue_length(v) else max(idle.busy, v.history.resumed)
    return replace(_with_bypassed(idle, v), busy=busy, has_work=has_work)


def _without_queue_length(v: Inputs) -> bool:
    """Return whether the gateway has stopped reporting its queue length."""
    return v.history.gateway is not None and v.history.source != "gateway"


def _with_bypassed(idle: IdleState, v: Inputs) -> IdleState:
    gateway, t = v.history.gateway, v.obs.t
    if gateway is None or _without_queue_length(v):
        return idle
    if v.obs.running > 0 or v.obs.target > 0:
        return replace(idle, bypassed_total=gateway.bypassed, bypassed_between=None)
    if gateway.bypassed <= idle.bypassed_total:  # none, or the counter was reset
        return replace(idle, bypassed_total=gateway.bypassed)
    first, last = idle.bypassed_between or (t, t)
    without_pause = t - last <= idle_window_s(v.settings, v.startup_s)
    return replace(idle, bypassed_total=gateway.bypassed, bypassed_between=(first if without_pause else t, t))


def apply_scale_to_zero(recommendation: Recommendation, idle: IdleState, v: Inputs) -> Recommendation:
    """Return the recommendation of a pool that may scale to zero: 0 after the idle time, at least 1 before.

    Args:
        recommendation: for the load.
        idle: after the last observation.
        v: all that is known now.
    """
    if idle.has_work or v.obs.running == 0 < v.obs.target:
        return _with_work(recommendation, idle, v)
    if v.obs.target == 0:
        return _at_zero(idle, v)
    if _without_queue_length(v):
        return recommendation.at_least(1, "idle", "not scaled to zero without the queue length of the gateway")
    idle_s, window_s = v.obs.t - idle.busy, idle_window_s(v.settings, v.startup_s)
    if idle_s >= window_s:
        return Recommendation(0, "idle", f"scaled to zero, no request for {idle_s:.0f} s; {_startup_text(v)}")
    reason = f"idle for {idle_s:.0f} s, scales to zero after {window_s:.0f} s; {_startup_text(v)}"
    return recommendation if recommendation.replicas > 1 else Recommendation(1, "idle", reason)


def _startup_text(v: Inputs) -> str:
    return f"start-up takes about {max(v.startup_s, 1.0):.0f} s"


def _with_work(recommendation: Recommendation, idle: IdleState, v: Inputs) -> Recommendation:
    if v.obs.running > 0:
        return recommendation.at_least(1, "idle", "requests in the system")
    waits = max(v.history.in_system, 1.0)
    reason = (
        f"scaling up from zero for {waits:.0f} request{'s' if waits > 1.0 else ''}; {_startup_text(v)}"
        if idle.has_work
        else ""
    )
    recommendation = recommendation.at_least(1, "idle", "")
    return (
        recommendation
        if recommendation.replicas > 1
        else replace(recommendation, reason=reason or f"scaling up from zero; {_startup_text(v)}")
    )


def _at_zero(idle: IdleState, v: Inputs) -> Recommendation:
    t, window_s = v.obs.t, idle_window_s(v.settings, v.startup_s)
    if idle.bypassed_between is None or t - idle.bypassed_between[1] > window_s:
        return Recommendation(0, "idle", f"scaled to zero, no request for {t - idle.busy:.0f} s; {_startup_text(v)}")
    bypassed_s = t - idle.bypassed_between[0]
    if bypassed_s >= window_s:
        return Recommendation(
            1,
            "idle",
            f"scaling up from zero, other pools have served its requests for {bypassed_s:.0f} s; {_startup_text(v)}",
        )
    return Recommendation(
        0, "idle", f"scaled to zero, other pools have served its requests for {bypassed_s:.0f} of {window_s:.0f} s"
    )
