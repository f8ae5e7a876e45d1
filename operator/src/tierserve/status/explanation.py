"""The arithmetic of one scaling decision, from the status of its pool and the spec (pure).

Every figure is either observed, published by the decision, or computed from these by the functions that the decision
itself uses (`autoscale.sizing`, `queueing.sizing`). What is not known is None, and is left out by its readers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tierserve.autoscale.scale_to_zero import idle_window_s
from tierserve.autoscale.sizing import load_to_carry, wait_allowed_s, wait_objective
from tierserve.autoscale.types import Settings
from tierserve.plan.placement import Placement
from tierserve.queueing.sizing import (
    Demand,
    Objective,
    meets,
    replicas_for,
    response_quantile,
    wait_decay,
    wait_probability,
)

_STEPS = 60  # halvings: the load is then exact to the last digit of a float
_FIGURES = frozenset(
    {"lambda", "service_s", "offered_load", "slots", "percentile", "target_s", "startup_s", "replicas"}
)
"""Fields without which a published decision cannot be computed again."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """A number of replicas at the load of the decision, with every slot taken into account as in a full batch.

    Attributes:
        replicas, servers: R, and c = R x slots.
        p_wait: P(a request waits).
        late: P(a request waits longer than the objective leaves for it).
        p95_s: response time at the percentile of the objective, seconds; None if the load exceeds the servers.
        meets: whether `late` is within the objective: what the decision judges by.
    """

    replicas: int
    servers: int
    p_wait: float
    late: float
    p95_s: float | None
    meets: bool


@dataclass(frozen=True, slots=True)
class ScaleDown:
    """When the target would be lowered next.

    Attributes:
        replicas: to how many.
        arrivals_below: forecast arrivals per second, below which that many suffice; 0: none at all; None where the
            arrivals alone do not decide.
        for_s: how long that must hold, seconds.
    """

    replicas: int
    arrivals_below: float | None
    for_s: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """One decision; times in seconds, rates per second.

    Attributes:
        pool, model: what is scaled.
        replicas, running: desired and running replicas.
        set_by, reason: what set the number, in a word and in a sentence.
        stale: the decision is held, for metrics are missing.
        answered_rate, window_s: requests that the gateway finished per second of its window.
        arrival_rate, rate_error: forecast for the end of a start-up time, and the mean error of such forecasts, which
            is added.
        startup_s: from a raised target to a running replica.
        slots, service_s: requests at once per replica, and the service time of one when it is full.
        full_rate: requests per second of a full replica.
        bound, bounds: what limits the slots, and the slots that each limit alone would allow.
        peakedness: z of the arrivals; 1 is Poisson.
        in_system: requests in the pool, queued or running.
        target_s, percentile: the objective without the network.
        wait_allowed_s: how long a request may wait and still meet it.
        headroom, margin: share of the load kept on top, and its correction by the responses of full slots.
        load: erlangs to carry: (arrival_rate + rate_error) x service_s x (1 + headroom) x margin.
        required: least replicas by Erlang C at this load.
        alternatives: one replica fewer, the number required, and the number decided.
        observed_p95_s, predicted_p95_s, model_error: of the last window, of the decision, and the ratio of the
            prediction to the observation less 1.
        scale_down: None where the minimum is reached, or it is not known.
        min_replicas, max_replicas: bounds of the file.
    """

    pool: str
    model: str | None
    replicas: int
    running: int | None
    set_by: str | None
    reason: str
    stale: bool
    answered_rate: float | None
    window_s: float | None
    arrival_rate: float
    rate_error: float
    startup_s: float
    slots: int
    service_s: float
    full_rate: float
    bound: str | None
    bounds: Mapping[str, int]
    peakedness: float
    in_system: float | None
    target_s: float
    percentile: float
    wait_allowed_s: float | None
    headroom: float | None
    margin: float
    load: float | None
    required: int | None
    alternatives: tuple[Alternative, ...]
    observed_p95_s: float | None
    predicted_p95_s: float | None
    model_error: float | None
    scale_down: ScaleDown | None
    min_replicas: int | None
    max_replicas: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON has them."""
        return asdict(self)


def explain(pool: Mapping[str, Any], placement: Placement | None) -> Explanation | None:
    """Return the arithmetic of the last decision of a pool; None where no current decision is known.

    Args:
        pool: its entry in the status (`status.pools`).
        placement: the pool as the spec has it; None if the spec cannot be read: what follows from it is then None.
    """
    decision = pool.get("decision") or {}
    if any(decision.get(name) is None for name in _FIGURES):
        return None
    gateway, sizing = pool.get("gateway") or {}, _Sizing.of(decision, placement) if placement else None
    slots, service_s = int(decision["slots"]), float(decision["service_s"])
    return Explanation(
        pool=str(pool["pool"]),
        model=pool.get("model"),
        replicas=int(decision["replicas"]),
        running=pool.get("running"),
        set_by=decision.get("set_by"),
        reason=str(decision.get("reason") or ""),
        stale=bool(decision.get("stale")),
        answered_rate=gateway.get("rate"),
        window_s=gateway.get("window_s"),
        arrival_rate=float(decision["lambda"]),
        rate_error=_error(decision),
        startup_s=float(decision["startup_s"]),
        slots=slots,
        service_s=service_s,
        full_rate=slots / service_s,
        bound=placement.bound if placement else None,
        bounds=dict(placement.bounds) if placement else {},
        peakedness=_peakedness(decision),
        in_system=decision.get("in_system"),
        target_s=float(decision["target_s"]),
        percentile=float(decision["percentile"]),
        wait_allowed_s=sizing.objective.max_wait_s if sizing else None,
        headroom=placement.headroom if placement else None,
        margin=_margin(decision),
        load=sizing.demand.load if sizing else None,
        required=sizing.required if sizing else None,
        alternatives=sizing.alternatives(int(decision["replicas"])) if sizing else (),
        observed_p95_s=gateway.get("p95_s"),
        predicted_p95_s=decision.get("predicted_p95_s"),
        model_error=pool.get("modelError"),
        scale_down=_scale_down(decision, placement, sizing) if placement and sizing else None,
        min_replicas=placement.min_replicas if placement else pool.get("minReplicas"),
        max_replicas=placement.max_replicas if placement else pool.get("maxReplicas"),
    )


def _error(decision: Mapping[str, Any]) -> float:
    return float(decision.get("rate_error") or 0.0)


def _margin(decision: Mapping[str, Any]) -> float:
    return float(decision.get("margin") or 1.0)


def _peakedness(decision: Mapping[str, Any]) -> float:
    return float(decision.get("peakedness") or 1.0)


@dataclass(frozen=True, slots=True)
class _Sizing:
    """The question that the decision put to Erlang C."""

    demand: Demand
    objective: Objective
    slots: int

    @classmethod
    def of(cls, decision: Mapping[str, Any], placement: Placement) -> _Sizing:
        service_s, sd_s = float(decision["service_s"]), float(decision.get("service_sd_s") or 0.0)
        # Clumps of arrivals are the replay's: z counts only below 1 (autoscale.demand).
        at_rate = Demand(float(decision["offered_load"]), service_s, sd_s, min(_peakedness(decision), 1.0))
        allowed_s = wait_allowed_s(service_s, float(decision["target_s"]), placement.max_wait_s)
        return cls(
            load_to_carry(at_rate, placement.headroom, _margin(decision)),
            wait_objective(float(decision["percentile"]), allowed_s),
            int(decision["slots"]),
        )

    @property
    def required(self) -> int:
        return replicas_for(self.demand, self.objective, self.slots)

    def alternatives(self, decided: int) -> tuple[Alternative, ...]:
        required = self.required
        counts = {required - 1, required, decided} if required else {decided}
        return tuple(self._alternative(count) for count in sorted(counts) if count > 0)

    def _alternative(self, replicas: int) -> Alternative:
        servers, demand, longest_s = replicas * self.slots, self.demand, self.objective.max_wait_s
        p_wait = wait_probability(servers, demand)
        late = p_wait * math.exp(-wait_decay(servers, demand) * longest_s) if servers > demand.load else 1.0
        p95_s = response_quantile(servers, demand, self.objective.percentile)
        is_enough = meets(servers, demand, self.objective)
        return Alternative(replicas, servers, p_wait, late, p95_s if math.isfinite(p95_s) else None, is_enough)

    def largest_load(self, replicas: int) -> float:
        """Return the largest load, in erlangs, at which so many replicas meet the objective."""
        low, high = 0.0, float(replicas * self.slots)
        for _ in range(_STEPS):
            middle = (low + high) / 2.0
            fits = meets(replicas * self.slots, self.demand.at(middle), self.objective)
            low, high = (middle, high) if fits else (low, middle)
        return low


def _scale_down(decision: Mapping[str, Any], placement: Placement, sizing: _Sizing) -> ScaleDown | None:
    """Return when the target would be lowered; None at the minimum, or where the window is not published."""
    decided, window_s = int(decision["replicas"]), decision.get("stabilization_window_s")
    fewer = decided - 1
    if fewer < placement.min_replicas or window_s is None or decision.get("set_by") == "max_replicas":
        return None
    if fewer <= 0:
        settings = Settings(float(decision["target_s"]), idle_window_s=placement.scale_to_zero_after_s)
        return ScaleDown(0, 0.0, idle_window_s(settings, float(decision["startup_s"])))
    if decision.get("set_by") == "stabilization":
        # The last replica is removed only after the idle time, whatever the load requires.
        return ScaleDown(max(min(sizing.required, fewer), placement.min_replicas, 1), None, float(window_s))
    if decision.get("set_by") != "erlang_c":
        return ScaleDown(fewer, None, float(window_s))
    # The load is (rate + error) x service x (1 + headroom) x margin: the same the other way round.
    per_request = float(decision["service_s"]) * (1.0 + placement.headroom) * _margin(decision)
    rate = sizing.largest_load(fewer) / per_request - _error(decision)
    return ScaleDown(fewer, max(rate, 0.0), float(window_s))


def from_dict(values: Mapping[str, Any]) -> Explanation:
    """Return an explanation from `Explanation.to_dict`."""
    down = values["scale_down"]
    return Explanation(
        **{
            **values,
            "alternatives": tuple(Alternative(**one) for one in values["alternatives"]),
            "scale_down": None if down is None else ScaleDown(**down),
        }
    )
