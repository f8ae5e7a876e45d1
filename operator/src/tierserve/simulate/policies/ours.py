"""TierServe's own decision, the code that runs in Ray Serve, and the same without some of its parts."""

from __future__ import annotations

import math
from dataclasses import replace

from tierserve.autoscale.decide import GatewaySample, Observation, ReplicaSample, Settings, State, decide
from tierserve.simulate.policies.base import Rule
from tierserve.simulate.types import Pool, Snapshot

_TICKS_A_STARTUP = 30


class Ours:
    """`autoscale.decide`, given what gateway and replicas would report.

    Args:
        pool: the replicas.
        strictness: the share of requests that may miss, divided by this.
        settings: parts to change, of `autoscale.decide.Settings`.
    """

    def __init__(self, pool: Pool, strictness: float = 1.0, **settings: object) -> None:
        self.interval_s = max(pool.startup_s / _TICKS_A_STARTUP, 1.0)
        self.pool = pool
        i, o = pool.input_tokens, pool.output_tokens
        service_s = pool.profile.service_time(pool.slots, i, o)
        goal = pool.objective
        max_wait_s = max(goal.ttft_s - pool.profile.prefill(pool.slots, i, o), 0.01 * service_s)
        given = Settings(
            target_s=goal.response_s if math.isfinite(goal.response_s) else 2.0 * service_s + max_wait_s,
            max_wait_s=max_wait_s,
            percentile=100.0 - (100.0 - goal.percentile) / strictness,
            service_s=service_s,
            slots=pool.slots,
            startup_s=pool.startup_s,
            stale_after_s=max(5.0, 3.0 * self.interval_s),
            scale_up_factor=1e6,
            profile=pool.profile,
            input_tokens=i,
            output_tokens=o,
        )
        self.settings = replace(given, **settings)  # type: ignore[arg-type]
        self.state = State()

    def decide(self, seen: Snapshot) -> int:
        """Return the desired replicas."""
        sample = ReplicaSample(
            seen.t, seen.arrivals, seen.completions, seen.service_sum_s, seen.service_sq_sum_s2, running=seen.running
        )
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
)
