"""Made-up streams and thickened traces are what they say."""

from __future__ import annotations

import numpy as np
import pytest

from tierserve.queueing import peakedness
from tierserve.simulate.workload import Sizes, bursts, daily, growing, poisson, steps, thickened

SIZES = Sizes(100.0, 20.0)


def test_a_poisson_stream_has_its_rate_and_the_spread_of_one() -> None:
    work = poisson(50.0, 2_000.0, SIZES)
    counts = np.histogram(work.times_s, np.arange(0.0, 2_001.0))[0]
    assert counts.mean() == pytest.approx(50.0, rel=0.01)
    assert peakedness(counts) == pytest.approx(1.0, abs=0.1)
    assert (np.diff(work.times_s) >= 0.0).all()


def test_steps_have_one_rate_after_the_other() -> None:
    work = steps((5, 50, 0, 20), 500.0, SIZES)
    found = np.histogram(work.times_s, np.arange(0.0, 2_001.0, 500.0))[0] / 500.0
    assert found == pytest.approx([5, 50, 0, 20], rel=0.05)
    assert work.length_s == 2_000.0


def test_growth_is_so_many_percent_a_minute() -> None:
    work = growing(10.0, 100.0, 0.1, SIZES)
    assert work.length_s == pytest.approx(60.0 * np.log(10.0) / np.log(1.1))
    first, last = (work.times_s < 60.0).sum(), (work.times_s > work.length_s - 60.0).sum()
    assert last / first == pytest.approx(10.0 / 1.1, rel=0.15)


def test_bursts_are_burstier_than_poisson_and_have_the_mean_of_their_phases() -> None:
    work = bursts(5.0, 50.0, low_s=30.0, high_s=10.0, length_s=20_000.0, sizes=SIZES)
    counts = np.histogram(work.times_s, np.arange(0.0, 20_001.0, 1.0))[0]
    assert counts.mean() == pytest.approx((5 * 30 + 50 * 10) / 40, rel=0.1)
    assert peakedness(counts) > 5.0


def test_a_day_swings_by_its_share_with_the_trough_at_midnight() -> None:
    work = daily(2.0, 0.5, 2.0, SIZES)
    hours = np.histogram(work.times_s % 86_400.0, np.arange(0.0, 86_401.0, 3_600.0))[0] / 7_200.0
    assert (hours[0], hours[12]) == (pytest.approx(1.0, rel=0.1), pytest.approx(3.0, rel=0.05))


def test_sizes_have_their_mean_and_spread() -> None:
    tokens, answers = Sizes(1000.0, 50.0, 0.8).draw(100_000, np.random.default_rng(1))
    assert (tokens.mean(), answers.mean()) == (pytest.approx(1000, rel=0.02), pytest.approx(50, rel=0.02))
    assert tokens.std() / tokens.mean() == pytest.approx(0.8, rel=0.05)
    assert min(tokens.min(), answers.min()) >= 1
    assert set(SIZES.draw(10, np.random.default_rng(1))[0]) == {100}


def test_a_thickened_trace_has_each_request_so_often_within_the_spread() -> None:
    work = poisson(2.0, 100.0, Sizes(100.0, 20.0, 0.5))
    thick = thickened(work, 7, 3.0)
    assert len(thick) == 7 * len(work)
    assert np.array_equal(np.sort(np.repeat(work.input_tokens, 7)), np.sort(thick.input_tokens))
    assert thick.times_s.max() <= work.times_s.max() + 3.0
    assert (np.diff(thick.times_s) >= 0.0).all()
    assert thickened(work, 1, 3.0) is work


def test_the_same_seed_is_the_same_stream() -> None:
    one, same, other = (poisson(5.0, 100.0, SIZES, seed).times_s for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
