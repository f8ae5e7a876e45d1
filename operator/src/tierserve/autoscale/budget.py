"""The error budget: what really happened outranks what was predicted.

The objective allows a share of late requests, its error budget (Beyer and others, "Site Reliability Engineering",
2016, ch. 3). The gateway counts responses and late ones. While more are late than that, the decision becomes more
cautious: a longer stabilization window and fewer late requests in the replay, more with each block of time until the
objective holds. While few are late it becomes less cautious, slowly.

Where requests wait and are late though no replica is starting, the sizing itself is too small (sizes or service times
are not what was configured): then a margin on the load grows too, and brings replicas.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from tierserve.autoscale.types import GatewaySample, Observation

HALF_LIFE_BLOCKS = 20.0
"""Half-life of the counts, in blocks: a few bursts, which come one in some blocks."""
_PRIOR = 100.0
"""Responses assumed at half the budget: a handful of late ones says little."""
_UP, _DOWN, MOST = 1.5, 0.95, 30.0
"""Factors on the caution in a block over the budget and in one with half of it left, and its maximum."""
_CALM = 0.5
_MORE, _LESS, MOST_MARGIN = 1.1, 0.99, 2.0
"""The same of the margin: HPA's tolerance is 10% too; slowly back, for a step too far back is a block of late ones."""


class ErrorBudget(NamedTuple):
    """Late requests against those allowed. Start with `ErrorBudget()`.

    Attributes:
        caution: factor on the stabilization window, and the divisor of the late share that the replay may have.
        answered, late: responses and late ones, discounted.
        since: when the current block began, None before the first report.
        counted: the gateway's counters then.
        margin: factor on the load that replicas are sized for.
        waited: when requests waited last.
        limited: when a replica was starting last, or the target was the maximum: waits have that cause then.
    """

    caution: float = 1.0
    answered: float = 0.0
    late: float = 0.0
    since: float | None = None
    counted: tuple[float, float] = (0.0, 0.0)
    margin: float = 1.0
    waited: float = -math.inf
    limited: float = -math.inf

    def used(self, may_miss: float) -> float:
        """Return the share of the error budget used up; above 1 the objective is missed."""
        return (self.late + 0.5 * may_miss * _PRIOR) / (may_miss * (self.answered + _PRIOR))


def update_budget(
    budget: ErrorBudget,
    gateway: GatewaySample | None,
    obs: Observation,
    block_s: float,
    may_miss: float,
    *,
    waits: bool,
) -> ErrorBudget:
    """Return the budget after an observation; it changes at the end of each block.

    Args:
        budget: the budget before.
        gateway: counters of the gateway, None without a report.
        obs: the observation; its time, replicas and bounds are used.
        block_s: length of a block, seconds.
        may_miss: share of late requests that the objective allows.
        waits: whether requests wait now.
    """
    if gateway is None:
        return budget
    answered, late = gateway.answered - budget.counted[0], gateway.late - budget.counted[1]
    counted = (gateway.answered, gateway.late)
    if waits:
        budget = budget._replace(waited=obs.t)
    if obs.running < obs.target or obs.target >= obs.max_replicas:
        budget = budget._replace(limited=obs.t)
    if budget.since is None or answered < 0.0 or late < 0.0:  # the first, or the gateway has restarted
        return budget._replace(since=obs.t, counted=counted)
    if obs.t - budget.since < block_s:
        return budget
    waited = budget.waited > budget.since
    keep = 0.5 ** (1.0 / HALF_LIFE_BLOCKS)
    new = budget._replace(
        answered=budget.answered * keep + answered, late=budget.late * keep + late, since=obs.t, counted=counted
    )
    used = new.used(may_miss)
    if used > 1.0 and late > may_miss * answered:
        # those who waited for a replica that was starting are answered up to a block later
        short = waited and obs.t - budget.limited >= 2.0 * block_s
        margin = min(budget.margin * _MORE, MOST_MARGIN) if short else budget.margin
        return new._replace(caution=min(budget.caution * _UP, MOST), margin=margin)
    if used < _CALM:
        return new._replace(caution=max(budget.caution * _DOWN, 1.0), margin=max(budget.margin * _LESS, 1.0))
    return new
