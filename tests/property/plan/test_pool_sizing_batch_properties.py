"""Many pools planned at once are planned as each alone, and each alone as by a search that probes one by one."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierserve.plan.placement import Placement
from tierserve.plan.pool_sizing import meets, replicas_for, response_of
from tierserve.plan.pool_sizing_batch import replicas_of_pools, responses_of_pools, size_pools
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
    found = size_pools(placements, rates)
    wanted = [replicas_for(*pool) for pool in some]
    assert found.replicas.tolist() == replicas_of_pools(placements, rates).tolist() == wanted
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
    found = responses_of_pools([one for one, _ in some], [replicas] * TOGETHER, [rate for _, rate in some])
    for k, (one, rate) in enumerate(few):
        told, q = response_of(one, replicas, rate), one.percentile / 100.0
        assert is_quantile(told, q, found.inference_s[k])
        assert found.mean_s[k] == pytest.approx(told.mean_response, rel=1e-7)


@EXAMPLES
@given(st.lists(pools(), min_size=TOGETHER, max_size=TOGETHER), st.integers(1, 40))
def test_where_rounding_could_decide_the_pool_alone_decides(some: list[tuple[Placement, float]], replicas: int) -> None:
    placements, rates = [], []
    for k, (one, _) in enumerate(some):
        even = replicas * one.rate
        just = [even, math.nextafter(even, 0.0), even * (1.0 - 1e-12), 0.9 * even][k % 4]  # at capacity, or so near
        late = response_of(one, replicas, 0.9 * even).survival(one.target_s)
        exactly = 100.0 * (1.0 - min(max(late, 1e-6), 0.99))  # as many may be late as are
        placements.append(replace(one, percentile=exactly))
        rates.append(just)
    wanted = [replicas_for(one, rate) for one, rate in zip(placements, rates, strict=True)]
    assert replicas_of_pools(placements, rates).tolist() == wanted


def test_two_thousand_pools_at_once_are_planned_as_each_alone() -> None:
    rng = np.random.default_rng(5)
    slots, share = rng.choice([1, 2, 4, 16, 64], 2000), rng.uniform(0.01, 0.9, 2000)
    some = []
    for n, part in zip(slots.tolist(), share.tolist(), strict=True):
        profile = BatchProfile(rng.uniform(0.005, 0.05), rng.uniform(0.0, 2e-4), rng.uniform(0.0, 2e-7))
        i, o = rng.uniform(10.0, 2000.0), rng.uniform(10.0, 400.0)
        target = profile.service_time(n, i, o) * rng.uniform(0.9, 2.0)
        one = Placement(
            "t", "s", "cloud", "m", "vllm", None, n, profile, i, o, 0.01, 0.01, 0, 10**6, 3.0,
            percentile=rng.choice([50.0, 90.0, 99.0]), target_s=target,
        )  # fmt: skip
        some.append((one, part * 1000.0 / n * one.rate))
    found = replicas_of_pools([one for one, _ in some], [rate for _, rate in some])
    assert found.tolist() == [replicas_for(*pool) for pool in some]
    assert 200 < int(found.max()) <= 1000


def test_a_profile_that_a_larger_batch_makes_slower_is_refused_as_alone() -> None:
    one = Placement(
        "t", "s", "edge", "m", "emulated", None, 8, BatchProfile(0.0, 0.0, 1e-6), 5.0, 100.0, 0.0, 0.0, 0, 9, 3.0, 95.0,
        9.0,
    )  # fmt: skip
    with pytest.raises(ValueError, match="never filled"):
        replicas_for(one, 3.0)
    with pytest.raises(ValueError, match="never filled"):
        size_pools([one] * TOGETHER, [3.0] * TOGETHER)


@pytest.mark.parametrize("rates", [[1.0], [1.0, -1.0], [1.0, math.nan], [1.0, math.inf]])
def test_rates_that_are_none_are_refused(rates: list[float]) -> None:
    one = Placement(
        "t", "s", "edge", "m", "emulated", None, 8, BatchProfile(0.01, 0.0, 0.0), 5.0, 10.0, 0.0, 0.0, 0, 9, 3.0, 95.0,
        9.0,
    )  # fmt: skip
    with pytest.raises(ValueError, match="2 finite numbers >= 0"):
        size_pools([one, one], np.array(rates))
