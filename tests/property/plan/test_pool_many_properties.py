"""Many pools planned at once are planned as each alone, and each alone as by a search that probes one by one."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierserve.plan.placement import Placement
from tierserve.plan.pool import meets, replicas_for, response_of
from tierserve.plan.pool_many import plan_many, replicas_many, times_many
from tierserve.queueing import BatchProfile, BatchResponse, lognormal_points

EXAMPLES = settings(max_examples=40, deadline=None)
NONE = 1 << 40
TOGETHER = 16
"""Enough pools that they are planned by arrays."""


@st.composite
def pools(draw: st.DrawFn) -> tuple[Placement, float]:
    """A pool of any kind, with a rate that it can bear with up to some thousand slots."""
    slots = draw(st.sampled_from([1, 2, 3, 8, 31, 64, 200]))
    alpha = draw(st.floats(1e-4, 0.1))
    profile = BatchProfile(alpha, alpha * draw(st.floats(0.0, 0.05)), alpha * draw(st.floats(0.0, 1e-4)))
    i, o = draw(st.floats(1.0, 4000.0)), draw(st.floats(1.0, 1000.0))
    parts = draw(st.sampled_from([((1.0, o),), ((0.4, o), (0.6, 2.0 * o)), lognormal_points(o, 0.8)]))
    sizes = tuple((share, i, tokens) for share, tokens in parts)
    tail_s = max(profile.service_times(slots, sizes))
    one = Placement(
        "t", "s", "edge", "m", "emulated", None, slots, profile, i, o, 0.01, 0.01, 0, 10**6, 3.0,
        percentile=draw(st.floats(50.0, 99.9)),
        target_s=tail_s * draw(st.floats(0.3, 3.0)),
        service_tail_s=draw(st.sampled_from([None, tail_s])),
        sizes=draw(st.sampled_from([(), sizes])),
        spread_known=draw(st.booleans()),
    )  # fmt: skip
    servers = math.exp(draw(st.floats(math.log(0.01), math.log(1500.0))))
    return one, draw(st.sampled_from([0.0, 1.0, 1.0, 1.0])) * servers / slots * one.rate


def probed(one: Placement, rate: float) -> int:
    """The least replicas, from the fewest that bear the rate, in steps that double, then halving; 2^40 if none do."""
    if rate <= 0.0:
        return 0
    low = math.floor(rate / one.rate)
    step, high = 1, low + 1
    while high < NONE and not meets(one, high, rate):
        low, step = high, 2 * step
        high += step
    while high - low > 1:
        mid = (low + high) // 2
        low, high = (low, mid) if meets(one, mid, rate) else (mid, high)
    return min(high, NONE)


def is_quantile(told: BatchResponse, q: float, t: float) -> bool:
    """Whether a share q takes t at most: where just q of the sizes are short, that is so for a range of times."""
    if math.isinf(t):
        return told.quantile(q) == t
    return told.survival(t * (1 + 1e-8)) <= 1.0 - q + 1e-9 and told.survival(t * (1 - 1e-8)) >= 1.0 - q - 1e-9


@EXAMPLES
@given(pools())
def test_replicas_alone_are_those_of_a_plain_search(pool: tuple[Placement, float]) -> None:
    assert replicas_for(*pool) == probed(*pool)


@EXAMPLES
@given(st.lists(pools(), min_size=1, max_size=TOGETHER))
def test_many_pools_at_once_are_planned_as_each_alone(few: list[tuple[Placement, float]]) -> None:
    some = [few[k % len(few)] for k in range(TOGETHER)]
    placements, rates = [one for one, _ in some], [rate for _, rate in some]
    found = plan_many(placements, rates)
    wanted = [replicas_for(*pool) for pool in some]
    assert found.replicas.tolist() == replicas_many(placements, rates).tolist() == wanted
    for k, (one, rate) in enumerate(few):
        told, q = response_of(one, max(wanted[k], 1), rate), one.percentile / 100.0
        assert found.p_wait[k] == pytest.approx(told.queue.p_wait, rel=1e-8, abs=1e-15)
        assert found.wait_s[k] == pytest.approx(told.wait_quantile(q), rel=1e-8, abs=1e-8 * told.mean_response)
        assert is_quantile(told, q, found.inference_s[k])
        assert found.mean_s[k] == pytest.approx(told.mean_response, rel=1e-8)
        assert found.late[k] == pytest.approx(told.survival(one.target_s), rel=1e-6, abs=1e-8)


@EXAMPLES
@given(st.lists(pools(), min_size=1, max_size=TOGETHER), st.integers(1, 60))
def test_times_with_given_replicas_are_those_of_each_alone(few: list[tuple[Placement, float]], replicas: int) -> None:
    some = [few[k % len(few)] for k in range(TOGETHER)]
    found = times_many([one for one, _ in some], [replicas] * TOGETHER, [rate for _, rate in some])
    for k, (one, rate) in enumerate(few):
        told, q = response_of(one, replicas, rate), one.percentile / 100.0
        assert is_quantile(told, q, found.inference_s[k])
        assert found.mean_s[k] == pytest.approx(told.mean_response, rel=1e-7)


@EXAMPLES
@given(pools(), st.integers(1, 40))
def test_where_rounding_could_decide_the_pool_alone_decides(pool: tuple[Placement, float], replicas: int) -> None:
    one = pool[0]
    even = replicas * one.rate  # these cannot bear it; a part in 1e16 less, and they could
    rates = [even, math.nextafter(even, 0.0), math.nextafter(even, math.inf), even * (1 - 1e-12)] * 4
    known = response_of(one, replicas, 0.9 * even)
    just = replace(one, target_s=known.quantile(one.percentile / 100.0))
    assert replicas_many([one] * 16, rates).tolist() == [replicas_for(one, rate) for rate in rates]
    assert replicas_many([just] * 16, [0.9 * even] * 16).tolist() == [replicas_for(just, 0.9 * even)] * 16


def test_a_profile_that_a_larger_batch_makes_slower_is_refused_as_alone() -> None:
    one = Placement(
        "t", "s", "edge", "m", "emulated", None, 8, BatchProfile(0.0, 0.0, 1e-6), 5.0, 100.0, 0.0, 0.0, 0, 9, 3.0, 95.0,
        9.0,
    )  # fmt: skip
    with pytest.raises(ValueError, match="never filled"):
        replicas_for(one, 3.0)
    with pytest.raises(ValueError, match="never filled"):
        plan_many([one] * TOGETHER, [3.0] * TOGETHER)


@pytest.mark.parametrize("rates", [[1.0], [1.0, -1.0], [1.0, math.nan], [1.0, math.inf]])
def test_rates_that_are_none_are_refused(rates: list[float]) -> None:
    one = Placement(
        "t", "s", "edge", "m", "emulated", None, 8, BatchProfile(0.01, 0.0, 0.0), 5.0, 10.0, 0.0, 0.0, 0, 9, 3.0, 95.0,
        9.0,
    )  # fmt: skip
    with pytest.raises(ValueError, match="2 finite numbers >= 0"):
        plan_many([one, one], np.array(rates))
