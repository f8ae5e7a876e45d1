"""A plan that is too hopeful because prompts are long says so, and by about as much as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tierserve.api import GenAIDeployment
from tierserve.plan.capacity import PoolPlan, pool_plan
from tierserve.plan.long_prompts import NOTABLE, held_up_s
from tierserve.plan.placement import Placement, place
from tierserve.queueing import BatchProfile
from tierserve.simulate.arrivals import Sizes, poisson
from tierserve.simulate.cluster import Setup
from tierserve.simulate.model import Objective, Pool
from tierserve.simulate.policies.static import Static
from tierserve.simulate.run import simulate

REPLICAS, LOAD = 4, 0.7


def planned(gaid: GenAIDeployment, input_tokens: float, output_tokens: float) -> PoolPlan:
    """A pool of four replicas of 16 slots, an 8B model on an A100, at 70% of what they finish."""
    one: Placement = replace(
        place(gaid)[0],
        profile=BatchProfile(alpha=0.0112, beta=1.03e-4, gamma=9.2e-8),
        slots=16,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        sizes=((1.0, input_tokens, output_tokens),),
        spread_known=True,
        min_replicas=REPLICAS,
        max_replicas=REPLICAS,
        target_s=100.0,
    )
    return pool_plan(gaid, one, LOAD * REPLICAS * one.rate)


def simulated_p95(pool: PoolPlan) -> float:
    one = pool.placement
    work = poisson(pool.rate, 30_000.0 / pool.rate, Sizes(one.input_tokens, one.output_tokens), 1)
    replicas = Pool(one.profile, one.slots, 1.0, Objective(), one.input_tokens, one.output_tokens)
    found = simulate(work, replicas, Static(replicas, float(REPLICAS)), Setup(initial=REPLICAS, seed=1))
    return float(np.quantile(found.response_s, 0.95)) + one.network_s


def test_prompts_that_hold_up_the_batch_make_the_response_as_long_as_it_says(
    service: Callable[..., GenAIDeployment],
) -> None:
    pool = planned(service(), 3000.0, 30.0)
    found, seen = held_up_s(pool), simulated_p95(pool)
    assert found is not None
    assert pool.response_s < 0.9 * seen, "what the plan alone says"
    assert abs(found / seen - 1.0) < 0.15


def test_where_answers_make_up_the_work_it_says_nothing(service: Callable[..., GenAIDeployment]) -> None:
    pool = planned(service(), 300.0, 300.0)
    assert held_up_s(pool) is None
    assert abs(pool.response_s / simulated_p95(pool) - 1.0) < NOTABLE


def test_where_nobody_asks_or_too_many_do_or_one_at_a_time_it_says_nothing(
    service: Callable[..., GenAIDeployment],
) -> None:
    pool = planned(service(), 3000.0, 30.0)
    assert held_up_s(replace(pool, rate=0.0)) is None
    assert held_up_s(replace(pool, placement=replace(pool.placement, slots=1))) is None
    assert held_up_s(replace(pool, rate=2.0 * REPLICAS * pool.placement.rate)) is None
