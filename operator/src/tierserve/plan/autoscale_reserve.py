"""The need of a pool as experience has it: what `plan.reserve` learned, fed from the pool's own history."""

from __future__ import annotations

from tierserve.plan.autoscale_history import History, span
from tierserve.plan.autoscale_model import GatewaySample
from tierserve.plan.autoscale_need import Need, View, need, smooth
from tierserve.plan.reserve import Arrived, Reserve, ReserveSettings, learn

_CHANCE_S = 3.0
"""A queue that is longer than the slack allows by no more than this comes and goes at a load that replicas bear."""


def reserve_settings(v: View) -> ReserveSettings:
    """Return what the rules are judged by: the start-up time as learned, the slack that the objective leaves."""
    service_s = v.load.service_s + 1.645 * v.load.service_sd_s
    return ReserveSettings(
        startup_s=v.startup_s,
        slack_s=max(v.settings.target_s - service_s, 0.1 * v.load.service_s),
        may_miss=1.0 - v.settings.percentile / 100.0,
        gain=v.settings.reserve_gain,
    )


def with_experience(state: Reserve, before: History, v: View) -> Reserve:
    """Return what is known after the arrivals since the history before."""
    if not before.marks:
        return state
    new = span(before.marks[-1], v.history.marks[-1])
    answered, late = _answers(before.gateway, v.history.gateway)
    if state.rule is None or v.obs.running < state.serving:
        answered = late = 0.0  # the rule is not to blame for what was late before its replicas were there
    came = Arrived(new.seconds, new.arrivals * _work(v), new.arrivals, answered, late)
    return learn(state, came, reserve_settings(v))


def _work(v: View) -> float:
    """Seconds of a full replica that a request takes.

    By the profile, where there is one: what was seen of half-empty batches tells little of full ones.
    """
    return (v.settings.service_s if v.settings.profile else v.load.service_s) / v.settings.slots


def _answers(before: GatewaySample | None, now: GatewaySample | None) -> tuple[float, float]:
    if before is None or now is None or now.answered < before.answered or now.late < before.late:
        return 0.0, 0.0
    return now.answered - before.answered, now.late - before.late


def reserve_need(learned: Reserve, v: View) -> Need:
    """Return the replicas that the rule followed wants; where more waits than the slack allows, what Erlang C wants.

    A load beyond experience shows as a queue that is longer than it may be; then the load of now is staffed for as a
    pool without experience would.
    """
    if learned.rule is None:
        return need(v)
    settings = reserve_settings(v)
    n = learned.replicas(0.0, settings)
    found = Need(n, n, learned.why)
    waits_s = max(smooth(v.history) - v.slots_running, 0.0) * _work(v)
    late_s = waits_s - (settings.slack_s + min(settings.slack_s, _CHANCE_S)) * v.obs.running
    if late_s <= 0.0:
        return found
    now = need(v)
    found = found.or_more(learned.replicas(late_s, settings), f"{learned.why}, and for what waits too long")
    return found.or_more(now.up, now.why or "more waits than experience has a place for")
