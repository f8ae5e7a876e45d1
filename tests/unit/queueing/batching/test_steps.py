"""Steps as long as the prompts read in them: beside the simulator, and where prompts cost nothing."""

from __future__ import annotations

import numpy as np
import pytest

from tierserve.queueing import BatchProfile, BatchWork, batch_response, burst_response, sizes_of, step_noise
from tierserve.simulate.cluster import Setup
from tierserve.simulate.policies.static import Static
from tierserve.simulate.run import simulate
from tierserve.simulate.types import Objective, Pool, Workload

A100_8B = BatchProfile(alpha=0.0112, beta=1.03e-4, gamma=9.2e-8)


def long_prompts(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Prompts of 4,000 tokens and answers of 60, both uneven."""
    dice = np.random.default_rng(7)
    prompts = np.maximum(np.rint(4000.0 * np.exp(dice.normal(-0.32, 0.8, count))), 1.0)
    return prompts.astype(np.int64), np.maximum(np.rint(dice.exponential(60.0, count)), 1.0).astype(np.int64)


@pytest.mark.parametrize("replicas", [2, 8])
@pytest.mark.parametrize("load", [0.5, 0.7])
def test_long_prompts_delay_others_as_much_as_in_a_simulation_token_by_token(replicas: int, load: float) -> None:
    prompts, answers = long_prompts(30_000)
    work = BatchWork(A100_8B, 32, sizes_of(prompts, answers))
    lam = load * replicas * float(work.rates[-1])
    times = np.cumsum(np.random.default_rng(8).exponential(1.0 / lam, prompts.size))
    pool = Pool(A100_8B, 32, 0.0, Objective(), 4000.0, 60.0)
    asked = Workload(times, prompts, answers, float(times[-1]))
    seen = simulate(asked, pool, Static(pool, replicas), Setup("tokens", "central", replicas)).response_s[2000:]
    found, even = burst_response(lam, replicas, work), batch_response(lam, replicas, work)
    p95 = float(np.quantile(seen, 0.95))
    assert found.quantile(0.95) == pytest.approx(p95, rel=0.12)
    assert found.mean_response == pytest.approx(float(seen.mean()), rel=0.12)
    assert abs(found.quantile(0.95) - p95) < abs(even.quantile(0.95) - p95)


def test_prompts_that_cost_nothing_delay_nobody() -> None:
    work = BatchWork(BatchProfile(alpha=0.010, beta=0.0, gamma=0.0), 16, ((1.0, 5000.0, 200.0),))
    calm = batch_response(0.7 * 4 * float(work.rates[-1]), 4, work)
    found = step_noise(calm, 4, work)
    assert found.mean == pytest.approx(calm.free, rel=0.01)
    assert found.local_sd == pytest.approx(np.zeros(1), abs=1e-9)


def test_sizes_keep_the_tokens_and_nearly_their_squares() -> None:
    prompts, answers = long_prompts(20_000)
    shares, i, o = np.array(sizes_of(prompts, answers)).T
    assert shares.sum() == pytest.approx(1.0)
    assert shares @ i == pytest.approx(prompts.mean())
    assert shares @ o == pytest.approx(answers.mean())
    assert shares @ i**2 == pytest.approx((prompts.astype(float) ** 2).mean(), rel=0.05)
    assert shares @ o**2 == pytest.approx((answers.astype(float) ** 2).mean(), rel=0.1)
