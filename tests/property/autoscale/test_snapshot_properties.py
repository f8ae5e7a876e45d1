"""What holds for every memory of an autoscaler, whatever it learned and whatever is read in its place."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tierserve.autoscale.decide import GatewaySample, Observation, Settings, State, decide
from tierserve.autoscale.snapshot import _HEAD, UnusableError, dump_state, load_state, merge_learned
from tierserve.autoscale.standby.rules import ShadowPool, StandbyState

SETTINGS = Settings(target_s=4.0, startup_s=8.0, adaptive_standby=True, forecast_period_s=120.0)
SIZE = ShadowPool().missed.size
figures = st.floats(0.0, allow_nan=False, allow_infinity=False)
vectors = arrays.arrays(np.float64, SIZE, elements=figures, fill=figures)
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
    assert known.lookahead == replace(state.lookahead, pending_scale_ups=known.lookahead.pending_scale_ups)
    assert [peak.load for peak in known.standby.peaks] == [peak.load for peak in state.standby.peaks]
    np.testing.assert_array_equal(known.standby.shadow.missed, state.standby.shadow.missed)
    later = load_state(dump_state(state, "edge", SETTINGS, t), "edge", SETTINGS, t + gap_s)
    lived(after, merge_learned(State(), later), t + gap_s)


@given(st.lists(figures, max_size=5), figures, vectors, vectors, vectors, vectors)
@settings(max_examples=40, deadline=None)
def test_every_figure_comes_back_to_the_last_bit_and_those_on_paper_to_seven_digits(
    startups, seconds, asked, missed, cost, drops
):
    shadow = ShadowPool(asked=asked, missed=missed, cost=cost, drops=drops)
    state = State(startups=tuple(startups), standby=StandbyState(t=seconds, fast=seconds, trust=seconds, shadow=shadow))
    known = load_state(dump_state(state, "edge", SETTINGS, 1e6), "edge", SETTINGS, 1e6)
    assert known.startups == state.startups
    assert (known.standby.t, known.standby.fast, known.standby.trust) == (seconds,) * 3
    most, least = np.finfo(np.float32).max, np.finfo(np.float32).tiny
    for name in ("asked", "missed", "cost", "drops"):
        kept = np.minimum(getattr(shadow, name), most)
        np.testing.assert_allclose(getattr(known.standby.shadow, name), kept, rtol=1e-7, atol=least)


json = st.recursive(
    st.sampled_from(["null", "1", "-1", "1e999", "NaN", '"x"', "true", "{", ""]),
    lambda inner: st.lists(inner, max_size=4).map(lambda parts: "[" + ",".join(parts) + "]"),
)
fields = st.sampled_from(["owner", "t", "startups", "steps", "ahead", "reserve"])


@given(st.dictionaries(fields, json), st.binary(max_size=40), st.sampled_from([b"", _HEAD]))
@settings(max_examples=200, deadline=None)
def test_nothing_else_that_is_read_does_more_than_be_refused(nonsense, noise, head):
    text = "{" + ",".join(f'"{name}":{value}' for name, value in nonsense.items()) + "}"
    for data in (head + noise, head + zlib.compress(text.encode()), head + zlib.compress(text.encode()) + noise):
        with pytest.raises(UnusableError):
            load_state(data, "edge", SETTINGS, 1e6)
