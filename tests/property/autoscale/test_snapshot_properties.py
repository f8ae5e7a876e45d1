"""What holds for every memory of an autoscaler, whatever it learned and whatever is read in its place."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tierserve.autoscale.budget import MOST, ErrorBudget
from tierserve.autoscale.decide import GatewaySample, Observation, Settings, State, decide
from tierserve.autoscale.rate import FORECASTS, RateState
from tierserve.autoscale.replay import GRID_SIZE, Block, ReplayState
from tierserve.autoscale.snapshot import _HEAD, UnusableError, dump_state, load_state, merge_learned
from tierserve.autoscale.stabilization import Stabilization

SETTINGS = Settings(target_s=4.0, startup_s=8.0)
figures = st.floats(0.0, allow_nan=False, allow_infinity=False)
requests = st.floats(0.0, 1e12)
errors = st.tuples(*[figures] * FORECASTS)
blocks = st.lists(
    st.builds(Block, figures, requests, arrays.arrays(np.float64, GRID_SIZE, elements=requests, fill=requests)),
    max_size=4,
)
seen = st.lists(st.tuples(st.floats(0.5, 20.0), st.integers(0, 200)), min_size=1, max_size=25)


def lived(moments: list[tuple[float, int]], state: State | None = None, t: float = 1e6) -> tuple[State, float]:
    """Return the state after arrivals at such intervals (seconds, requests), and the time."""
    state, arrivals = state or State(), 0.0
    for pause, requests in moments:
        t, arrivals = t + pause, arrivals + requests
        _, state = decide(
            Observation(
                t, 1, 1, 1, 50, gateway=GatewaySample(t, arrivals, 0.0, 1.0, answered=0.0, late=0.0, bypassed=0.0)
            ),
            state,
            SETTINGS,
        )
    return state, t


@given(seen, st.floats(0.0, 1e5), seen)
@settings(max_examples=25, deadline=None)
def test_whatever_came_before_and_comes_after_what_was_learned_comes_back_and_goes_on(before, gap_s, after):
    state, t = lived(before)
    known = load_state(dump_state(state, "edge", SETTINGS, t), "edge", SETTINGS, t)
    assert known.startups == state.startups
    assert (known.rate.errors, known.rate.weight, known.rate.used) == (
        state.rate.errors,
        state.rate.weight,
        state.rate.used,
    )
    assert [(one.t, one.arrivals) for one in known.replay.blocks] == [
        (one.t, one.arrivals) for one in state.replay.blocks
    ]
    assert known.budget.caution == state.budget.caution
    assert known.stabilization.factor == state.stabilization.factor
    later = load_state(dump_state(state, "edge", SETTINGS, t), "edge", SETTINGS, t + gap_s)
    went_on, _ = lived(after, merge_learned(State(), later), t + gap_s)
    assert went_on.replay.seconds >= known.replay.seconds
    assert went_on.last is not None
    assert math.isfinite(went_on.last.arrival_rate)


@given(st.lists(figures, max_size=5), errors, blocks, st.tuples(figures, figures), st.floats(1.0, MOST))
@settings(max_examples=40, deadline=None)
def test_every_figure_comes_back_to_the_last_bit_and_late_arrivals_to_seven_digits(
    startups, scores, late, counts, caution
):
    state = State(
        startups=tuple(startups),
        rate=RateState(errors=scores, weight=counts[0], used=len(startups)),
        replay=ReplayState(blocks=tuple(late), seconds=counts[1]),
        budget=ErrorBudget(caution, *counts),
        stabilization=Stabilization(factor=caution),
    )
    known = load_state(dump_state(state, "edge", SETTINGS, 1e6), "edge", SETTINGS, 1e6)
    assert known.startups == state.startups
    assert (known.rate, known.budget, known.stabilization) == (state.rate, state.budget, state.stabilization)
    assert known.replay.seconds == state.replay.seconds
    for before, after in zip(state.replay.blocks, known.replay.blocks, strict=True):
        assert (after.t, after.arrivals) == (before.t, before.arrivals)
        np.testing.assert_allclose(after.late, before.late, rtol=1e-7, atol=np.finfo(np.float32).tiny)


json = st.recursive(
    st.sampled_from(["null", "1", "-1", "1e999", "NaN", '"x"', "true", "{", ""]),
    lambda inner: st.lists(inner, max_size=4).map(lambda parts: "[" + ",".join(parts) + "]"),
)
fields = st.sampled_from(["owner", "t", "startups", "steps", "errors", "used", "blocks", "late", "caution", "factor"])


@given(st.dictionaries(fields, json), st.binary(max_size=40), st.sampled_from([b"", _HEAD]))
@settings(max_examples=200, deadline=None)
def test_nothing_else_that_is_read_does_more_than_be_refused(nonsense, noise, head):
    text = "{" + ",".join(f'"{name}":{value}' for name, value in nonsense.items()) + "}"
    for data in (head + noise, head + zlib.compress(text.encode()), head + zlib.compress(text.encode()) + noise):
        with pytest.raises(UnusableError):
            load_state(data, "edge", SETTINGS, 1e6)
