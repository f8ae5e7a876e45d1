"""Arrivals as they were counted: a steady rate, an overload that ends, and two rates beside the simulator."""

from __future__ import annotations

import numpy as np
import pytest

from tierserve.queueing import BatchProfile, BatchWork, burst_response, replay_response, sizes_of
from tierserve.simulate.cluster import Setup
from tierserve.simulate.policies.static import Static
from tierserve.simulate.run import simulate
from tierserve.simulate.types import Objective, Pool
from tierserve.simulate.workload import Sizes, bursts

PROFILE = BatchProfile(alpha=0.010, beta=2e-5, gamma=1e-7)
ALIKE = ((1.0, 500.0, 200.0),)


@pytest.mark.parametrize(("replicas", "slots"), [(4, 32), (16, 8), (40, 64)])
@pytest.mark.parametrize("load", [0.4, 0.7])
def test_a_steady_rate_is_answered_as_poisson_arrivals_are(replicas: int, slots: int, load: float) -> None:
    work = BatchWork(PROFILE, slots, ALIKE)
    lam = load * replicas * float(work.rates[-1])
    found, calm = replay_response(np.full(600, lam), 1.0, replicas, work), burst_response(lam, replicas, work)
    assert found.mean_response == pytest.approx(calm.mean_response, rel=0.06)
    assert found.quantile(0.95) == pytest.approx(calm.quantile(0.95), rel=0.06)


def test_a_rate_of_twice_what_the_pool_bears_waits_for_half_of_the_time_that_it_lasts() -> None:
    work = BatchWork(PROFILE, 32, ALIKE)
    lam = 2.0 * 8 * float(work.rates[-1])
    counts = np.concatenate([np.full(400, lam), np.zeros(100)])
    found = replay_response(counts, 1.0, 8, work)
    assert found.mean_wait == pytest.approx(200.0, rel=0.04)  # the last to come find 400 s of arrivals, half unserved
    assert found.quantile(0.95) == pytest.approx(0.95 * 400.0 + work.full_s, rel=0.04)


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_two_rates_in_turns_are_answered_as_in_a_simulation_token_by_token(load: float) -> None:
    sizes = Sizes(1000, 300, 0.5)
    probe = bursts(1.0, 4.0, low_s=60.0, high_s=30.0, length_s=1e4, sizes=sizes, seed=3)
    work = BatchWork(PROFILE, 32, sizes_of(probe.input_tokens, probe.output_tokens))
    low = load * 8 * float(work.rates[-1]) / 2.0
    asked = bursts(low, 4.0 * low, low_s=60.0, high_s=30.0, length_s=4000.0, sizes=sizes, seed=5)
    pool = Pool(PROFILE, 32, 0.0, Objective(), 1000.0, 300.0)
    seen = simulate(asked, pool, Static(pool, 8), Setup("tokens", "central", 8)).response_s
    found = replay_response(np.bincount(asked.times_s.astype(int)), 1.0, 8, work)
    assert found.quantile(0.95) == pytest.approx(float(np.quantile(seen, 0.95)), rel=0.15)


def test_more_replicas_answer_sooner() -> None:
    work = BatchWork(PROFILE, 16, ALIKE)
    counts = np.tile([30.0] * 20 + [5.0] * 40, 10)
    times = [replay_response(counts, 1.0, replicas, work).quantile(0.95) for replicas in (2, 3, 4, 6)]
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("counts", [[0.0, 0.0], [-1.0, 2.0], [float("nan")]])
def test_counts_without_an_arrival_or_without_sense_are_refused(counts: list[float]) -> None:
    with pytest.raises(ValueError, match="counts"):
        replay_response(counts, 1.0, 1, BatchWork(PROFILE, 8, ALIKE))
