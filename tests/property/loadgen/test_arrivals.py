from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tierserve.loadgen import OpenLoop
from tierserve.loadgen.summary import quantile

rates = st.floats(0.0, 200.0)


@settings(max_examples=60, deadline=None)
@example(0.0, 1.0, 3.0, "constant", 0)  # the first is due at once, at a rate of 0
@given(rates, rates, st.floats(0.5, 20.0), st.sampled_from(["poisson", "constant"]), st.integers(0, 1000))
def test_arrivals_ascend_within_the_step_and_come_at_the_mean_rate(first, last, duration, process, seed):
    times = OpenLoop(first, last, process).times(duration, np.random.default_rng(seed))
    expected = (first + last) / 2 * duration
    assert np.all(np.diff(times) >= 0)
    assert times.size == 0 or (times[0] >= 0 and times[-1] <= duration * (1 + 1e-9))
    assert abs(times.size - expected) <= (6 * np.sqrt(expected) + 6 if process == "poisson" else 1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000))
def test_a_ramp_puts_three_quarters_of_its_arrivals_in_its_second_half(seed):
    times = OpenLoop(0, 400).times(10, np.random.default_rng(seed))
    assert abs((times > 5).mean() - 0.75) < 0.06


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1.0))
def test_a_percentile_is_the_least_sample_that_covers_its_share(values, q):
    array = np.array(values)
    found = quantile(array, q)
    assert found in array
    assert (array <= found).mean() >= q - 1e-12
    assert (array < found).mean() < q + 1e-12
