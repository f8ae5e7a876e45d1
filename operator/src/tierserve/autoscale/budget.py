"""The error budget: what really happened outranks what was predicted.

The objective allows a share of late requests, its error budget (Beyer and others, "Site Reliability Engineering",
2016, ch. 3). The gateway counts responses and late ones. While more are late than that, the decision becomes more
cautious: a longer stabilization window and fewer late requests in the replay, more with each block of time until the
objective holds. While few are late it becomes less cautious, slowly.

While requests wait, all slots are busy, and the responses per busy slot show what a replica really carries (utilization
law; Denning and Buzen, "The operational analysis of queueing network models", 1978). Where that is less than the sizes
and service times of the settings promise, the load gets a margin.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from tierserve.autoscale.types import GatewaySample

HALF_LIFE_BLOCKS = 20.0
"""Half-life of the counts, in blocks: a few bursts, which come one in some blocks."""
_PRIOR = 100.0
"""Responses assumed at half the budget, and at the configured service time: a handful says little."""
_UP, _DOWN, MOST = 1.5, 0.95, 30.0
"""Factors on the caution in a block over the budget and in one with half of it left, and its maximum."""
_CALM = 0.5
_ERRORS, MOST_MARGIN = 2.0, 2.0
"""Standard errors of the responses counted that are left to chance, and the largest margin: service times twice the
configured ones."""


class Full(NamedTuple):
    """A pool whose slots are all busy, for requests wait.

    Attributes:
        since: since when that is so, with the same replicas.
        replicas: how many serve.
        rate: responses per second that the settings promise of them.
        service_s: service time of the settings, seconds.
    """

    since: float
    replicas: int
    rate: float
    service_s: float


class ErrorBudget(NamedTuple):
    """Late requests against those allowed. Start with `ErrorBudget()`.

    Attributes:
        caution: factor on the stabilization window, and the divisor of the late share that the replay may have.
        answered, late: responses and late ones, discounted.
        since: when the current block began, None before the first report.
        counted: the gateway's counters then.
        busy, served: requests that busy slots should have served while others waited, and those that they served;
            discounted.
        last: time of the last report, None after a gap, and the responses counted then.
        full: the pool while requests wait.
    """

    caution: float = 1.0
    answered: float = 0.0
    late: float = 0.0
    since: float | None = None
    counted: tuple[float, float] = (0.0, 0.0)
    busy: float = 0.0
    served: float = 0.0
    last: tuple[float, float] | None = None
    full: Full | None = None

    @property
    def margin(self) -> float:
        """Factor on the load that replicas are sized for."""
        served = self.served + _PRIOR
        return min(max((self.busy + _PRIOR) / (served + _ERRORS * math.sqrt(served)), 1.0), MOST_MARGIN)

    def used(self, may_miss: float) -> float:
        """Return the share of the error budget used up; above 1 the objective is missed."""
        return (self.late + 0.5 * may_miss * _PRIOR) / (may_miss * (self.answered + _PRIOR))


def update_budget(
    budget: ErrorBudget, gateway: GatewaySample | None, t: float, block_s: float, may_miss: float, *, full: Full | None
) -> ErrorBudget:
    """Return the budget after an observation; counts of late responses change it at the end of each block.

    Args:
        budget: the budget before.
        gateway: counters of the gateway, None without a report.
        t: time of the observation, Unix seconds.
        block_s: length of a block, seconds.
        may_miss: share of late requests that the objective allows.
        full: the pool now if requests wait, else None.
    """
    if gateway is None:
        return budget._replace(last=None, full=None)
    answered, late = gateway.answered - budget.counted[0], gateway.late - budget.counted[1]
    counted = (gateway.answered, gateway.late)
    if full is not None and budget.full is not None and budget.full.replicas == full.replicas:
        full = full._replace(since=budget.full.since)
    # Before a service time has passed the slots have just filled, and answer less than they will.
    if full is not None and budget.last is not None and t - full.since > full.service_s:
        before, known = budget.last
        if 0.0 < known <= gateway.answered:  # a gateway of others may not count responses, and one may restart
            budget = budget._replace(
                busy=budget.busy + full.rate * (t - before), served=budget.served + gateway.answered - known
            )
    budget = budget._replace(last=(t, gateway.answered), full=full)
    if budget.since is None or answered < 0.0 or late < 0.0:  # the first, or the gateway has restarted
        return budget._replace(since=t, counted=counted)
    if t - budget.since < block_s:
        return budget
    keep = 0.5 ** (1.0 / HALF_LIFE_BLOCKS)
    new = budget._replace(
        answered=budget.answered * keep + answered,
        late=budget.late * keep + late,
        busy=budget.busy * keep,
        served=budget.served * keep,
        since=t,
        counted=counted,
    )
    used = new.used(may_miss)
    if used > 1.0 and late > may_miss * answered:
        return new._replace(caution=min(budget.caution * _UP, MOST))
    return new._replace(caution=max(budget.caution * _DOWN, 1.0)) if used < _CALM else new
