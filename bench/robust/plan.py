"""Replicas that `tierserve plan` gives for a load before it runs: for its busiest hour, by the planner's own sizing."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from bench.robust.loads import Load, services_s
from tierserve.plan.placement import Placement
from tierserve.plan.pool_sizing import replicas_for, response_of

HOUR_S = 3600.0
_STEP_S = 60.0
_EDGES = (*np.linspace(0.0, 0.9, 10), 0.925, 0.95, 0.965, 0.98, 0.99, 0.995, 1.0)
"""Requests are grouped by their service time, finer where the percentiles of an objective are."""


def busiest_rate(load: Load) -> float:
    """Return the mean rate of the busiest hour, that of the whole load where it is no longer."""
    work = load.workload
    if work.length_s <= HOUR_S:
        return len(work) / work.length_s
    starts = np.append(np.arange(0.0, work.length_s - HOUR_S, _STEP_S), work.length_s - HOUR_S)
    counts = np.searchsorted(work.times_s, starts + HOUR_S) - np.searchsorted(work.times_s, starts)
    return float(counts.max()) / HOUR_S


def placement_of(load: Load) -> Placement:
    """Return the pool as the planner has it, with the sizes of the load as its classes."""
    work, pool, goal = load.workload, load.pool, load.pool.objective
    service = services_s(work, pool.profile, float(pool.slots))
    order = np.argsort(service)
    ends = np.unique((np.array(_EDGES) * len(work)).astype(int))
    groups = [order[low:high] for low, high in pairwise(ends)]
    sizes = tuple(
        (g.size / len(work), float(work.input_tokens[g].mean()), float(work.output_tokens[g].mean())) for g in groups
    )
    return Placement(
        tier="cloud", site="default", kind="cloud", model="m", engine="vllm", source=None, slots=pool.slots,
        profile=pool.profile, input_tokens=pool.input_tokens, output_tokens=pool.output_tokens, uplink_s=0.0,
        downlink_s=0.0, min_replicas=1, max_replicas=pool.max_replicas, startup_s=pool.startup_s,
        percentile=goal.percentile, target_s=goal.response_s, sizes=sizes, spread_known=True,
        service_tail_s=float(np.quantile(service, goal.percentile / 100.0)),
    )  # fmt: skip


def planned(load: Load) -> int:
    """Return the fewest replicas for both targets at the rate of the busiest hour.

    The planner sizes for the response. Its formula for the wait has the first token: wait and the prefill of a mean
    prompt in a full batch.
    """
    place, rate, goal = placement_of(load), busiest_rate(load), load.pool.objective
    replicas = max(1, replicas_for(place, rate))
    patience_s = goal.ttft_s - load.pool.profile.prefill(
        load.pool.slots, load.pool.input_tokens, load.pool.output_tokens
    )
    while response_of(place, replicas, rate).wait_survival(patience_s) > 1.0 - goal.percentile / 100.0:
        replicas += 1
    return min(replicas, load.pool.max_replicas)
