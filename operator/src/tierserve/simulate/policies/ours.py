"""TierServe's own decision, the code that runs in Ray Serve, and the same without some of its parts."""

from __future__ import annotations

from dataclasses import replace

from tierserve.autoscale.decide import GatewaySample, Observation, ReplicaSample, Settings, State, decide
from tierserve.simulate.policies.base import Rule
from tierserve.simulate.types import Pool, Snapshot

_TICKS_A_STARTUP = 60


class Ours:
    """`autoscale.decide`, given what gateway and replicas would report.

    Args:
        pool: the replicas.
        strictness: the share of requests that may miss, divided by this.
        settings: parts to change, of `autoscale.decide.Settings`.
    """

    def __init__(self, pool: Pool, strictness: float = 1.0, **settings: object) -> None:
        self.interval_s = max(pool.startup_s / _TICKS_A_STARTUP, 0.5)
        self.pool = pool
        i, o = pool.input_tokens, pool.output_tokens
        service_s = pool.profile.service_time(pool.slots, i, o)
        goal = pool.objective
        slack_s = min(goal.ttft_s - pool.profile.prefill(pool.slots, i, o), goal.response_s - service_s)
        given = Settings(
            target_s=service_s + max(slack_s, 0.0),
            percentile=100.0 - (100.0 - goal.percentile) / strictness,
            service_s=service_s,
            slots=pool.slots,
            startup_s=pool.startup_s,
            stale_after_s=max(5.0, 3.0 * self.interval_s),
            scale_up_factor=1e6,
            profile=pool.profile,
            input_tokens=i,
            output_tokens=o,
            adaptive_standby=pool.standby,
        )
        self.settings = replace(given, **settings)  # type: ignore[arg-type]
        self.state = State()

    def decide(self, seen: Snapshot) -> int:
        """Return the desired replicas."""
        # the objective is on the wait, so the spread of the service must not count: its squares are not told
        sample = ReplicaSample(seen.t, seen.arrivals, seen.completions, seen.service_sum_s, running=seen.running)
        gateway = GatewaySample(
            seen.t, seen.arrivals, seen.queued, seen.running, answered=seen.completions, late=seen.late, bypassed=0.0
        )
        obs = Observation(
            seen.t, seen.ready, seen.target, self.pool.min_replicas, self.pool.max_replicas, {"all": sample}, gateway
        )
        decision, self.state = decide(obs, self.state, self.settings)
        return decision.replicas


_STRICTNESS = (0.3, 0.5, 1.0, 2.0, 4.0)

OURS = (
    Rule("ours", "TierServe", "autoscale/decide.py", "the share that may miss, divided by", 1.0, _STRICTNESS, Ours),
    Rule(
        "ours-paper-only",
        "TierServe, without SLO-miss feedback",
        "without the correction by what was late in truth",
        "the share that may miss, divided by",
        1.0,
        (1.0,),
        lambda pool, value: Ours(pool, value, standby_gain=0.0),
    ),
    Rule(
        "ours-erlang",
        "TierServe, Erlang C alone",
        "without what is learned: staffing for the load of now",
        "the share that may miss, divided by",
        1.0,
        (1.0,),
        lambda pool, value: Ours(pool, value, adaptive_standby=False),
    ),
    Rule(
        "ours-no-forecast",
        "TierServe, without the forecast",
        "without replicas that are ordered ahead of a rise that comes each day",
        "the share that may miss, divided by",
        1.0,
        (1.0,),
        lambda pool, value: Ours(pool, value, forecast=False),
    ),
)
