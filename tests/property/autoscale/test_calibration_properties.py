"""What holds for a calibration, whatever it is fed."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierserve.autoscale.calibration.rls import SPAN, Calibration, StepSample, calibrate, prior
from tierserve.queueing.batching.profile import BatchProfile

anything = st.floats(allow_nan=True, allow_infinity=True) | st.floats(0, 1e4) | st.sampled_from([0.0, 1.0, 1e300])
samples = st.builds(StepSample, anything, anything, anything, st.none() | anything, st.none() | anything)
plausible = st.builds(
    StepSample, st.floats(1, 300), st.floats(0, 5000), st.floats(1, 2000), st.floats(1e-4, 50), st.floats(1e-4, 5)
)
coefficient = st.just(0.0) | st.floats(1e-9, 1.0)
profiles = st.tuples(coefficient, coefficient, coefficient).filter(any).map(lambda c: BatchProfile(*c))


def check(state: Calibration) -> None:
    got = state.profile
    for value, base, j in zip((got.alpha, got.beta, got.gamma), state.base, range(3), strict=True):
        assert base / SPAN * (1 - 1e-12) <= value <= base * SPAN * (1 + 1e-12)
        assert state.covariance[j][j] >= 0.0
        for k in range(3):
            assert math.isfinite(state.covariance[j][k])
            assert state.covariance[j][k] == state.covariance[k][j]
    assert 0.0 < state.noise <= 1.0
    assert 0.0 <= state.error < math.inf


@given(profiles, st.lists(samples | plausible, max_size=25))
@settings(max_examples=300, deadline=None)
def test_whatever_is_seen_the_coefficients_are_within_their_bounds_and_every_time_is_counted(profile, seen):
    state = prior(profile)
    for sample in seen:
        state = calibrate(state, sample)
        check(state)
    assert state.accepted + state.rejected + state.ignored >= len(seen)


@given(profiles, plausible)
@settings(max_examples=100, deadline=None)
def test_the_same_sample_over_and_over_moves_the_prediction_towards_it_and_never_breaks(profile, sample):
    state = prior(profile)
    n, i, o = sample[:3]
    before = profile.decode(n, i, o)
    only_itl = sample._replace(ttft_s=None, itl_s=min(max(sample.itl_s, before / 10), before * 10))
    for _ in range(60):
        state = calibrate(state, only_itl)
        check(state)
    assert abs(state.profile.decode(n, i, o) - only_itl.itl_s) <= max(
        abs(before - only_itl.itl_s), 0.02 * only_itl.itl_s
    )


@given(st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_samples_matters_little(seed):
    chance = random.Random(seed)
    true = BatchProfile(0.01, 5e-5, 2e-7)
    seen = []
    for _ in range(150):
        n, i, o = chance.uniform(1, 64), chance.uniform(50, 2000), chance.uniform(20, 500)
        noise = (1 + chance.gauss(0, 0.03) for _ in range(2))
        seen.append(StepSample(n, i, o, true.prefill(n, i, o) * next(noise), true.decode(n, i, o) * next(noise)))
    shuffled = chance.sample(seen, len(seen))
    ends = []
    for order in (seen, shuffled):
        state = prior(BatchProfile(0.015, 4e-5, 3e-7))
        for sample in order:
            state = calibrate(state, sample)
        ends.append(state.profile.service_time(32, 800, 200))
    assert ends[0] == pytest.approx(ends[1], rel=0.03)
    assert ends[0] == pytest.approx(true.service_time(32, 800, 200), rel=0.05)
