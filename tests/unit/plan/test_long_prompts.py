"""Where long prompts hold up the answers beside them a plan has the replicas and the times that a simulation finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tierserve.api import GenAIDeployment
from tierserve.plan.capacity import pool_plan
from tierserve.plan.placement import Placement
from tierserve.plan.pool_sizing import even_replicas_for, held_up, most_rate, replicas_for, response_of, work_of
from tierserve.queueing import BatchProfile, batch_response, lognormal_points
from tierserve.simulate.cluster import Setup
from tierserve.simulate.policies.static import Static
from tierserve.simulate.run import simulate
from tierserve.simulate.types import Objective, Pool, Workload

A100_8B = BatchProfile(alpha=0.0112, beta=1.03e-4, gamma=9.2e-8)
CODE, MOONCAKE, CHAT = (2000.0, 28.0), (12_000.0, 340.0), (300.0, 300.0)
UNEVEN = 0.8


def pool(tokens: tuple[float, float], spread: float = UNEVEN, target_s: float = 100.0) -> Placement:
    """Replicas of 16 slots, an 8B model on an A100; answers are lognormal."""
    i, o = tokens
    sizes = tuple((share, i, each) for share, each in lognormal_points(o, spread))
    return Placement(
        "cloud", "default", "cloud", "m", "emulated", None, 16, A100_8B, i, o, 0.0, 0.0, 0, 1000, 60.0,
        percentile=95.0, target_s=target_s, sizes=sizes, spread_known=True,
    )  # fmt: skip


def tight(slots: int) -> Placement:
    """Like requests of code completion, with a target that leaves an eighth of a full service for the rest."""
    one = replace(pool(CODE, 0.0), slots=slots)
    return replace(one, target_s=1.12 * one.service_s)


def simulated(one: Placement, replicas: int, rate: float, spread: float = UNEVEN) -> np.ndarray:
    """Responses of 20,000 requests at random times, token by token, in seconds, but for the first tenth."""
    dice, sigma = np.random.default_rng(1), np.sqrt(np.log1p(spread * spread))
    times = np.cumsum(dice.exponential(1.0 / rate, 20_000))
    answers = one.output_tokens * np.exp(dice.normal(-0.5 * sigma * sigma, sigma, times.size))
    answers = np.maximum(np.rint(answers), 1.0).astype(np.int64)
    work = Workload(times, np.full(times.size, int(one.input_tokens)), answers, float(times[-1]))
    like = Pool(one.profile, one.slots, 0.0, Objective(), one.input_tokens, one.output_tokens)
    found = simulate(work, like, Static(like, float(replicas)), Setup("tokens", "central", replicas))
    return found.response_s[2000:]


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [CODE, MOONCAKE])
@pytest.mark.parametrize("spread", [0.0, UNEVEN])
@pytest.mark.parametrize("replicas", [1, 4, 16])
def test_the_planned_percentile_of_long_prompts_is_that_of_a_simulation(
    tokens: tuple[float, float], spread: float, replicas: int
) -> None:
    one = pool(tokens, spread)
    rate = 0.6 * replicas * one.rate
    seen = simulated(one, replicas, rate, spread)
    told, even = response_of(one, replicas, rate), batch_response(rate, replicas, work_of(one))
    p95 = float(np.quantile(seen, 0.95))
    assert held_up(one)
    assert told.quantile(0.95) == pytest.approx(p95, rel=0.06 if replicas > 1 else 0.15)
    assert told.mean_response == pytest.approx(float(seen.mean()), rel=0.07)
    assert even.quantile(0.95) < told.quantile(0.95)


@pytest.mark.slow
@pytest.mark.parametrize("slots", [4, 16])
def test_the_planned_replicas_keep_the_target_in_a_simulation_where_those_for_even_steps_do_not(slots: int) -> None:
    one = tight(slots)
    rate = 0.7 * 12 * one.rate
    enough, even = replicas_for(one, rate), even_replicas_for(one, rate)
    within = [float((simulated(one, n, rate, 0.0) <= one.target_s).mean()) for n in (enough, even)]
    assert enough == even + 1
    assert within[0] >= 0.95 > within[1]


def test_where_answers_make_up_the_work_nothing_is_added() -> None:
    for spread in (0.0, UNEVEN):
        one = pool(CHAT, spread, target_s=8.0)
        assert not held_up(one)
        assert replicas_for(one, 50.0) == even_replicas_for(one, 50.0)
        told, even = response_of(one, 4, 2.5 * one.rate), batch_response(2.5 * one.rate, 4, work_of(one))
        assert (told.quantile(0.95), told.mean_response) == (even.quantile(0.95), even.mean_response)


def test_one_request_at_a_time_holds_up_nobody() -> None:
    assert not held_up(replace(pool(CODE), slots=1))


def test_a_plan_says_how_many_replicas_are_for_long_prompts(service: Callable[..., GenAIDeployment]) -> None:
    gaid, one = service(), tight(4)
    rate = 0.7 * 12 * one.rate
    plan = pool_plan(gaid, one, rate)
    assert (plan.for_long_prompts, plan.meets) == (1, True)
    assert plan.response_s <= one.target_s
    assert pool_plan(gaid, replace(one, min_replicas=plan.replicas), rate).for_long_prompts == 0
    short = pool_plan(gaid, replace(one, max_replicas=plan.replicas - 1), rate)
    assert (short.for_long_prompts, short.meets, short.binds) == (0, False, "replicas.max")
    assert short.capacity < rate
    ahead = pool_plan(gaid, replace(one, headroom=0.5), rate)
    assert ahead.for_long_prompts == replicas_for(one, 1.5 * rate) - even_replicas_for(one, 1.5 * rate)
    assert pool_plan(gaid, one, 0.0).for_long_prompts == 0


@pytest.mark.parametrize("replicas", [1, 4, 16])
def test_the_capacity_of_long_prompts_is_the_rate_up_to_which_the_replicas_do(replicas: int) -> None:
    one = tight(4)
    most = most_rate(one, replicas)
    assert response_of(one, replicas, most).quantile(0.95) == pytest.approx(one.target_s, rel=1e-6)
    assert [replicas_for(one, x * most) for x in (0.9999, 1.0001)] == [replicas, replicas + 1]
