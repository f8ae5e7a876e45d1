"""What holds for a calibration, whatever counters are reported."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierserve.autoscale.calibration import CalibrationState, apply_calibration, report, update_calibration
from tierserve.autoscale.decide import Observation, ReplicaSample, Settings
from tierserve.autoscale.types import StepCounts
from tierserve.queueing.batching.profile import BatchProfile

SIZE = len(StepCounts._fields)
anything = st.floats() | st.floats(0, 1e4) | st.sampled_from([0.0, 1.0, 1e15, 1e300, -1.0])
broken = st.tuples(*[anything] * SIZE).map(lambda v: StepCounts(*v))
growing = st.tuples(
    st.floats(16, 100), st.floats(0, 5000), st.floats(1, 2000), st.floats(1e-4, 50), st.floats(1e-4, 5), st.floats(1, 8)
)
coefficient = st.just(0.0) | st.floats(1e-9, 1.0)
profiles = st.tuples(coefficient, coefficient, coefficient).filter(any).map(lambda c: BatchProfile(*c))


def configured(profile: BatchProfile) -> Settings:
    return Settings(4.0, service_s=1.0, slots=8, profile=profile, input_tokens=100.0, output_tokens=50.0)


def after(counts: StepCounts, grown: tuple[float, ...]) -> StepCounts:
    """Return the counters after requests with these tokens, prefill, time between tokens, and batch."""
    n, i, o, prefill, decode, batch = grown
    new = (n, n * i, n * o, n, n * prefill, n * batch, n * o, n * o * decode, n * o * batch)
    return StepCounts(*(a + b for a, b in zip(counts, new, strict=True)))


def observed(t: float, counts: StepCounts) -> Observation:
    return Observation(t, 1, 1, 1, 10, {"a": ReplicaSample(t, t)}, steps={"a": counts})


def check(state: CalibrationState | None, wanted: Settings) -> None:
    assert state
    assert all(0.0 < ratio < math.inf for ratio in state.ratio)
    assert all(math.isfinite(value) for row in (*state.moments, *state.covariance) for value in row)
    assert all(state.covariance[j][j] > 0.0 for j in range(3))
    assert 0.0 < state.noise < math.inf
    figures, applied = report(state, wanted), apply_calibration(wanted, state)
    assert 0.0 < applied.service_s < math.inf
    assert figures is None or math.isfinite(figures.profile_error)


@given(profiles, st.lists(broken | growing, max_size=25))
@settings(max_examples=300, deadline=None)
def test_whatever_is_reported_all_figures_are_finite_and_above_zero(profile, reports):
    wanted, state, counts = configured(profile), None, StepCounts(*[0.0] * SIZE)
    for k, one in enumerate(reports):
        counts = one if isinstance(one, StepCounts) else after(counts, one)
        state = update_calibration(state, observed(float(k), counts), wanted)
        check(state, wanted)


@given(profiles, growing)
@settings(max_examples=100, deadline=None)
def test_the_same_sample_over_and_over_is_predicted_in_the_end(profile, grown):
    """The time between two tokens alone, up to ten times that of the configured profile."""
    n, i, o, _, seconds, batch = grown
    before = profile.decode(batch, i, o)
    seconds = min(max(seconds, before / 10.0), before * 10.0)
    wanted, state, counts = configured(profile), None, StepCounts(*[0.0] * SIZE)
    for k in range(60):
        counts = after(counts, (n, i, o, 0.0, seconds, batch))._replace(prefills=0.0, prefill_batch=0.0)
        state = update_calibration(state, observed(float(k), counts), wanted)
        check(state, wanted)
    assert state
    assert state.profile.decode(batch, i, o) == pytest.approx(seconds, rel=0.02)


@given(st.permutations(range(40)), st.floats(0.3, 3.0))
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_samples_matters_little(order, factor):
    true = BatchProfile(0.01, 5e-4, 2e-6)
    given_profile = BatchProfile(factor * true.alpha, factor * true.beta, true.gamma)
    wanted = configured(given_profile)
    ends = []
    for numbers in (sorted(order), order):
        state, counts = None, StepCounts(*[0.0] * SIZE)
        for t, k in enumerate((-1, *numbers)):
            batch, error = 1.0 + k % 8, 1.0 + 0.05 * ((k * 7) % 5 - 2) / 2.0
            times = (true.prefill(batch, 100.0, 50.0) * error, true.decode(batch, 100.0, 50.0) / error)
            counts = after(counts, (20.0, 100.0, 50.0, *times, batch)) if k >= 0 else counts
            state = update_calibration(state, observed(float(t), counts), wanted)
        assert state
        ends.append(state.profile.service_time(8.0, 100.0, 50.0))
    assert ends[0] == pytest.approx(ends[1], rel=0.03)
    assert ends[0] == pytest.approx(true.service_time(8.0, 100.0, 50.0), rel=0.05)
