"""Knative Pod Autoscaler: mean concurrency of a stable and of a panic window.

Rules: knative.dev, "Autoscaling", and the published defaults: stable window 60 s, panic window 10 % of it, panic at
twice what the ready pods can take, target utilisation 70 %, down to no less than half and up to no more than 1,000
times the ready pods, tick 2 s.
"""

from __future__ import annotations

from tierserve.simulate.policies.windows import Window, round_up
from tierserve.simulate.types import Pool, Snapshot

_STABLE_S = 60.0
_PANIC_S = 6.0
_PANIC_AT = 2.0
_UP_TIMES = 1000
_DOWN_TIMES = 2


class Kpa:
    """KPA on concurrency, the container's concurrency limit being the slots.

    The grace period before the last pod goes (30 s at most) is left out: the stable window alone governs it.

    Args:
        pool: its slots.
        utilisation: the share of the slots that is the target of a pod.
    """

    interval_s = 2.0

    def __init__(self, pool: Pool, utilisation: float) -> None:
        self._target = utilisation * pool.slots
        self._window = Window(_STABLE_S, "in_system_s")
        self._panic_s: float | None = None  # when it last was over the threshold, None in stable mode
        self._most = 0
        self._first = True

    def decide(self, seen: Snapshot) -> int:
        """Return the desired pods."""
        self._window.add(seen)
        if self._first and seen.ready > 1:  # a new autoscaler starts in panic, not to undo what the one before it did
            self._panic_s, self._most = seen.t, seen.ready
        self._first = False
        pods = max(1, seen.ready)
        stable = round_up(self._window.rate("in_system_s") / self._target)
        panic = round_up(self._window.rate("in_system_s", _PANIC_S) / self._target)
        self._switch(seen.t, over=panic / pods >= _PANIC_AT)
        low, high = pods // _DOWN_TIMES, _UP_TIMES * pods
        wanted = min(max(stable, low), high)
        if self._panic_s is None:
            return wanted
        self._most = max(self._most, wanted, min(max(panic, low), high))
        return self._most

    def _switch(self, t: float, over: bool) -> None:
        """Enter panic, prolong it, or leave it after a stable window below the threshold."""
        if over:
            self._panic_s = t
        elif self._panic_s is not None and self._panic_s + _STABLE_S < t:
            self._panic_s, self._most = None, 0
