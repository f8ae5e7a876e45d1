"""Step times of a batch."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest

from tierserve.queueing import BatchProfile
from tierserve.simulate.cluster import Setup
from tierserve.simulate.run import simulate
from tierserve.simulate.types import Objective, Pool, Snapshot, Workload

PROFILE = BatchProfile(alpha=0.010, beta=2e-5, gamma=1e-7)


def test_a_step_costs_its_fixed_part_and_a_part_per_request() -> None:
    assert PROFILE.iteration(0, 300, 200) == 0.010
    per_request = 2e-5 * 500 / 201 + 1e-7 * 400
    assert PROFILE.iteration(8, 300, 200) == pytest.approx(0.010 + 8 * per_request)


def test_the_service_is_one_prefill_and_a_decode_per_token() -> None:
    # seven others each add 20 us x 500 / 201 + 0.1 us x 400 = 89.7512 us to a step of 10 ms
    assert PROFILE.prefill(8, 300, 200) == pytest.approx(0.010628259 + 0.00603)
    assert PROFILE.decode(8, 300, 200) == pytest.approx(0.010628259 + 0.00006)
    assert PROFILE.service_time(8, 300, 200) == pytest.approx(2.15431)
    assert PROFILE.rate(8, 300, 200) == pytest.approx(8 / 2.15431)


def test_alone_a_request_takes_its_steps_and_its_tokens_once() -> None:
    # 201 steps of 10 ms, 500 tokens at 20 us, contexts of 300 once and of 400 on average 200 times at 0.1 us
    assert PROFILE.service_time(1, 300, 200) == pytest.approx(2.01 + 0.010 + 0.00803)
    assert PROFILE.own(300, 200) == pytest.approx(0.01803)


@pytest.mark.parametrize(("n", "i", "o"), [(1, 300, 200), (8, 300, 200), (64, 4000, 100)])
def test_models_that_count_a_request_twice_have_its_share_in_every_step_too_much(n: int, i: int, o: int) -> None:
    """As WVA's does: pre = it(n) + (beta + gamma) i, dec = it(n) + beta + gamma (i + o / 2), T = pre + o dec."""
    alpha, beta, gamma = 0.010, 2e-5, 1e-7
    step = alpha + n * (beta * (i + o) / (o + 1) + gamma * (i + o / 2))
    twice = step + (beta + gamma) * i + o * (step + beta + gamma * (i + o / 2))
    share = PROFILE.share(((1.0, i, o),))
    assert twice - PROFILE.service_time(n, i, o) == pytest.approx((o + 1) * share, rel=1e-9)
    assert twice == pytest.approx(PROFILE.service_time(n + 1, i, o), rel=1e-9)


@pytest.mark.parametrize("slots", [1, 4, 16, 64])
@pytest.mark.parametrize(
    ("profile", "i", "o"), [(PROFILE, 1000, 200), (BatchProfile(0.0112, 1.03e-4, 9.2e-8), 4000, 100)]
)
def test_in_a_replica_that_is_always_full_service_takes_t_of_n(
    profile: BatchProfile, i: int, o: int, slots: int
) -> None:
    """Token by token. The first ones come evenly spread over a service time, then there is always somebody waiting."""
    many = 12 * slots
    times = np.minimum(np.arange(many), slots - 1) * profile.service_time(slots, i, o) / slots
    work = Workload(times, np.full(many, i), np.full(many, o), float(times[-1]) + 1.0)
    run = simulate(work, Pool(profile, slots, 0.0, Objective(), i, o), Fixed(), Setup("tokens", "central", 1))
    served = (run.end_s - run.start_s)[2 * slots : -slots]
    assert profile.service_time(slots, i, o) == pytest.approx(float(served.mean()), rel=0.01)


class Fixed:
    """Always one replica."""

    interval_s = 1e6

    def decide(self, seen: Snapshot) -> int:
        return 1


def test_a_mixture_of_one_size_is_that_size_and_else_the_others_are_the_mixture() -> None:
    one = ((1.0, 300.0, 200.0),)
    assert PROFILE.service_times(8, one) == pytest.approx((PROFILE.service_time(8, 300, 200),))
    two = ((0.5, 300.0, 200.0), (0.5, 900.0, 40.0))
    # 10 + 8.04 ms in 201 steps of the one, 18.8 + 3.772 ms in 41 steps of the other: 40.612 ms in 242 steps
    share = PROFILE.share(two)
    assert share == pytest.approx(0.040612 / 242)
    short = 41 * (0.010 + 7 * share) + (2e-5 + 1e-7) * 900 + 40 * (2e-5 + 1e-7 * 920)
    assert PROFILE.service_times(8, two)[1] == pytest.approx(short)
    assert PROFILE.mean_service_time(8, two) == pytest.approx(0.5 * sum(PROFILE.service_times(8, two)))


def test_a_fuller_batch_is_slower_for_each_and_faster_for_all() -> None:
    times = [PROFILE.service_time(n, 300, 200) for n in range(1, 65)]
    rates = [PROFILE.rate(n, 300, 200) for n in range(65)]
    assert times == sorted(times)
    assert rates == sorted(rates)
    assert rates[0] == 0.0


def test_the_largest_batch_takes_the_time_it_is_given() -> None:
    n = PROFILE.largest_batch(300, 200, 2.5)
    assert n == pytest.approx(1 + (2.5 - 2.02803) / 0.01804)
    assert PROFILE.service_time(n, 300, 200) == pytest.approx(2.5)
    assert PROFILE.largest_batch(300, 200, 2.02803) == pytest.approx(1.0)
    assert 0.0 < PROFILE.largest_batch(300, 200, 2.02) < 1.0
    assert PROFILE.largest_batch(300, 200, 1.0) == 0.0
    assert BatchProfile(0.01, 0, 0).largest_batch(300, 200, 10.0) == math.inf
    assert BatchProfile(0.01, 0, 0).largest_batch(300, 200, 1.0) == 0.0


@pytest.mark.parametrize("bad", [(-1, 0, 0), (0.01, math.nan, 0), (0, 0, 0)])
def test_a_bad_profile_is_refused(bad: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="must be a finite number"):
        BatchProfile(*bad)


def test_the_rate_is_that_of_a_full_replica_as_near_as_it_states(stated: ModuleType) -> None:
    assert stated.broken(stated.rows_of.batch()) == []
