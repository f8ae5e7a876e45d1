"""`objective.optimize` in the simulation: the operator's own step, fed with what the simulated gateway saw.

The simulated second 0 is midnight UTC, at which series of a repeating day begin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tierserve.api.carbon_series import carbon_series
from tierserve.api.v1alpha1.deployment import GenAIDeployment
from tierserve.api.v1alpha1.tiers import Tier
from tierserve.plan.optimizer import in_effect, step
from tierserve.plan.placement import Placement
from tierserve.simulate.types import Snapshot

EVERY_S = 10.0
"""As often as the operator reconciles."""
WINDOW_S = 60.0
"""As long as the window of the gateway's figures."""


def intensity_at(tier: Tier, t: float) -> float:
    """Carbon intensity of a tier at a simulated second, in gCO2e/kWh; a provider's is not known, so its constant."""
    source = tier.carbon_source
    value = carbon_series(source.series).at(t) if source is not None and source.series is not None else None
    return tier.carbon_g_per_kwh if value is None else value


@dataclass(slots=True)
class SlowLoop:
    """Called before each round of decisions; returns the service in effect when that changes.

    Attributes:
        gaid: the service; its mode is `apply`. Models are not exchanged in a simulation.
        placements: the pools, in the order of the snapshots.
        changes: seconds at which the order changed, and the order.
    """

    gaid: GenAIDeployment
    placements: Sequence[Placement]
    changes: list[tuple[float, tuple[str, ...]]] = field(default_factory=list)
    _status: dict[str, Any] = field(default_factory=dict)
    _due: float = 0.0
    _seen: list[tuple[float, Sequence[Snapshot]]] = field(default_factory=list)
    _slo: tuple[str, float] = ("Unknown", 0.0)

    def __call__(self, t: float, snapshots: Callable[[], Sequence[Snapshot]]) -> GenAIDeployment | None:
        """Take one step if it is due.

        Args:
            t: simulated second.
            snapshots: returns those of the pools, in the order of `placements`.
        """
        if t < self._due:
            return None
        self._due = t + EVERY_S
        self._seen.append((t, snapshots()))
        while len(self._seen) > 1 and self._seen[1][0] <= t - WINDOW_S:
            self._seen.pop(0)
        before = in_effect(self.gaid, self._status).overflow
        self._status = step(self.gaid, self._document(t), self._status, t)
        after = in_effect(self.gaid, self._status)
        if after.overflow == before:
            return None
        self.changes.append((t, tuple(tier.name for tier in after.overflow)))
        return after

    def _document(self, t: float) -> dict[str, Any]:
        """The parts of a status that the step reads."""
        (then, old), (now, new) = self._seen[0], self._seen[-1]
        passed = now - then
        done = [b.completions - a.completions for a, b in zip(old, new, strict=True)]
        late = [b.late - a.late for a, b in zip(old, new, strict=True)]
        pools = [
            {
                "pool": one.pool,
                "tier": one.tier,
                "model": one.model,
                "gateway": {"rate": count / passed} if passed else None,
                "carbonIntensity": intensity_at(self.gaid.tier(one.tier), t),
            }
            for one, count in zip(self.placements, done, strict=True)
        ]
        allowed = 1.0 - self.gaid.spec.objective.response_time.percentile / 100.0
        missed = any(a > allowed * b for a, b in zip(late, done, strict=True))
        state = ("False" if missed else "True") if sum(done) else "Unknown"
        if state != self._slo[0]:
            self._slo = (state, t)
        changed = datetime.fromtimestamp(self._slo[1], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "pools": pools,
            "conditions": [{"type": "SLOMet", "status": state, "lastTransitionTime": changed}],
        }
