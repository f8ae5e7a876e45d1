"""Step times of a batch."""

from __future__ import annotations

import math
from types import ModuleType

import pytest

from tierserve.queueing import BatchProfile

PROFILE = BatchProfile(alpha=0.010, beta=2e-5, gamma=1e-7)


def test_a_step_costs_its_fixed_part_and_a_part_per_request() -> None:
    assert PROFILE.iteration(0, 300, 200) == 0.010
    per_request = 2e-5 * 500 / 201 + 1e-7 * 400
    assert PROFILE.iteration(8, 300, 200) == pytest.approx(0.010 + 8 * per_request)


def test_the_service_is_one_prefill_and_a_decode_per_token() -> None:
    step = PROFILE.iteration(8, 300, 200)
    assert PROFILE.prefill(8, 300, 200) == pytest.approx(step + (2e-5 + 1e-7) * 300)
    assert PROFILE.decode(8, 300, 200) == pytest.approx(step + 2e-5 + 1e-7 * 400)
    whole = PROFILE.prefill(8, 300, 200) + 200 * PROFILE.decode(8, 300, 200)
    assert PROFILE.service_time(8, 300, 200) == pytest.approx(whole)
    assert PROFILE.rate(8, 300, 200) == pytest.approx(8 / whole)


def test_a_fuller_batch_is_slower_for_each_and_faster_for_all() -> None:
    times = [PROFILE.service_time(n, 300, 200) for n in range(1, 65)]
    rates = [PROFILE.rate(n, 300, 200) for n in range(65)]
    assert times == sorted(times)
    assert rates == sorted(rates)
    assert rates[0] == 0.0


def test_the_largest_batch_takes_the_time_it_is_given() -> None:
    n = PROFILE.largest_batch(300, 200, 2.5)
    assert PROFILE.service_time(n, 300, 200) == pytest.approx(2.5)
    assert PROFILE.largest_batch(300, 200, 1.0) == 0.0
    assert BatchProfile(0.01, 0, 0).largest_batch(300, 200, 10.0) == math.inf
    assert BatchProfile(0.01, 0, 0).largest_batch(300, 200, 1.0) == 0.0


@pytest.mark.parametrize("bad", [(-1, 0, 0), (0.01, math.nan, 0), (0, 0, 0)])
def test_a_bad_profile_is_refused(bad: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="must be a finite number"):
        BatchProfile(*bad)


def test_the_rate_is_that_of_a_full_replica_less_what_it_states(stated: ModuleType) -> None:
    assert stated.broken(stated.rows_of.batch()) == []
