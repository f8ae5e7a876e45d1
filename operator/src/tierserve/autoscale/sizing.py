"""The question that a decision puts to Erlang C: the load to carry, and the wait that may be (pure).

The decision (autoscale.demand) and its explanation (status.explanation) share it, so that both have the same figures.
"""

from __future__ import annotations

import math

from tierserve.queueing.sizing import Demand, Objective

WAITS = 0.1  # of a service time: the least wait that counts as late, where the target leaves less


def wait_allowed_s(service_s: float, target_s: float, longest_s: float = math.inf) -> float:
    """Return how long a request may wait and still meet the objective, seconds.

    Args:
        service_s: mean service time.
        target_s: response-time target without the network.
        longest_s: longest wait that leaves the first token in time; inf without such an objective.
    """
    return max(min(target_s - service_s, longest_s), WAITS * service_s)


def load_to_carry(demand: Demand, headroom: float, margin: float) -> Demand:
    """Return the demand with the headroom of the file and the margin of the error budget (autoscale.budget)."""
    return demand.at(demand.load * (1.0 + headroom) * margin)


def wait_objective(percentile: float, allowed_s: float) -> Objective:
    """Return the objective that only waits count for: `percentile` % of the requests wait no longer."""
    return Objective(math.inf, percentile, allowed_s)
