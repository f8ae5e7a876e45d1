"""The slow loop of `objective.optimize`: a better order of the tiers, or model of a tier, for the observed load.

Every `interval` the choices next to the one in effect are planned with the plan's own arithmetic (`in_order`, which is
how operator and gateway fill the tiers), at the observed rate, measured profiles and carbon intensities; the best is
taken and its neighbours tried, until none is better. A choice must serve all classes within the objective and the caps,
as far as the one in effect does, and never has a model of lower or unknown quality.

What keeps it calm: a saving of at least 5%, the same choice in two searches one after the other, at most two changes
an hour, and no change for an hour after the objective was missed, which also brings back the choice of the spec.
The number of replicas is the autoscaler's (replicas.min and max are bounds of the user's).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tierserve.api.units import Duration
from tierserve.api.v1alpha1.deployment import GenAIDeployment
from tierserve.api.v1alpha1.tiers import Tier
from tierserve.plan.placement import Placement, PlacementError, place
from tierserve.queueing.batching.profile import BatchProfile

if TYPE_CHECKING:
    from tierserve.plan.allocation.baseline import InOrder

LEAST_SAVING = 0.05
CHANGES_PER_HOUR = 2
HOLD_S = 3600.0
MISSED_S = 60.0
"""How long the objective must be missed before an applied choice is taken back; a new replica may take as long."""
FITS = 0.15
"""Relative error of a pool's prediction up to which confidence is High, as of the condition ProfileFits."""
UNITS = {"cost": "per hour", "energy": "W", "carbon": "gCO2e per hour", "latency": "s"}
Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Choice:
    """Tiers in the order in which they are filled, and the model named first in each tier."""

    overflow: tuple[str, ...]
    models: tuple[tuple[str, str], ...]

    def applied_to(self, gaid: GenAIDeployment) -> GenAIDeployment:
        """The service with this choice instead of its own."""
        first = dict(self.models)
        tiers = tuple(_with_first(gaid, tier, first.get(tier.name)) for tier in gaid.spec.tiers)
        routing = gaid.spec.routing.model_copy(update={"overflow": self.overflow})
        spec = gaid.spec.model_copy(update={"tiers": tiers, "routing": routing})
        return gaid.model_copy(update={"spec": spec})

    def document(self) -> dict[str, Any]:
        """As the status has it."""
        return {"overflow": list(self.overflow), "models": dict(self.models)}


def _with_first(gaid: GenAIDeployment, tier: Tier, model: str | None) -> Tier:
    if model is None:
        return tier
    rest = [one.name for one in gaid.models_of(tier) if one.name != model]
    return tier.model_copy(update={"models": (model, *rest)})


def in_effect(gaid: GenAIDeployment, status: Document | None) -> GenAIDeployment:
    """The service with the choice that was applied, if its mode is `apply` and the spec still allows the choice."""
    applied = ((status or {}).get("optimization") or {}).get("applied")
    if gaid.spec.objective.optimize.mode != "apply" or not applied:
        return gaid
    choice = _choice(applied)
    models = {tier.name: {one.name for one in gaid.models_of(tier)} for tier in gaid.tiers_on}
    allowed = sorted(choice.overflow) == sorted(_order(gaid)) and all(
        model in models.get(tier, ()) for tier, model in choice.models
    )
    return choice.applied_to(gaid) if allowed else gaid


def step(gaid: GenAIDeployment, status: Document, previous: Document | None, now: float) -> dict[str, Any]:
    """One step, at each reconcile: `optimization` and `recommendation` of the new status; empty if the mode is `off`.

    Args:
        gaid: the service as its spec has it.
        status: its status now, with pools and conditions.
        previous: the status before.
        now: Unix seconds.
    """
    optimize, before = gaid.spec.objective.optimize, previous or {}
    if optimize.mode == "off":
        return {}
    memory = dict(before.get("optimization") or {})
    recommended: Document | None = before.get("recommendation")
    interval_s = optimize.interval.value
    memory |= _load(memory, status, now, interval_s)
    memory["changeTimes"] = [at for at in memory.get("changeTimes", ()) if now - _seconds(at) < 3600.0]
    current = in_effect(gaid, before)
    if current is gaid:
        memory["applied"] = None
    elif _missed(status, memory["changeTimes"], now):
        memory |= {"applied": None, "pending": None, "heldUntil": _text(now + HOLD_S)}
        memory["changeTimes"].append(_text(now))
        current = gaid
    if memory.get("rate") and now - _seconds(memory.get("solvedTime")) >= interval_s:
        found = best(observed_service(current, status), status, float(memory["rate"]))
        recommended = None if found is None else found.document(optimize.by, now, float(memory["rate"]))
        memory |= _decide(gaid, memory, None if found is None else found.choice, now)
        memory["solvedTime"] = _text(now)
    return {"optimization": memory, "recommendation": recommended}


def _decide(gaid: GenAIDeployment, memory: Document, found: Choice | None, now: float) -> dict[str, Any]:
    """What a search changes: a choice must be confirmed by the next search, and is then applied if that is allowed."""
    document = None if found is None else found.document()
    confirmed = document is not None and document == memory.get("pending")
    held = now < _seconds(memory.get("heldUntil")) or len(memory["changeTimes"]) >= CHANGES_PER_HOUR
    if gaid.spec.objective.optimize.mode != "apply" or not confirmed or held:
        return {"pending": document}
    return {"applied": document, "pending": None, "changeTimes": [*memory["changeTimes"], _text(now)]}


def _load(memory: Document, status: Document, now: float, interval_s: float) -> dict[str, Any]:
    """Requests per second as the gateway saw them finish, averaged with weights that fall over one interval."""
    seen = [pool["gateway"].get("rate") for pool in status["pools"] if pool.get("gateway")]
    if not seen or None in seen:
        return {}  # unknown, which is not zero
    rate, last = sum(seen), memory.get("rate")
    if last is not None:
        weight = min(1.0, (now - _seconds(memory.get("observedTime"))) / interval_s)
        rate = last + max(0.0, weight) * (rate - last)
    return {"rate": float(f"{rate:.4g}"), "observedTime": _text(now)}


def _missed(status: Document, changes: Sequence[str], now: float) -> bool:
    """Whether the objective has been missed for so long, and only since the last change, that it is taken back."""
    changed = max(map(_seconds, changes), default=0.0)
    return any(
        (one["type"], one["status"]) == ("SLOMet", "False")
        and changed <= _seconds(one["lastTransitionTime"]) <= now - MISSED_S
        for one in status.get("conditions", ())
    )


@dataclass(frozen=True, slots=True)
class Found:
    """A better choice: `present` and `expected` are what is minimised, now and after the change."""

    choice: Choice
    present: float
    expected: float
    confident: bool
    message: str

    def document(self, by: str, now: float, rate: float) -> dict[str, Any]:
        """As the status has it."""
        return {
            **self.choice.document(),
            "by": by,
            "time": _text(now),
            "rate": rate,
            "present": float(f"{self.present:.4g}"),
            "expected": float(f"{self.expected:.4g}"),
            "saving": round(1.0 - self.expected / self.present, 3) if self.present else 0.0,
            "confidence": "High" if self.confident else "Low",
            "message": self.message,
        }


def observed_service(gaid: GenAIDeployment, status: Document) -> GenAIDeployment:
    """The service with the carbon intensities of now."""
    known = {
        pool["tier"]: pool["carbonIntensity"] for pool in status["pools"] if pool.get("carbonIntensity") is not None
    }
    tiers = tuple(
        tier.model_copy(update={"carbon_intensity": known[tier.name]}) if tier.name in known else tier
        for tier in gaid.spec.tiers
    )
    return gaid.model_copy(update={"spec": gaid.spec.model_copy(update={"tiers": tiers})})


def best(gaid: GenAIDeployment, status: Document, rate: float) -> Found | None:
    """The best choice that can be reached from the one in effect by steps that each save; None if it saves too little.

    Args:
        gaid: the service as it is in effect, with intensities of now.
        status: its status, for measured profiles.
        rate: requests per second.
    """
    start = _present(gaid)
    present = _figures(gaid, start, status, rate)
    if start is None or present is None:
        return None
    choice, figures = start, present
    while True:
        tried = [(one, _figures(gaid, one, status, rate)) for one in _next(gaid, choice)]
        better = [
            (one, some)
            for one, some in tried
            if some is not None and _no_worse(some, present) and _rank(some) < _rank(figures)
        ]
        if not better:
            break
        choice, figures = min(better, key=lambda pair: _rank(pair[1]))
    kept_now = len(figures.over) < len(present.over)
    if choice == start or not (kept_now or figures.value < (1.0 - LEAST_SAVING) * present.value):
        return None
    return Found(choice, present.value, figures.value, _confident(status), _words(start, choice))


def _order(gaid: GenAIDeployment) -> tuple[str, ...]:
    """Tiers that are filled: those that routing.overflow names, else all; tiers that are off keep their place."""
    named = gaid.spec.routing.overflow
    return tuple(tier.name for tier in gaid.overflow if not named or tier.name in named)


def _present(gaid: GenAIDeployment) -> Choice | None:
    try:
        placements = place(gaid)
    except PlacementError:
        return None
    models = {one.tier: one.model for one in placements}
    return Choice(_order(gaid), tuple(sorted(models.items())))


def _next(gaid: GenAIDeployment, choice: Choice) -> Iterator[Choice]:
    """Every choice with one tier moved to another place, or another model in one tier."""
    order = choice.overflow
    seen = {order}
    for a, name in enumerate(order):
        rest = order[:a] + order[a + 1 :]
        for b in range(len(order)):
            moved = (*rest[:b], name, *rest[b:])
            if moved not in seen:
                seen.add(moved)
                yield replace(choice, overflow=moved)
    quality = {one.name: one.quality for one in gaid.spec.models}
    for tier in gaid.tiers_on:
        now = dict(choice.models)[tier.name]
        for model in gaid.models_of(tier):
            as_good, least = quality[model.name], quality[now]
            if model.name != now and as_good is not None and least is not None and as_good >= least:
                models = {**dict(choice.models), tier.name: model.name}
                yield replace(choice, models=tuple(sorted(models.items())))


def _figures(gaid: GenAIDeployment, choice: Choice | None, status: Document, rate: float) -> InOrder | None:
    if choice is None:
        return None
    # numpy and scipy: an operator whose services have no `optimize` does without their 100 MB.
    from tierserve.plan.allocation.baseline import in_order
    from tierserve.plan.capacity import Demand

    chosen = choice.applied_to(gaid)
    try:
        placements = _measured(place(chosen), status)
    except PlacementError:
        return None
    if any(dict(choice.models).get(one.tier) != one.model for one in placements):
        return None  # that model is too slow there, and another one would run
    return in_order(chosen, Demand(rate=rate), placements)


def _measured(placements: Sequence[Placement], status: Document) -> list[Placement]:
    """With the profiles that were measured in operation, where their pools run these models."""
    profiles = {(pool["pool"], pool.get("model")): pool.get("measuredProfile") for pool in status["pools"]}
    return [_with_profile(one, profiles.get((one.pool, one.model))) for one in placements]


def _with_profile(one: Placement, measured: Document | None) -> Placement:
    if not measured:
        return one
    alpha, beta, gamma = (Duration(measured[name]).value for name in ("alpha", "beta", "gamma"))
    new = replace(one, profile=BatchProfile(alpha, beta, gamma), measured=True)
    if one.service_tail_s is None:
        return new
    # The spread of the responses is that of their tokens, so the percentile changes as the mean does.
    return replace(new, service_tail_s=one.service_tail_s * new.service_s / one.service_s)


def _no_worse(some: InOrder, present: InOrder) -> bool:
    """Whether no class is served less, no other pool is late and no other cap is exceeded."""
    return (
        some.unserved_rate <= present.unserved_rate + 1e-9
        and set(some.late) <= set(present.late)
        and set(some.over) <= set(present.over)
    )


def _rank(some: InOrder) -> tuple[float, ...]:
    return (some.unserved_rate, len(some.late), len(some.over), some.value)


def _confident(status: Document) -> bool:
    """Whether predictions of all pools hold, as far as they have traffic, and their profiles are measured."""
    return all(
        pool.get("measuredProfile") and abs(pool.get("modelError") or 0.0) <= FITS
        for pool in status["pools"]
        if (pool.get("gateway") or {}).get("rate")
    )


def _words(start: Choice, choice: Choice) -> str:
    parts = []
    if choice.overflow != start.overflow:
        parts.append(f"fill the tiers in the order {', '.join(choice.overflow)}")
    before = dict(start.models)
    parts += [f"run {model} on {tier}" for tier, model in choice.models if before.get(tier) != model]
    return "; ".join(parts)


def _choice(document: Document) -> Choice:
    return Choice(tuple(document.get("overflow", ())), tuple(sorted((document.get("models") or {}).items())))


def _text(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _seconds(text: str | None) -> float:
    """Unix seconds of an RFC 3339 time; the beginning of time where there is none."""
    return datetime.fromisoformat(text).timestamp() if text else 0.0
