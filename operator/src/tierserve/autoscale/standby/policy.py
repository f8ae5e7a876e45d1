"""The need of a pool as experience has it: what `autoscale.standby.rules` learned, fed from the pool's own history."""

from __future__ import annotations

import math
from dataclasses import replace

from tierserve.autoscale.demand import Need, View, need, smooth
from tierserve.autoscale.history import History, span
from tierserve.autoscale.standby.rules import Arrived, Reserve, ReserveSettings, learn
from tierserve.autoscale.types import GatewaySample

_CHANCE_S = 3.0
"""A queue that is longer than the slack allows by no more than this comes and goes at a load that replicas bear."""
_SERVED = 2.0
"""Service times in which what was let in last is answered."""


def reserve_settings(v: View) -> ReserveSettings:
    """Return what the rules are judged by: the start-up time as learned, the slack that the objective leaves."""
    return ReserveSettings(
        startup_s=v.startup_s,
        slack_s=max(v.settings.target_s - _service_s(v), 0.1 * v.load.service_s),
        may_miss=1.0 - v.settings.percentile / 100.0,
        gain=v.settings.reserve_gain,
    )


def with_experience(state: Reserve, before: History, v: View, ahead_rate: float = 0.0) -> Reserve:
    """Return what is known after the arrivals since the history before.

    Args:
        state: what the last call returned.
        before: the history at that call.
        v: all that is known now.
        ahead_rate: arrivals per second that are forecast for when a replica asked for now will serve; 0 where none is.
    """
    if not before.marks:
        return state
    new = span(before.marks[-1], v.history.marks[-1])
    answered, late = _answers(before.gateway, v.history.gateway)
    state = _with_blame(state, v)
    if v.history.now < state.own_from:
        answered = late = 0.0
    came = Arrived(new.seconds, new.arrivals * _work(v), new.arrivals, answered, late)
    return learn(state, came, reserve_settings(v), ahead_rate * _work(v))


def _with_blame(state: Reserve, v: View) -> Reserve:
    """Say from when on late answers are the rule's own.

    It is not to blame for what was late before its replicas were there, nor for what has waited since: that must have
    been served, which shows when the last of it is answered.
    """
    if state.rule is None or v.obs.running < state.serving:
        return replace(state, own_from=math.inf)
    if math.isinf(state.own_from) and v.backlog < 1.0:
        return replace(state, own_from=v.history.now + _SERVED * _service_s(v))
    return state


def _full_s(v: View) -> float:
    """Mean seconds of service in a full replica; by the profile, where there is one.

    What was seen of half-empty batches tells little of full ones, and it is full ones that a burst meets.
    """
    return v.settings.service_s if v.settings.profile else v.load.service_s


def _service_s(v: View) -> float:
    """Seconds that nearly all services in a full replica take."""
    return _full_s(v) + 1.645 * v.load.service_sd_s


def _work(v: View) -> float:
    """Seconds of a full replica that a request takes."""
    return _full_s(v) / v.settings.slots


def _answers(before: GatewaySample | None, now: GatewaySample | None) -> tuple[float, float]:
    if before is None or now is None or now.answered < before.answered or now.late < before.late:
        return 0.0, 0.0
    return now.answered - before.answered, now.late - before.late


def reserve_need(learned: Reserve, v: View) -> Need:
    """Return the replicas that the rule followed wants; where more waits than the slack allows, what Erlang C wants.

    A load beyond experience shows as a queue that is longer than it may be; then the load of now is staffed for as a
    pool without experience would. A constant number of connections has a slot each, whatever the rule.
    """
    if learned.rule is None:
        return need(v)
    settings = reserve_settings(v)
    n = learned.replicas(0.0, settings)
    found = Need(n, n, learned.why)
    connections = v.connections()
    if connections is not None:
        found = found.or_more(v.hold(connections), f"{connections:.0f} connections, a slot for each")
    waits_s = max(smooth(v.history) - v.slots_running, 0.0) * _work(v)
    late_s = waits_s - (settings.slack_s + min(settings.slack_s, _CHANCE_S)) * v.obs.running
    if late_s <= 0.0:
        if math.isinf(learned.own_from) and waits_s > 0.0:
            return found.or_more(learned.replicas(waits_s, settings), f"{learned.why}, and for what waited for them")
        return found
    now = need(v)
    found = found.or_more(learned.replicas(late_s, settings), f"{learned.why}, and for what waits too long")
    return found.or_more(now.up, now.why or "more waits than experience has a place for")
