"""KEDA: a HorizontalPodAutoscaler from 1 replica up, and KEDA itself between 0 and 1.

Rules: keda.sh, "Scaling Deployments" and the ScaledObject's defaults: poll 30 s, cool-down 300 s, activation above 0,
and a metric of type AverageValue, which is the sum over all pods divided by the target (so that starting pods play no
part, other than in an HPA on Pods metrics).
"""

from __future__ import annotations

import math

from tierserve.simulate.policies.hpa import Hpa, within
from tierserve.simulate.policies.windows import in_flight, round_up
from tierserve.simulate.types import Pool, Snapshot

_POLL_S = 30.0
_COOLDOWN_S = 300.0
_SLACK_S = 1e-6


class Keda(Hpa):
    """KEDA on the requests in flight.

    Args:
        pool: its slots; with min_replicas 0 it scales to zero.
        share: target of requests in flight per replica, as a share of the slots.
    """

    def __init__(self, pool: Pool, share: float) -> None:
        super().__init__(pool, share)
        self._min_replicas = pool.min_replicas
        self._polled_s = self._active_s = -math.inf

    def decide(self, seen: Snapshot) -> int:
        """Return the desired replicas: KEDA's own answer at a poll if it has one, else the HPA's."""
        own = self._poll(seen) if seen.t - self._polled_s >= _POLL_S - _SLACK_S else None
        if own is not None:
            return own
        return max(1, self._min_replicas, super().decide(seen)) if seen.target > 0 else 0

    def _poll(self, seen: Snapshot) -> int | None:
        self._polled_s = seen.t
        if in_flight(seen) > 0.0:
            self._active_s = seen.t
            return max(1, self._min_replicas) if seen.target == 0 else None
        if self._min_replicas == 0 and seen.t - self._active_s > _COOLDOWN_S:
            return 0
        return None

    def _proposal(self, seen: Snapshot) -> int | None:
        """The rule for external metrics with an AverageValue, which counts pods whether they are ready or not."""
        pods, load = seen.ready + seen.starting, in_flight(seen)
        if pods == 0:
            return None
        return seen.target if within(load / (pods * self._target)) else round_up(load / self._target)
