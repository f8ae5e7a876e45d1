"""Prompts read in one step each: the limits of the formula, and how much they can matter."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierserve.queueing import BatchProfile, BatchWork, batch_response, lognormal_points, prompt_response
from tierserve.queueing.batching.prefill_stalls import unevenness
from tierserve.queueing.batching.response_batch import rows_of

A100_8B = BatchProfile(alpha=0.0112, beta=1.03e-4, gamma=9.2e-8)
CODE = BatchWork(A100_8B, 8, ((1.0, 2000.0, 28.0),))


@st.composite
def works(draw: st.DrawFn) -> BatchWork:
    """A replica with prompts of any length and like or uneven answers."""
    alpha = draw(st.floats(1e-3, 0.1))
    profile = BatchProfile(alpha, alpha * draw(st.floats(0.0, 0.02)), alpha * draw(st.floats(0.0, 1e-5)))
    i, o = draw(st.floats(1.0, 8000.0)), draw(st.floats(1.0, 400.0))
    points = lognormal_points(o, draw(st.sampled_from([0.0, 0.5, 1.0])))
    return BatchWork(profile, draw(st.sampled_from([1, 2, 8, 64])), tuple((share, i, each) for share, each in points))


@settings(max_examples=60, deadline=None)
@given(works(), st.integers(1, 40), st.floats(0.05, 0.99), st.floats(0.1, 10.0))
def test_no_response_is_shorter_than_with_even_steps(work: BatchWork, replicas: int, load: float, at: float) -> None:
    lam = load * replicas * float(work.rates[-1])
    even, told = batch_response(lam, replicas, work), prompt_response(lam, replicas, work)
    assert even.mean_response <= told.mean_response < math.inf
    assert even.survival(at * work.full_s) <= told.survival(at * work.full_s) <= 1.0
    assert even.quantile(0.95) <= told.quantile(0.95) * (1.0 + 1e-9) < math.inf


@settings(max_examples=60, deadline=None)
@given(st.lists(works(), min_size=1, max_size=5))
def test_many_pools_have_the_unevenness_of_each_alone(some: list[BatchWork]) -> None:
    rows = rows_of(
        [one.profile for one in some], [one.slots for one in some], [one.sizes for one in some], [None] * len(some)
    )
    assert rows.uneven == pytest.approx(np.array([unevenness(one) for one in some]), rel=1e-6, abs=1e-9)


def test_prompts_that_cost_nothing_change_nothing() -> None:
    work = BatchWork(BatchProfile(0.010, 0.0, 0.0), 16, tuple((s, 5e3, o) for s, o in lognormal_points(200.0, 0.7)))
    lam = 0.7 * 4 * float(work.rates[-1])
    even, told = batch_response(lam, 4, work), prompt_response(lam, 4, work)
    assert unevenness(work) == 0.0
    assert told.quantile(0.95) == pytest.approx(even.quantile(0.95), rel=0.005)
    assert told.mean_response == pytest.approx(even.mean_response, rel=0.005)


def test_the_more_slots_take_prompts_and_the_shorter_answers_are_the_more_they_matter() -> None:
    assert unevenness(CODE) > 5.0 * unevenness(BatchWork(A100_8B, 8, ((1.0, 300.0, 300.0),)))
    assert unevenness(BatchWork(A100_8B, 1, CODE.sizes)) < unevenness(BatchWork(A100_8B, 4, CODE.sizes))


def test_a_request_alone_is_not_held_up_and_a_pool_that_cannot_bear_its_load_never_answers() -> None:
    alone = prompt_response(0.0, 2, CODE)
    assert alone.mean_response == pytest.approx(CODE.alone_s)
    assert alone.quantile(0.95) == pytest.approx(CODE.alone_s, rel=1e-4)
    never = prompt_response(2.0 * float(CODE.rates[-1]), 1, CODE)
    assert never.survival(1e9) == 1.0
    assert math.isinf(never.quantile(0.95))


@pytest.mark.parametrize("replicas", [1, 4, 64])
def test_more_arrivals_make_responses_longer_and_more_replicas_shorter(replicas: int) -> None:
    loads = np.linspace(0.05, 0.98, 40) * replicas * float(CODE.rates[-1])
    times = [prompt_response(float(lam), replicas, CODE).quantile(0.95) for lam in loads]
    assert (np.diff(times) > 0.0).all()
    more = [prompt_response(float(lam), replicas + 1, CODE).quantile(0.95) for lam in loads]
    assert (np.array(more) < times).all()
