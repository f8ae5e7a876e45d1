"""Rows of arrays beside `batch_response` of each pool, and the limit of many slots beside both."""

from __future__ import annotations

import numpy as np
import pytest

from tierserve.queueing import BatchProfile, BatchWork, batch_response, lognormal_points, wait_ratio
from tierserve.queueing.batching.response_batch import MOST, Responses, Rows, diffusion_many, responses_many, rows_of
from tierserve.queueing.mgc import wait_ratio_many

PROFILE = BatchProfile(alpha=0.010, beta=2e-5, gamma=1e-7)
ALIKE = ((1.0, 1000.0, 200.0),)
TWO = ((0.3, 500.0, 100.0), (0.7, 1000.0, 300.0))
SPREAD = tuple((share, 300.0, o) for share, o in lognormal_points(200.0, 0.7))


def many(works: list[BatchWork]) -> Rows:
    return rows_of(
        [one.profile for one in works],
        [one.slots for one in works],
        [one.sizes for one in works],
        [one.service_cs2 for one in works],
    )


def at(load: float, replicas: int, works: list[BatchWork], how: str = "chain") -> Responses:
    rows = many(works)
    solve = responses_many if how == "chain" else diffusion_many
    return solve(load * replicas * rows.rate, np.full(len(works), float(replicas)), rows)


@pytest.mark.parametrize("load", [0.01, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("replicas", [1, 7, 20])
def test_each_row_is_the_pool_alone_whatever_is_beside_it(load: float, replicas: int) -> None:
    works = [
        BatchWork(PROFILE, n, sizes, cs2)
        for n in (1, 8, MOST // 20)
        for sizes in (ALIKE, TWO, SPREAD)
        for cs2 in (None, 1.0)
    ]
    found = at(load, replicas, works)
    late, tails = found.survival(np.full(len(works), 6.0)), found.quantile(np.full(len(works), 0.95))
    for k, work in enumerate(works):
        alone = batch_response(load * replicas * float(work.rates[-1]), replicas, work)
        assert found.p_wait[k] == pytest.approx(alone.queue.p_wait, rel=1e-9, abs=1e-15)
        assert found.mean_response[k] == pytest.approx(alone.mean_response, rel=1e-9)
        assert found.decay[k] == pytest.approx(alone.decay, rel=1e-9)
        assert late[k] == pytest.approx(alone.survival(6.0), rel=1e-7, abs=1e-12)
        assert tails[k] == pytest.approx(alone.quantile(0.95), rel=1e-8)


def test_the_largest_pool_does_not_overflow() -> None:
    works = [BatchWork(PROFILE, 1, ALIKE)]
    found = at(1.0 - 1e-6, MOST, works)
    alone = batch_response((1.0 - 1e-6) * MOST * float(works[0].rates[-1]), MOST, works[0])
    assert found.p_wait[0] == pytest.approx(alone.queue.p_wait, rel=1e-9)


@pytest.mark.parametrize(
    ("replicas", "slots", "near"), [(10, 1, 0.05), (100, 1, 0.02), (1000, 1, 0.01), (16, 64, 0.01)]
)
def test_the_limit_of_many_slots_comes_near_the_chain(replicas: int, slots: int, near: float) -> None:
    chain, limit = (at(0.97, replicas, [BatchWork(PROFILE, slots, ALIKE)], how) for how in ("chain", "limit"))
    assert limit.p_wait[0] == pytest.approx(chain.p_wait[0], abs=near)
    assert limit.mean_service[0] == pytest.approx(chain.mean_service[0], rel=near)


def test_ratios_of_arrays_are_those_of_numbers() -> None:
    some = [(c, rho, cs2) for c in (1.0, 8.0, 900.0) for rho in (0.01, 0.7, 1.0) for cs2 in (0.0, 0.4, 1.0, 9.0)]
    assert wait_ratio_many(*np.array(some).T).tolist() == pytest.approx([wait_ratio(*one) for one in some], rel=1e-14)
