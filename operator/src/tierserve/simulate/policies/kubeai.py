"""KubeAI: the mean of the active requests over ten minutes, divided by a target per replica.

Rules: KubeAI's documentation and defaults: every 10 s, a window of 10 minutes that begins with zeros, 100 requests per
replica, up at once, down when the delay of 30 s, in ticks, has passed with each tick below the replicas there are.
"""

from __future__ import annotations

from collections import deque

from tierserve.simulate.policies.windows import round_up
from tierserve.simulate.types import Pool, Snapshot

TARGET = 100.0
"""Active requests per replica, as published."""
_WINDOW_S = 600.0
_DOWN_TICKS = 3


class KubeAi:
    """KubeAI's autoscaler. All requests that are not answered are active, as its proxy counts them.

    Args:
        pool: its slots.
        share: target of active requests per replica, as a share of the slots; 0: the published 100.
    """

    interval_s = 10.0

    def __init__(self, pool: Pool, share: float) -> None:
        self._least = pool.min_replicas
        self._target = share * pool.slots if share > 0.0 else TARGET
        count = int(_WINDOW_S / self.interval_s)
        self._active = deque([0.0] * count, maxlen=count)
        self._lower_ticks = 0

    def decide(self, seen: Snapshot) -> int:
        """Return the desired replicas; the target as it is where no replica serves."""
        if seen.ready == 0:
            return seen.target
        self._active.append(seen.queued + seen.running)
        mean = sum(self._active) / len(self._active)
        wanted = max(round_up(mean / self._target), self._least)
        if wanted >= seen.target:
            self._lower_ticks = 0
            return wanted
        if self._lower_ticks < _DOWN_TICKS:
            self._lower_ticks += 1
            return seen.target
        return wanted
