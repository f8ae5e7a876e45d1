"""Down only after the surplus has stood for the stabilization window, as in Kubernetes' HPA.

The window is several horizons (start-up time, wait allowed and service time), for that is how long a wrong removal is
felt. It is longer while responses are late (autoscale.budget), and after a removal that is regretted, one that is
followed by a scale-up within the window; removals that stand shorten it again. A window that is given is kept to.
"""

from __future__ import annotations

from typing import NamedTuple

from tierserve.autoscale.budget import MOST
from tierserve.autoscale.types import Observation, Settings

HORIZONS, LEAST_S = 6.0, 30.0
"""Window, in horizons, and at least seconds: where replicas start at once, a rate still has to be counted."""
REGRET, STANDS = 8.0, 0.5
"""Factors on the window for a removal that is regretted, and for one that stood for a window."""
LONGEST_S = 3600.0
"""A regretted removal makes the window no longer than this: an hour's surplus costs more than a start-up."""
_BLOCKS = 6.0  # in a window without caution


class Stabilization(NamedTuple):
    """Recommendations of the window. Start with `Stabilization()`.

    Attributes:
        recommendations: (t, replicas), falling: the first is the largest of the window.
        factor: on the window, from regretted removals.
        lowered: when the target was lowered last, None if that was regretted or has stood.
    """

    recommendations: tuple[tuple[float, int], ...] = ()
    factor: float = 1.0
    lowered: float | None = None

    def after(self, obs: Observation, n: int, window_s: float, block_s: float) -> Stabilization:
        """Return it after a decision for n replicas."""
        stood = self.lowered is not None and obs.t - self.lowered > window_s
        if n > obs.target and self.lowered is not None and not stood:
            longer = REGRET if window_s < LONGEST_S else 1.0
            return self._replace(factor=self.factor * longer, lowered=None)
        if stood:
            return self._replace(factor=max(self.factor * STANDS, 1.0), lowered=obs.t if n < obs.target else None)
        return self._replace(lowered=obs.t) if n < obs.target else self


def _base_s(horizon_s: float) -> float:
    return max(LEAST_S, HORIZONS * horizon_s)


def block_s(horizon_s: float, settings: Settings) -> float:
    """Return the length of the blocks of replay and error budget, seconds."""
    base, given = _base_s(horizon_s), settings.stabilization_window_s
    return max(min(base, base if given is None else given) / _BLOCKS, 1.0)


def longest_s(horizon_s: float, settings: Settings) -> float:
    """Return the longest window that is given or that caution and regret can make, seconds."""
    return max(_base_s(horizon_s) * MOST, LONGEST_S, settings.stabilization_window_s or 0.0)


def window_s(horizon_s: float, settings: Settings, caution: float, stabilization: Stabilization) -> float:
    """Return the stabilization window in force, seconds."""
    if settings.stabilization_window_s is not None:
        return settings.stabilization_window_s
    base = _base_s(horizon_s)
    return max(base * caution, min(base * stabilization.factor, max(base, LONGEST_S)))


def stabilized(state: Stabilization, obs: Observation, replicas: int, window_s: float) -> tuple[int, Stabilization]:
    """Return the largest recommendation of the window, and the state with this one (a monotonic queue)."""
    before = state.recommendations or ((obs.t, obs.target),)
    kept = (*(one for one in before if one[0] >= obs.t - window_s and one[1] > replicas), (obs.t, replicas))
    return kept[0][1], state._replace(recommendations=kept)
