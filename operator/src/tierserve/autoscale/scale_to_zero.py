"""When a pool whose floor is 0 goes to sleep (no replica), and when it wakes.

Every second that the last replica stands idle costs a replica-second; to start another one costs as many as it takes to
start, for it is paid for and serves nobody. Who does not know when the next request comes pays at most twice what he
would if he knew by keeping the last replica idle for just as long as a restart costs: the rule of ski rental (Karlin,
Manasse, Rudolph and Sleator, "Competitive snoopy caching", Algorithmica 3, 1988; for machines that go to sleep: Irani,
Shukla and Gupta, "Online strategies for dynamic power management in systems with multiple power-saving states", ACM
TECS 2, 2003). The same holds the other way round: while others serve what would come here first, sleep goes on until
that has gone on for as long.

Silence of the metrics is not quiet: only what was seen to be idle counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tierserve.autoscale.demand import Inputs, Recommendation
from tierserve.autoscale.history import History
from tierserve.autoscale.types import Settings


@dataclass(frozen=True, slots=True)
class IdleState:
    """Since when nothing has been asked of a pool; times in Unix seconds.

    Attributes:
        busy: when a request was there last, or when that could not be known.
        asked: whether one is there now, or came since the observation before.
        passed: the gateway's counter of requests that passed the sleeping pool by.
        passing: first and last time of those that passed without a longer pause; None: none has.
    """

    busy: float
    has_work: bool = False
    bypassed_total: float = 0.0
    bypassed_between: tuple[float, float] | None = None


def idle_window_s(settings: Settings, startup_s: float) -> float:
    """Return the seconds that the last replica stands idle before it goes: as many as a restart costs.

    No less than the window that governs going down at all.
    """
    if settings.idle_window_s is not None:
        return settings.idle_window_s
    return max(settings.scale_down_window_s, startup_s)


def watch(idle: IdleState | None, before: History, v: Inputs) -> IdleState:
    """Return what is known of the quiet after one more observation.

    Args:
        quiet: what was known, None at first.
        before: the history without this observation.
        v: all that is known now.
    """
    arrived = v.history.marks[-1].arrivals - before.marks[-1].arrivals if before.marks else 0.0
    has_work = v.history.in_system > 0.0 or arrived > 0.0
    if idle is None:
        return IdleState(v.obs.t, has_work, v.history.gateway.bypassed if v.history.gateway else 0.0)
    starting = v.obs.running == 0 < v.obs.target  # a replica that is on its way does not stand idle
    busy = v.obs.t if has_work or starting or _without_queue_length(v) else max(idle.busy, v.history.resumed)
    return replace(_with_bypassed(idle, v), busy=busy, has_work=has_work)


def _without_queue_length(v: Inputs) -> bool:
    """Tell whether the gateway, which used to tell what waits there, tells nothing."""
    return v.history.gateway is not None and v.history.source != "gateway"


def _with_bypassed(idle: IdleState, v: Inputs) -> IdleState:
    gateway, t = v.history.gateway, v.obs.t
    if gateway is None or _without_queue_length(v):
        return idle
    if v.obs.running > 0 or v.obs.target > 0:
        return replace(idle, bypassed_total=gateway.bypassed, bypassed_between=None)
    if gateway.bypassed <= idle.bypassed_total:  # none, or it counts anew
        return replace(idle, bypassed_total=gateway.bypassed)
    first, last = idle.bypassed_between or (t, t)
    without_pause = t - last <= idle_window_s(v.settings, v.startup_s)
    return replace(idle, bypassed_total=gateway.bypassed, bypassed_between=(first if without_pause else t, t))


def apply_scale_to_zero(recommendation: Recommendation, idle: IdleState, v: Inputs) -> Recommendation:
    """Return the need of a pool that may sleep: none after a quiet that is long enough, at least one replica before.

    Args:
        found: the need by the load, which knows nothing of sleep.
        quiet: after the last observation.
        v: all that is known now.
    """
    if idle.has_work or v.obs.running == 0 < v.obs.target:
        return _with_work(recommendation, idle, v)
    if v.obs.target == 0:
        return _at_zero(idle, v)
    if _without_queue_length(v):
        return _at_least_one(recommendation, "not scaled to zero without the queue length of the gateway")
    idle_s, window_s = v.obs.t - idle.busy, idle_window_s(v.settings, v.startup_s)
    if idle_s >= window_s:
        return Recommendation(0, 0, f"scaled to zero, no request for {idle_s:.0f} s; {_startup_text(v)}")
    reason = f"idle for {idle_s:.0f} s, scales to zero after {window_s:.0f} s; {_startup_text(v)}"
    return recommendation if recommendation.up > 1 else Recommendation(1, max(recommendation.down, 1), reason)


def _startup_text(v: Inputs) -> str:
    return f"start-up takes about {max(v.startup_s, 1.0):.0f} s"


def _at_least_one(recommendation: Recommendation, reason: str) -> Recommendation:
    more = recommendation.at_least(1, reason)
    return replace(more, down=max(more.down, 1))


def _with_work(recommendation: Recommendation, idle: IdleState, v: Inputs) -> Recommendation:
    if v.obs.running > 0:
        return _at_least_one(recommendation, "requests in the system")
    waits = max(v.history.in_system, 1.0)
    reason = (
        f"scaling up from zero for {waits:.0f} request{'s' if waits > 1.0 else ''}; {_startup_text(v)}"
        if idle.has_work
        else ""
    )
    recommendation = _at_least_one(recommendation, "")
    return (
        recommendation
        if recommendation.up > 1
        else replace(recommendation, reason=reason or f"scaling up from zero; {_startup_text(v)}")
    )


def _at_zero(idle: IdleState, v: Inputs) -> Recommendation:
    t, window_s = v.obs.t, idle_window_s(v.settings, v.startup_s)
    if idle.bypassed_between is None or t - idle.bypassed_between[1] > window_s:
        return Recommendation(0, 0, f"scaled to zero, no request for {t - idle.busy:.0f} s; {_startup_text(v)}")
    bypassed_s = t - idle.bypassed_between[0]
    if bypassed_s >= window_s:
        return Recommendation(
            1,
            1,
            f"scaling up from zero, other pools have served its requests for {bypassed_s:.0f} s; {_startup_text(v)}",
        )
    return Recommendation(
        0, 0, f"scaled to zero, other pools have served its requests for {bypassed_s:.0f} of {window_s:.0f} s"
    )
