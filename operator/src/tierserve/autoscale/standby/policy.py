"""Standby policy of a pool: feeds `autoscale.standby.rules` from the history, and applies the chosen rule."""

from __future__ import annotations

import math
from dataclasses import replace

from tierserve.autoscale.demand import Inputs, Recommendation, recommend, smooth
from tierserve.autoscale.history import History, span
from tierserve.autoscale.standby.rules import Arrivals, StandbySettings, StandbyState, learn
from tierserve.autoscale.types import GatewaySample

_CHANCE_S = 3.0
"""Seconds beyond the slack that a queue reaches at random, at a load below capacity."""
_SERVED = 2.0
"""Service times until the last admitted request is answered."""


def standby_settings(v: Inputs) -> StandbySettings:
    """Return the settings of the rules: learned start-up time, slack of the objective."""
    return StandbySettings(
        startup_s=v.startup_s,
        slack_s=max(v.settings.target_s - _service_s(v), 0.1 * v.load.service_s),
        may_miss=1.0 - v.settings.percentile / 100.0,
        gain=v.settings.standby_gain,
    )


def update_standby(state: StandbyState, before: History, v: Inputs, ahead_rate: float = 0.0) -> StandbyState:
    """Return the state after the arrivals since the previous history.

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
    state = _with_attribution(state, v)
    if v.history.now < state.own_from:
        answered = late = 0.0
    arrivals = Arrivals(new.seconds, new.arrivals * _work(v), new.arrivals, answered, late)
    return learn(state, arrivals, standby_settings(v), ahead_rate * _work(v))


def _with_attribution(state: StandbyState, v: Inputs) -> StandbyState:
    """Set the time from which late responses count against the rule in force.

    Requests that were late before its replicas were ready do not count, nor those queued until then: these must have
    been served first.
    """
    if state.rule is None or v.obs.running < state.serving:
        return replace(state, own_from=math.inf)
    if math.isinf(state.own_from) and v.backlog < 1.0:
        return replace(state, own_from=v.history.now + _SERVED * _service_s(v))
    return state


def _full_s(v: Inputs) -> float:
    """Mean seconds of service in a full replica; by the profile, where there is one.

    Half-empty batches say little about full ones, and a burst meets full ones.
    """
    return v.settings.service_s if v.settings.profile else v.load.service_s


def _service_s(v: Inputs) -> float:
    """Seconds that nearly all services in a full replica take."""
    return _full_s(v) + 1.645 * v.load.service_sd_s


def _work(v: Inputs) -> float:
    """Seconds of a full replica that a request takes."""
    return _full_s(v) / v.settings.slots


def _answers(before: GatewaySample | None, now: GatewaySample | None) -> tuple[float, float]:
    if before is None or now is None or now.answered < before.answered or now.late < before.late:
        return 0.0, 0.0
    return now.answered - before.answered, now.late - before.late


def standby_recommendation(standby: StandbyState, v: Inputs) -> Recommendation:
    """Return the replicas of the rule in force; where the queue exceeds the slack, at least those of Erlang C.

    A load that the rules have not seen shows as a queue beyond the slack; then the pool is sized for the current load
    as without standby rules. A constant number of connections has one slot each, whatever the rule.
    """
    if standby.rule is None:
        return recommend(v)
    settings = standby_settings(v)
    n = standby.replicas(0.0, settings)
    recommendation = Recommendation(n, n, standby.reason)
    connections = v.connections()
    if connections is not None:
        recommendation = recommendation.at_least(
            v.hold(connections), f"one slot for each of {connections:.0f} connections"
        )
    waits_s = max(smooth(v.history) - v.slots_running, 0.0) * _work(v)
    late_s = waits_s - (settings.slack_s + min(settings.slack_s, _CHANCE_S)) * v.obs.running
    if late_s <= 0.0:
        if math.isinf(standby.own_from) and waits_s > 0.0:
            return recommendation.at_least(
                standby.replicas(waits_s, settings), f"{standby.reason}, plus the backlog of the start-up time"
            )
        return recommendation
    now = recommend(v)
    recommendation = recommendation.at_least(
        standby.replicas(late_s, settings), f"{standby.reason}, plus the backlog beyond the target"
    )
    return recommendation.at_least(now.up, now.reason or "queue exceeds what the standby rule covers")
