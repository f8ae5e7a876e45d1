"""Wait and service of batching replicas: limits that are known, and a simulation token by token."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierserve.queueing import (
    BatchProfile,
    BatchWork,
    batch_queue,
    batch_response,
    lognormal_points,
    mean_response,
    mean_wait_general,
    wait_quantile,
)
from tierserve.queueing.batching.birth_death import _Chain, levels_of
from tierserve.simulate.cluster import Setup
from tierserve.simulate.run import simulate
from tierserve.simulate.types import Objective, Pool, Snapshot
from tierserve.simulate.workload import Sizes, poisson

PROFILE = BatchProfile(alpha=0.010, beta=2e-5, gamma=1e-7)
CONSTANT = BatchProfile(alpha=0.010, beta=0.0, gamma=0.0)
ALIKE = ((1.0, 500.0, 200.0),)


def test_where_a_full_batch_is_as_fast_as_an_empty_one_the_waits_are_those_of_erlang() -> None:
    work = BatchWork(CONSTANT, 8, ALIKE, service_cs2=1.0)
    service_s = 201 * 0.010
    lam = 0.9 * 4 * 8 / service_s
    found = batch_response(lam, 4, work)
    assert found.mean_response == pytest.approx(mean_response(32, lam, 1 / service_s), rel=1e-9)
    assert found.wait_quantile(0.95) == pytest.approx(wait_quantile(32, lam, 1 / service_s, 0.95), rel=1e-9)
    assert found.quantile(0.5) == pytest.approx(service_s, rel=1e-6)


def test_alike_requests_wait_about_half_as_long_as_uneven_ones() -> None:
    work = BatchWork(CONSTANT, 8, ALIKE)
    service_s = 201 * 0.010
    lam = 0.95 * 4 * 8 / service_s
    assert work.cs2 == pytest.approx(0.0, abs=1e-12)
    assert batch_response(lam, 4, work).mean_wait == pytest.approx(
        mean_wait_general(32, lam, 1 / service_s, 0.0), rel=1e-9
    )


class Fixed:
    """Always the same number of replicas."""

    interval_s = 1000.0

    def __init__(self, replicas: int) -> None:
        self.replicas = replicas

    def decide(self, seen: Snapshot) -> int:
        return self.replicas


@pytest.mark.parametrize(("replicas", "slots"), [(1, 16), (8, 64), (16, 8)])
@pytest.mark.parametrize("load", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("spread", [0.0, 0.7])
def test_mean_and_p95_are_those_of_a_simulation_token_by_token(
    replicas: int, slots: int, load: float, spread: float
) -> None:
    sizes = tuple((a * b, i, o) for a, i in lognormal_points(500.0, spread) for b, o in lognormal_points(200.0, spread))
    work = BatchWork(PROFILE, slots, sizes)
    lam = load * replicas * float(work.rates[-1])
    requests = poisson(lam, 40_000 / lam, Sizes(500.0, 200.0, spread), seed=4)
    pool = Pool(PROFILE, slots, 0.0, Objective(), 500.0, 200.0)
    run = simulate(requests, pool, Fixed(replicas), Setup("tokens", "central", replicas))
    seen = (run.end_s - run.arrive_s)[4_000:]
    found = batch_response(lam, replicas, work)
    luck = (
        0.02 if load == 0.9 and replicas * slots < 64 else 0.0
    )  # of so few requests; bench/queueing/simulator.py takes more
    assert found.mean_response == pytest.approx(float(np.nanmean(seen)), rel=0.02 + luck)
    assert found.quantile(0.95) == pytest.approx(float(np.nanquantile(seen, 0.95)), rel=0.05 + luck)


@pytest.mark.parametrize(("lam", "replicas", "slots"), [(5.0, 2, 8), (40.0, 8, 64), (130.0, 8, 64), (5000.0, 1000, 64)])
def test_the_deviation_of_the_batches_is_that_of_the_chain_state_by_state(
    lam: float, replicas: int, slots: int
) -> None:
    rates = BatchWork(PROFILE, slots, ALIKE).rates
    queue = batch_queue(lam, replicas, rates)
    states = np.arange(0.0, queue.servers + 1.0)
    log_weight = _Chain(lam, replicas, levels_of(rates)).log_weight(states)
    weight = np.exp(log_weight - log_weight.max())
    weight[-1] /= 1.0 - lam / queue.capacity
    weight /= weight.sum()
    mean = float(weight @ states)
    assert queue.batch_sd == pytest.approx(math.sqrt(float(weight @ (states - mean) ** 2)), rel=1e-4)


@given(load=st.floats(0.01, 0.99), replicas=st.integers(1, 50), slots=st.integers(1, 64), spread=st.floats(0.0, 1.5))
def test_quantile_and_survival_are_inverse_and_fall(load: float, replicas: int, slots: int, spread: float) -> None:
    work = BatchWork(PROFILE, slots, tuple((share, 300.0, o) for share, o in lognormal_points(200.0, spread)))
    found = batch_response(load * replicas * float(work.rates[-1]), replicas, work)
    times = [found.quantile(q) for q in (0.5, 0.9, 0.95, 0.99)]
    assert times == sorted(times)
    assert found.survival(times[2] * (1 + 1e-6)) - 1e-9 <= 0.05 <= found.survival(times[2] * (1 - 1e-6)) + 1e-9


@given(load=st.floats(0.1, 0.97), replicas=st.integers(1, 200))
def test_more_load_takes_longer_and_more_replicas_less(load: float, replicas: int) -> None:
    work = BatchWork(PROFILE, 16, ALIKE)
    lam = load * replicas * float(work.rates[-1])
    one = batch_response(lam, replicas, work)
    assert batch_response(lam, replicas + 1, work).mean_response <= one.mean_response * (1 + 1e-6)
    assert batch_response(lam * 0.95, replicas, work).mean_response <= one.mean_response * (1 + 1e-6)


def test_a_pool_that_cannot_bear_its_load_never_answers() -> None:
    work = BatchWork(PROFILE, 8, ALIKE)
    found = batch_response(2 * float(work.rates[-1]), 1, work)
    assert found.mean_response == found.quantile(0.5) == found.wait_quantile(0.5) == math.inf
    assert found.survival(1e9) == found.wait_survival(1e9) == 1.0


@given(mean=st.floats(1.0, 1e5), spread=st.floats(0.0, 3.0))
def test_points_of_a_lognormal_keep_its_mass_and_mean(mean: float, spread: float) -> None:
    points = lognormal_points(mean, spread)
    assert sum(share for share, _ in points) == pytest.approx(1.0)
    assert sum(share * value for share, value in points) == pytest.approx(mean)


@pytest.mark.parametrize(
    ("sizes", "slots", "said"), [((), 4, "sizes"), (((0.5, 1.0, 1.0),), 4, "sizes"), (ALIKE, 0, "slots")]
)
def test_work_that_makes_no_sense_is_refused_by_name(
    sizes: tuple[tuple[float, float, float], ...], slots: int, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        BatchWork(PROFILE, slots, sizes)


def test_a_quantile_between_two_sizes_is_the_time_of_the_shorter() -> None:
    sizes = ((0.6, 300.0, 100.0), (0.3, 300.0, 200.0), (0.1, 300.0, 400.0))  # for floats 1 - 0.9 is less than 0.1
    work = BatchWork(PROFILE, 8, sizes)
    found = batch_response(0.01 * float(work.rates[-1]), 1, work)
    times = [PROFILE.service_time(1, 300.0, o) for o in (200.0, 400.0)]
    assert found.quantile(0.9) == pytest.approx(times[0], rel=0.1)
    assert found.quantile(0.91) == pytest.approx(times[1], rel=0.1)
