"""What holds for every decision, whatever is observed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierserve.autoscale.decide import GatewaySample, Observation, ReplicaSample, Settings, State, decide
from tierserve.queueing.sizing import Demand, Objective, replicas_for, response_miss

anything = st.floats(allow_nan=True, allow_infinity=True) | st.floats(-10, 1e6) | st.just(0.0)
SETTINGS = Settings(target_s=1.5, service_s=1.0, slots=4)


@st.composite
def observations(draw: st.DrawFn) -> list[Observation]:
    t, out = 1e9, []
    floor = draw(st.integers(0, 3))
    ceiling = floor + draw(st.integers(0, 20))
    target = draw(st.integers(0, 30))
    for _ in range(draw(st.integers(1, 12))):
        t += draw(st.sampled_from([0.0, 0.1, 0.5, 0.5, 0.5, 20.0, -1.0]))
        names = draw(st.lists(st.sampled_from("abcd"), unique=True))
        replicas = {
            name: ReplicaSample(t - draw(st.sampled_from([0.0, 0.3, 100.0])), *(draw(anything) for _ in range(7)))
            for name in names
        }
        gateway = draw(st.none() | st.builds(GatewaySample, st.just(t), anything, anything, anything))
        running = draw(st.integers(0, 30))
        out.append(Observation(t, running, target, floor, ceiling, replicas, gateway, draw(st.none() | anything), None))
    return out


@pytest.mark.slow
@given(observations())
@settings(max_examples=150, deadline=None)
def test_whatever_is_observed_the_target_is_within_its_bounds_and_the_figures_are_finite(seen):
    state = State()
    for obs in seen:
        decision, state = decide(obs, state, SETTINGS)
        assert obs.min_replicas <= decision.replicas <= max(obs.max_replicas, obs.min_replicas)
        assert decision.reason
        figures = (decision.arrival_rate, decision.service_s, decision.offered_load, decision.rho, decision.peakedness)
        assert all(math.isfinite(x) and x >= 0 for x in figures)
        assert 0 <= decision.p_wait <= 1
        assert decision.rho <= 1, "carried load over servers"
        assert decision.stale or decision.offered_load_ratio * decision.servers == pytest.approx(
            decision.offered_load if decision.servers else 0.0
        )


@given(observations())
@settings(max_examples=50, deadline=None)
def test_without_any_figure_the_target_stays_within_its_bounds(seen):
    state = State()
    for obs in seen:
        bare = Observation(obs.t, obs.running, obs.target, obs.min_replicas, obs.max_replicas)
        decision, state = decide(bare, state, SETTINGS)
        assert decision.stale
        assert decision.replicas == max(obs.min_replicas, min(obs.target, obs.max_replicas))


loads = st.floats(0.01, 500.0)


@given(loads, loads, st.floats(0.05, 8.0), st.integers(1, 32), st.floats(0.0, 0.4))
@settings(max_examples=150, deadline=None)
def test_more_load_never_needs_fewer_replicas(a, b, z, slots, sd):
    low, high = sorted((a, b))
    needed = [replicas_for(Demand(x, 1.0, sd, z), Objective(2.0), slots) for x in (low, high)]
    assert needed[0] <= needed[1]


@given(loads, st.floats(0.05, 8.0), st.integers(1, 60))
@settings(max_examples=150, deadline=None)
def test_more_servers_never_miss_more_often(a, z, more):
    demand, c = Demand(a, 1.0, 0.2, z), math.ceil(a) + 1
    assert response_miss(c + more, demand, 1.5) <= response_miss(c, demand, 1.5) + 1e-12
