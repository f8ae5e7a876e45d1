"""What an allocation is: pools with their shares of the traffic, or the smallest change that makes one possible."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tierserve.api.v1alpha1.deployment import GenAIDeployment
from tierserve.plan.allocation.candidates import Option
from tierserve.plan.energy import Energy
from tierserve.plan.placement import Placement

CAP_NAMES = {"cost": "costPerHour", "energy": "power", "carbon": "carbonPerHour"}
"""Fields of `spec.objective.caps` by what they bound."""


@dataclass(frozen=True, slots=True)
class PoolShare:
    """One pool of an allocation. Times in seconds, rates in requests per second.

    Attributes:
        placement: tier, site, model, slots and profile.
        replicas: R.
        rates: of each class that is sent here.
        overflow: rate that comes from pools before it that were full.
        peakedness: of all arrivals, 1 where they are fresh.
        capacity: the most of the mean request that R replicas take within the objective.
        work: the same unit: what rates and overflow amount to.
        mean_response_s: network, wait and service; of fresh arrivals.
        late: share of the requests that wait longer than the target leaves them (bursts not counted).
        binds: what sets R: `replicas.min`, `replicas.max`, `downlink`, `headroom` or `objective`.
        energy: watts, money and carbon.
        option: the variant and the classes it was planned for.
    """

    placement: Placement
    replicas: int
    rates: Mapping[str, float]
    overflow: float
    peakedness: float
    capacity: float
    work: float
    mean_response_s: float
    late: float
    binds: str
    energy: Energy
    option: Option

    @property
    def rate(self) -> float:
        """Requests per second that are sent here, without what overflows from elsewhere."""
        return sum(self.rates.values())


@dataclass(frozen=True, slots=True)
class Allocation:
    """The best plan for one demand.

    Attributes:
        rate: all requests per second.
        objective: cost, energy, carbon or latency.
        value: cost per hour, watts, grams of CO2e per hour or mean seconds, after `objective`.
        pools: those with a replica, in the order of the file.
        cost_per_hour, watts, carbon_g_per_hour: of all pools.
        mean_response_s: over all requests.
        quality: mean over all requests of the qualities given; models without one count as 0.
        binding: fields of the file without which there might be a better plan.
        gap: by how much `value` may miss the best (relative); 0 where it is proven within 1e-7.
    """

    rate: float
    objective: str
    value: float
    pools: tuple[PoolShare, ...]
    cost_per_hour: float
    watts: float
    carbon_g_per_hour: float
    mean_response_s: float
    quality: float
    binding: tuple[str, ...]
    gap: float

    def pool(self, name: str) -> PoolShare:
        """The pool tier-site; KeyError if nothing runs there."""
        return {one.placement.pool: one for one in self.pools}[name]

    def shares(self, traffic: str) -> dict[str, float]:
        """Part of a class that each pool gets; they sum to 1. Empty without traffic."""
        rates = {one.placement.pool: one.rates[traffic] for one in self.pools if traffic in one.rates}
        total = sum(rates.values())
        return {name: rate / total for name, rate in rates.items()} if total > 0.0 else {}


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one field.

    Attributes:
        path: of the field.
        before, after: its value as the file writes it.
        relative: |after - before| / before.
        message: what to do, such as "raise spec.tiers[0].replicas.max from 4 to 7".
    """

    path: str
    before: str
    after: str
    relative: float
    message: str


@dataclass(frozen=True, slots=True)
class Infeasible:
    """No plan keeps the objective at this demand.

    Attributes:
        rate: all requests per second.
        reason: which class or bound stands in the way.
        changes: the smallest change that makes a plan possible (several fields only where no single one does); empty
            where none of replicas, caps, target and downlink helps.
        changed: the service with the changes made; None where there are none.
    """

    rate: float
    reason: str
    changes: tuple[Change, ...]
    changed: GenAIDeployment | None

    @property
    def hint(self) -> str:
        """What to do about it."""
        changes = " and ".join(one.message for one in self.changes)
        return changes or "give a tier that may see the class and a model that is fast enough on it"

    def format(self) -> str:
        """Reason and hint, as people read them."""
        return f"{self.reason}\n    {self.hint}"
