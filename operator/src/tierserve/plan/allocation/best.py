"""Which variant runs on which tier and site, with how many replicas and which share of the traffic, at least cost.

`best_allocation` minimises what `spec.objective.optimize.by` names (money, watts, grams of CO2e or mean response time)
over all plans that keep the response-time target for every class, never send a class where it may not be seen, fit
memory, downlink, and the bounds of replicas, and stay under the caps. Where there is none, `Infeasible` names the
smallest change of the file that makes one possible (`relaxation`).

It solves twice. The first time all traffic is fresh. Of that plan it takes what is blocked at each pool and overflows
to the next tier that the plan uses; the second time this is added to the load of the pool it goes to, and that pool is
planned for bursts (`overflow`). Pools are planned for what they would bear if nothing overflowed from them.
"""

from __future__ import annotations

from collections.abc import Sequence

from tierserve.api.v1alpha1.deployment import GenAIDeployment
from tierserve.plan.allocation.candidates import Group
from tierserve.plan.allocation.optimum import find
from tierserve.plan.allocation.relaxation import advise
from tierserve.plan.allocation.types import Allocation, Infeasible


def best_allocation(
    gaid: GenAIDeployment, rate: float, *, bursty: bool = True, groups: Sequence[Group] | None = None
) -> Allocation | Infeasible:
    """Return the best plan for `rate` requests per second, or the smallest change that makes one possible.

    Args:
        gaid: the service.
        rate: requests per second, >= 0, split over the classes by their shares.
        bursty: whether what overflows between pools is added and planned as bursts (the second pass).
        groups: as `groups_of(gaid)` gives them; left out, they are made here (they do not depend on the demand).

    Raises:
        ValueError: `rate` is negative.
    """
    if not rate >= 0.0:
        raise ValueError(f"rate must be >= 0, got {rate}: give the requests per second")
    found = find(gaid, rate, bursty=bursty, groups=groups)
    if found is not None:
        return found
    return advise(gaid, rate, bursty=bursty)
