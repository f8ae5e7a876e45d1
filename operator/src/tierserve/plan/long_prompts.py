"""Where a plan is too hopeful because prompts are long.

The plan spreads the work of a request evenly over its steps. A long prompt is read in one step though, in which no
answer beside it goes on; what that adds `queueing.batch_steps` tells.
"""

from __future__ import annotations

from tierserve.plan.capacity import PoolPlan
from tierserve.plan.pool import work_of
from tierserve.queueing.batch_bursts import burst_response

NOTABLE = 0.1
"""Share of the planned response time that is worth a word."""


def held_up_s(pool: PoolPlan) -> float | None:
    """Return the planned percentile of the response with prompts read in one step each, seconds.

    Errors beside simulation: docs/benchmarks/trace-prediction.md (-12 to +26% where prompts are long, up to +65% with
    one to four replicas near their capacity).

    Returns:
        t_UL + wait and service + t_DL; None where it is not a tenth more than planned, where nobody asks,
        or where a replica has one request at a time.
    """
    one = pool.placement
    if one.slots == 1 or pool.rate <= 0.0 or pool.rate >= pool.replicas * one.rate:
        return None
    found = burst_response(pool.rate, pool.replicas, work_of(one)).quantile(one.percentile / 100.0) + one.network_s
    return found if found > (1.0 + NOTABLE) * pool.response_s else None
