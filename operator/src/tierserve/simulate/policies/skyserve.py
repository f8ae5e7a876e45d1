"""SkyServe's request-rate autoscaler with its hysteresis.

Rules: SkyPilot documentation, "Autoscaling" of SkyServe, and its defaults: requests of the last 60 s, a decision every
20 s (every 5 s while there is no replica), up after 300 s and down after 1,200 s of wanting the same way.
"""

from __future__ import annotations

from tierserve.simulate.policies.windows import Window, round_up
from tierserve.simulate.types import Pool, Snapshot

_WINDOW_S = 60.0
_TICK_S = 20.0
_IDLE_TICK_S = 5.0
_UP_S = 300.0
_DOWN_S = 1200.0
_SLACK_S = 1e-6


class SkyServe:
    """ceil(requests per second / target), taken over after so many ticks in a row that asked for more, or fewer.

    The number taken over is the last one, not the mean of the wait. A delay is a count of ticks, as there: of 15 ticks
    the last comes 280 s after the first.

    Args:
        pool: its bounds, and the rate of a replica with all slots taken.
        share: target requests per second of a replica, as a share of that rate.
    """

    def __init__(self, pool: Pool, share: float) -> None:
        full = pool.profile.rate(pool.slots, pool.input_tokens, pool.output_tokens)
        self._qps = share * full
        self._min_replicas, self._max_replicas = pool.min_replicas, pool.max_replicas
        self._window = Window(_WINDOW_S, "arrivals")
        self._up = self._down = 0
        self._next_s = 0.0

    @property
    def interval_s(self) -> float:
        """5 s if there may be no replica (it then ticks that often while there is none), else 20 s."""
        return _IDLE_TICK_S if self._min_replicas == 0 else _TICK_S

    def decide(self, seen: Snapshot) -> int:
        """Return the desired replicas, the target as it is between two ticks."""
        self._window.add(seen)
        if seen.target > 0 and seen.t < self._next_s - _SLACK_S:
            return seen.target
        self._next_s = seen.t + _TICK_S
        wanted = round_up(self._window.change("arrivals") / _WINDOW_S / self._qps)
        return self._hysteresis(seen.target, min(max(wanted, self._min_replicas), self._max_replicas))

    def _hysteresis(self, target: int, wanted: int) -> int:
        if target == 0:
            return wanted
        self._up = self._up + 1 if wanted > target else 0
        self._down = self._down + 1 if wanted < target else 0
        if self._up >= int(_UP_S / _TICK_S) or self._down >= int(_DOWN_S / _TICK_S):
            self._up = self._down = 0
            return wanted
        return target
