"""Kubernetes HorizontalPodAutoscaler (autoscaling/v2, default behaviour) on requests in flight per pod.

Rules: kubernetes.io, "Horizontal Pod Autoscaling", and the controller's defaults: sync every 15 s, tolerance 0.1, the
highest recommendation of 300 s governs going down, up by at most the larger of 4 pods and 100 % per 15 s.
"""

from __future__ import annotations

from tierserve.simulate.policies.windows import Highest, in_flight, round_up
from tierserve.simulate.types import Pool, Snapshot

_TOLERANCE = 0.1
_STABLE_S = 300.0
_UP_PODS = 4
_UP_TIMES = 2


class Hpa:
    """HPA on a metric of type Pods: requests waiting and running, per pod, averaged over pods.

    The metric is read without delay and all that wait count, wherever they wait: kinder than a scrape of the pods.

    Args:
        pool: its slots.
        share: target of requests in flight per pod, as a share of the slots.
    """

    interval_s = 15.0

    def __init__(self, pool: Pool, share: float) -> None:
        self._target = share * pool.slots
        self._highest: Highest | None = None

    def decide(self, seen: Snapshot) -> int:
        """Return the desired replicas; 0 stays 0, for an HPA at 0 replicas is off."""
        current = seen.target
        if current == 0:
            return 0
        if self._highest is None:  # what the HPA finds at its first sync is its first recommendation
            self._highest = Highest(_STABLE_S)
            self._highest(seen.t, current)
        wanted = self._proposal(seen)
        if wanted is None:
            return current
        kept = self._highest(seen.t, wanted)
        if wanted < current:
            return min(current, kept)
        # a period is as long as a sync, so that what the last sync added is never in the period of this one
        return min(wanted, max(current + _UP_PODS, _UP_TIMES * current))

    def _proposal(self, seen: Snapshot) -> int | None:
        """The rule for Pods metrics: starting pods have no metric yet. None where no pod has one."""
        if seen.ready == 0:
            return None
        load, pods = in_flight(seen), seen.ready
        ratio = load / (pods * self._target)
        if seen.starting == 0 or ratio == 1.0:
            return seen.target if within(ratio) else round_up(ratio * pods)
        pods += seen.starting
        if ratio < 1.0:
            load += seen.starting * self._target  # going down, a missing pod is taken to be just as busy as it should
        again = load / (pods * self._target)
        if within(again) or (again > 1.0) != (ratio > 1.0):
            return seen.target
        wanted = round_up(again * pods)
        turned = wanted > seen.target if again < 1.0 else wanted < seen.target
        return seen.target if turned else wanted


def within(ratio: float) -> bool:
    """Return whether metric over target is so near to 1 that the HPA holds."""
    return abs(1.0 - ratio) <= _TOLERANCE
