"""The best allocation beside what runs: the first model of each tier, and tiers filled in the order of the file.

`in_order` is what a demand comes to that way, as `capacity.make_plan` has it and as operator and runtime run it.
`following` turns the file so that they come near an allocation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tierserve.api.v1alpha1.deployment import GenAIDeployment
from tierserve.plan.allocation.program import caps_of
from tierserve.plan.allocation.types import CAP_NAMES, Allocation
from tierserve.plan.capacity import Demand, Limits, make_plan
from tierserve.plan.placement import Placement, PlacementError, place


@dataclass(frozen=True, slots=True)
class InOrder:
    """What filling the tiers in the order of the file comes to.

    Attributes:
        value: of what `spec.objective.optimize.by` names, in the units of `Allocation.value`.
        cost_per_hour, watts, carbon_g_per_hour: of all pools.
        mean_response_s, quality: means over the requests that are served.
        rate, unserved_rate: all requests per second, and those that no tier takes.
        late: pools that miss the target.
        over: fields of `spec.objective.caps` that it does not keep.
        models: the model of each tier.
    """

    value: float
    cost_per_hour: float
    watts: float
    carbon_g_per_hour: float
    mean_response_s: float
    quality: float
    rate: float
    unserved_rate: float
    late: tuple[str, ...]
    over: tuple[str, ...]
    models: Mapping[str, str]

    @property
    def keeps(self) -> bool:
        """Whether all are served in time and within the caps."""
        return self.unserved_rate <= 0.0 and not self.late and not self.over


def in_order(gaid: GenAIDeployment, demand: Demand, placements: Sequence[Placement] | None = None) -> InOrder:
    """Return what the order of the file comes to for `demand`.

    Args:
        gaid: the service.
        demand: connections or a rate.
        placements: as `place(gaid)` gives them, or with other profiles.

    Raises:
        PlacementError: a tier can run none of its models.
    """
    endless = Limits({}, math.inf)  # where the tiers end is not asked for, and dear
    plan = make_plan(gaid, demand, placements or place(gaid), endless)
    used = {
        "cost": sum(one.energy.cost_per_hour for one in plan.pools),
        "energy": sum(one.energy.watts for one in plan.pools),
        "carbon": sum(one.energy.carbon_g_per_hour for one in plan.pools),
    }
    busy = [one for one in plan.pools if one.rate > 0.0]
    served = sum(one.rate for one in busy) or 1.0
    quality = {one.name: one.quality or 0.0 for one in gaid.spec.models}
    latency = sum(one.rate * one.mean_response_s for one in busy) / served
    return InOrder(
        value={**used, "latency": latency}[gaid.spec.objective.optimize.by],
        cost_per_hour=used["cost"],
        watts=used["energy"],
        carbon_g_per_hour=used["carbon"],
        mean_response_s=latency,
        quality=sum(one.rate * quality[one.placement.model] for one in busy) / served,
        rate=plan.rate,
        unserved_rate=plan.unserved_rate,
        late=tuple(one.placement.pool for one in busy if not one.meets),
        over=tuple(CAP_NAMES[name] for name, cap in caps_of(gaid).items() if used[name] > cap),
        models={one.placement.tier: one.placement.model for one in plan.pools},
    )


@dataclass(frozen=True, slots=True)
class Beside:
    """An allocation beside the order of the file; a PlacementError says why a tier can run none of its models.

    Attributes:
        order: what the file comes to as it is.
        steps: what to turn in it, in words; empty where nothing needs turning.
        turned: what it comes to then; `order` again where there are no steps.
    """

    order: InOrder | PlacementError
    steps: tuple[str, ...]
    turned: InOrder | PlacementError


def beside(gaid: GenAIDeployment, demand: Demand, best: Allocation) -> Beside:
    """Return what `demand` comes to in the order of the file, and after the file is turned towards `best`."""
    order = _tried(gaid, demand)
    turn = following(gaid, best, order.models if isinstance(order, InOrder) else {})
    return Beside(order, turn.steps, _tried(turn.changed, demand) if turn.steps else order)


def _tried(gaid: GenAIDeployment, demand: Demand) -> InOrder | PlacementError:
    try:
        return in_order(gaid, demand)
    except PlacementError as error:
        return error


@dataclass(frozen=True, slots=True)
class Following:
    """A service turned so that the order of its file comes near an allocation.

    Attributes:
        steps: what was turned, in words; empty where the file needs no turning.
        changed: the service after them.
    """

    steps: tuple[str, ...]
    changed: GenAIDeployment


def following(gaid: GenAIDeployment, best: Allocation, models: Mapping[str, str]) -> Following:
    """Return the service with the models of `best` named first, and its tiers filled in the order that suits it.

    Tiers without traffic are left out of the overflow, those without public traffic come last. A tier runs one model:
    where sites of one differ, it is the model with the most traffic. Shares cannot be written into the file.

    Args:
        gaid: the service.
        best: the allocation.
        models: what each tier runs now, by its name; a tier left out runs nothing.
    """
    steps, tiers = [], list(gaid.spec.tiers)
    for index, tier in enumerate(gaid.spec.tiers):
        wanted = _model_of(best, tier.name)
        if wanted is not None and wanted != models.get(tier.name):
            rest = [one.name for one in gaid.models_of(tier) if one.name != wanted]
            tiers[index] = tier.model_copy(update={"models": (wanted, *rest)})
            steps.append(f"name {wanted} first in spec.tiers[{index}].models")
    order = gaid.spec.routing.overflow or tuple(tier.name for tier in gaid.overflow)
    turned, routing = _turned(gaid, best, order), gaid.spec.routing
    if turned and turned != order:
        routing = routing.model_copy(update={"overflow": turned})
        steps.append(f"fill the tiers in this order: spec.routing.overflow: [{', '.join(turned)}]")
    spec = gaid.spec.model_copy(update={"tiers": tuple(tiers), "routing": routing})
    return Following(tuple(steps), gaid.model_copy(update={"spec": spec}))


def _turned(gaid: GenAIDeployment, best: Allocation, order: tuple[str, ...]) -> tuple[str, ...]:
    public = {one.name for one in gaid.spec.traffic if one.privacy == "public"}
    used = {one.placement.tier for one in best.pools if one.rate > 0.0}
    open_to_all = {one.placement.tier for one in best.pools if any(one.rates.get(name) for name in public)}
    return tuple(sorted((name for name in order if name in used), key=lambda name: name not in open_to_all))


def _model_of(best: Allocation, tier: str) -> str | None:
    rates: dict[str, float] = {}
    for one in best.pools:
        if one.placement.tier == tier:
            rates[one.placement.model] = rates.get(one.placement.model, 0.0) + one.rate
    return max(rates, key=lambda name: rates[name], default=None)
