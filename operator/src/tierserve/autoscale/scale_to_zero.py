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

from tierserve.autoscale.demand import Need, View
from tierserve.autoscale.history import History
from tierserve.autoscale.types import Settings


@dataclass(frozen=True, slots=True)
class Quiet:
    """Since when nothing has been asked of a pool; times in Unix seconds.

    Attributes:
        busy: when a request was there last, or when that could not be known.
        asked: whether one is there now, or came since the observation before.
        passed: the gateway's counter of requests that passed the sleeping pool by.
        passing: first and last time of those that passed without a longer pause; None: none has.
    """

    busy: float
    asked: bool = False
    passed: float = 0.0
    passing: tuple[float, float] | None = None


def idle_window_s(settings: Settings, startup_s: float) -> float:
    """Return the seconds that the last replica stands idle before it goes: as many as a restart costs.

    No less than the window that governs going down at all.
    """
    if settings.idle_window_s is not None:
        return settings.idle_window_s
    return max(settings.scale_down_window_s, startup_s)


def watch(quiet: Quiet | None, before: History, v: View) -> Quiet:
    """Return what is known of the quiet after one more observation.

    Args:
        quiet: what was known, None at first.
        before: the history without this observation.
        v: all that is known now.
    """
    came = v.history.marks[-1].arrivals - before.marks[-1].arrivals if before.marks else 0.0
    asked = v.history.in_system > 0.0 or came > 0.0
    if quiet is None:
        return Quiet(v.obs.t, asked, v.history.gateway.passed if v.history.gateway else 0.0)
    starting = v.obs.running == 0 < v.obs.target  # a replica that is on its way does not stand idle
    busy = v.obs.t if asked or starting or _is_blind(v) else max(quiet.busy, v.history.resumed)
    return replace(_with_passers(quiet, v), busy=busy, asked=asked)


def _is_blind(v: View) -> bool:
    """Tell whether the gateway, which used to tell what waits there, tells nothing."""
    return v.history.gateway is not None and v.history.source != "gateway"


def _with_passers(quiet: Quiet, v: View) -> Quiet:
    gateway, t = v.history.gateway, v.obs.t
    if gateway is None or _is_blind(v):
        return quiet
    if v.obs.running > 0 or v.obs.target > 0:
        return replace(quiet, passed=gateway.passed, passing=None)
    if gateway.passed <= quiet.passed:  # none, or it counts anew
        return replace(quiet, passed=gateway.passed)
    first, last = quiet.passing or (t, t)
    without_pause = t - last <= idle_window_s(v.settings, v.startup_s)
    return replace(quiet, passed=gateway.passed, passing=(first if without_pause else t, t))


def with_sleep(found: Need, quiet: Quiet, v: View) -> Need:
    """Return the need of a pool that may sleep: none after a quiet that is long enough, at least one replica before.

    Args:
        found: the need by the load, which knows nothing of sleep.
        quiet: after the last observation.
        v: all that is known now.
    """
    if quiet.asked or v.obs.running == 0 < v.obs.target:
        return _awake(found, quiet, v)
    if v.obs.target == 0:
        return _asleep(quiet, v)
    if _is_blind(v):
        return _one_or_more(found, "no sleep while the gateway does not tell what waits")
    idle_s, window_s = v.obs.t - quiet.busy, idle_window_s(v.settings, v.startup_s)
    if idle_s >= window_s:
        return Need(0, 0, f"asleep, no request for {idle_s:.0f} s; {_start(v)}")
    why = f"idle for {idle_s:.0f} s, sleeps after {window_s:.0f} s; {_start(v)}"
    return found if found.up > 1 else Need(1, max(found.down, 1), why)


def _start(v: View) -> str:
    return f"a start takes about {max(v.startup_s, 1.0):.0f} s"


def _one_or_more(found: Need, why: str) -> Need:
    more = found.or_more(1, why)
    return replace(more, down=max(more.down, 1))


def _awake(found: Need, quiet: Quiet, v: View) -> Need:
    if v.obs.running > 0:
        return _one_or_more(found, "requests are there")
    waits = max(v.history.in_system, 1.0)
    why = f"woken by {waits:.0f} request{'s' if waits > 1.0 else ''}; {_start(v)}" if quiet.asked else ""
    found = _one_or_more(found, "")
    return found if found.up > 1 else replace(found, why=why or f"waking; {_start(v)}")


def _asleep(quiet: Quiet, v: View) -> Need:
    t, window_s = v.obs.t, idle_window_s(v.settings, v.startup_s)
    if quiet.passing is None or t - quiet.passing[1] > window_s:
        return Need(0, 0, f"asleep, no request for {t - quiet.busy:.0f} s; {_start(v)}")
    passing_s = t - quiet.passing[0]
    if passing_s >= window_s:
        return Need(1, 1, f"woken: for {passing_s:.0f} s others have served what comes here first; {_start(v)}")
    return Need(0, 0, f"asleep; others have served what comes here first for {passing_s:.0f} s of {window_s:.0f} s")
