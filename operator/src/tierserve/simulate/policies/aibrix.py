"""AIBrix APA (application-specific pod autoscaler) on requests in flight per replica.

Rules: AIBrix's documentation of its PodAutoscaler and the defaults of its controller: tolerance 0.1 both ways, at most
twice up and half down in a step, cool-down 300 s before going down, resync every 10 s.
"""

from __future__ import annotations

import math

from tierserve.simulate.policies.windows import Highest, in_flight, round_up
from tierserve.simulate.types import Pool, Snapshot

_TOLERANCE = 0.1
_STEP = 2.0
_COOLDOWN_S = 300.0


class Apa:
    """APA. The load per ready replica times the replicas asked for, ready or not: it keeps rising while they load.

    The cool-down is HPA's, which the project says it is alike: the highest recommendation of 300 s governs going down.

    Args:
        pool: its slots.
        share: target of requests in flight per replica, as a share of the slots.
    """

    interval_s = 10.0

    def __init__(self, pool: Pool, share: float) -> None:
        self._target = share * pool.slots
        self._highest = Highest(_COOLDOWN_S)

    def decide(self, seen: Snapshot) -> int:
        """Return the desired replicas; the target as it is where no replica is there to measure."""
        if seen.ready == 0:
            return seen.target
        wanted = self._wanted(seen.target, in_flight(seen) / (seen.ready * self._target))
        kept = self._highest(seen.t, wanted)
        return min(seen.target, kept) if wanted < seen.target else wanted

    @staticmethod
    def _wanted(replicas: int, ratio: float) -> int:
        if ratio > 1.0 + _TOLERANCE:
            return min(round_up(replicas * ratio), math.ceil(_STEP * replicas))
        if ratio < 1.0 - _TOLERANCE:  # the last one stays: scaling to zero is off by default
            return max(round_up(replicas * ratio), math.floor(replicas / _STEP), 1)
        return replicas
