"""Bursts at batching replicas: exact chains of two rates in turns, Hayward, and what no burst comes to."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierserve.queueing import (
    BatchProfile,
    BatchWork,
    Bursts,
    batch_response,
    burst_response,
    bursts_of,
    hayward_c,
)
from tierserve.simulate.cluster import Setup
from tierserve.simulate.policies.static import Static
from tierserve.simulate.run import simulate
from tierserve.simulate.types import Objective, Pool
from tierserve.simulate.workload import Sizes, bursts

CONSTANT = BatchProfile(alpha=0.010, beta=0.0, gamma=0.0)
PROFILE = BatchProfile(alpha=0.010, beta=2e-5, gamma=1e-7)
ALIKE = ((1.0, 500.0, 200.0),)
SERVICE_S = 201 * 0.010


@pytest.mark.parametrize(("replicas", "slots"), [(1, 16), (4, 8), (8, 64), (200, 16)])
@pytest.mark.parametrize("load", [0.3, 0.7, 0.9])
def test_without_bursts_and_prompts_it_is_the_pool_of_poisson_arrivals(replicas: int, slots: int, load: float) -> None:
    work = BatchWork(BatchProfile(alpha=0.010, beta=0.0, gamma=1e-7), slots, ALIKE)
    lam = load * replicas * float(work.rates[-1])
    calm, found = batch_response(lam, replicas, work), burst_response(lam, replicas, work)
    assert found.mean_response == pytest.approx(calm.mean_response, rel=0.025)
    assert found.quantile(0.95) == pytest.approx(calm.quantile(0.95), rel=0.025)
    assert found.p_wait == pytest.approx(calm.queue.p_wait, abs=0.02)


@pytest.mark.parametrize("turn_s", [0.2, 2.0, 20.0])
@pytest.mark.parametrize(("share", "high", "load"), [(0.5, 1.5, 0.6), (0.2, 3.0, 0.5), (0.5, 1.2, 0.8)])
def test_rates_in_turns_are_the_chain_solved_as_it_is(
    chains: ModuleType, turn_s: float, share: float, high: float, load: float
) -> None:
    slots, low = 8, (1.0 - share * high) / (1.0 - share)
    lam = load * slots / SERVICE_S
    work = BatchWork(CONSTANT, slots, ALIKE, service_cs2=1.0)
    found = burst_response(lam, 1, work, bursts=Bursts(((1.0 - share, low), (share, high)), turn_s))
    scale = SERVICE_S  # the chain's unit of time is a service
    rates = lam * low * scale, lam * high * scale
    arrivals = chains.two_rates(*rates, turn_s / share / scale, turn_s / (1.0 - share) / scale)
    room = 2000 if turn_s > 2.0 else 600
    truth = chains.queue_of(arrivals, chains.service_of(1.0), slots, room)
    assert found.p_wait == pytest.approx(truth.p_wait, rel=1e-3)
    assert found.mean_wait == pytest.approx(truth.mean_wait * scale, rel=0.03)


@pytest.mark.parametrize("z", [2.0, 4.0])
@pytest.mark.parametrize("load", [0.7, 0.85])
def test_short_bursts_wait_as_often_as_hayward_says(z: float, load: float) -> None:
    work = BatchWork(CONSTANT, 64, ALIKE, service_cs2=1.0)
    found = burst_response(load * 128 / SERVICE_S, 2, work, peakedness=z)
    assert found.p_wait == pytest.approx(float(hayward_c(128, load * 128, z)), abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(("load", "high_s"), [(0.5, 100.0), (0.7, 20.0)])
def test_p95_of_two_rates_in_turns_is_that_of_a_simulation_token_by_token(load: float, high_s: float) -> None:
    work, replicas, length_s = BatchWork(PROFILE, 32, ALIKE), 4, 15_000.0
    lam, sizes = load * replicas * float(work.rates[-1]), Sizes(500, 200)
    asked = bursts(0.6 * lam, 1.8 * lam, low_s=2.0 * high_s, high_s=high_s, length_s=length_s, sizes=sizes, seed=3)
    pool = Pool(PROFILE, 32, 0.0, Objective(), 500.0, 200.0)
    seen = simulate(asked, pool, Static(pool, replicas), Setup("tokens", "central", replicas)).response_s
    # a draw leaves the high rate by the chance of the low one, 2/3
    said = Bursts(((2 / 3, 0.6), (1 / 3, 1.8)), high_s * 2 / 3)
    found = burst_response(len(asked) / length_s, replicas, work, bursts=said)
    assert found.quantile(0.95) == pytest.approx(float(np.quantile(seen, 0.95)), rel=0.15)


@settings(max_examples=30, deadline=None)
@given(load=st.floats(0.2, 0.95), replicas=st.integers(1, 50), z=st.floats(1.0, 20.0), more=st.floats(1.1, 4.0))
def test_more_bursts_never_shorten_the_tail(load: float, replicas: int, z: float, more: float) -> None:
    work = BatchWork(PROFILE, 16, ALIKE)
    lam = load * replicas * float(work.rates[-1])
    one = burst_response(lam, replicas, work, peakedness=z).quantile(0.95)
    assert burst_response(lam, replicas, work, peakedness=z * more).quantile(0.95) >= one * (1.0 - 0.02)


@settings(max_examples=30, deadline=None)
@given(load=st.floats(0.1, 0.95), replicas=st.integers(1, 50), z=st.floats(0.5, 20.0))
def test_quantile_and_survival_are_inverse_and_fall(load: float, replicas: int, z: float) -> None:
    work = BatchWork(PROFILE, 16, tuple((0.5, 300.0, o) for o in (50.0, 400.0)))
    found = burst_response(load * replicas * float(work.rates[-1]), replicas, work, peakedness=z)
    times = [found.quantile(q) for q in (0.5, 0.9, 0.95, 0.99)]
    assert times == sorted(times)
    assert found.survival(times[2] * 1.001) <= 0.05 <= found.survival(times[2] * 0.999)


def test_a_pool_without_arrivals_serves_alone_and_one_with_too_many_never_answers() -> None:
    work = BatchWork(PROFILE, 8, ALIKE)
    alone = 1.0 / float(work.rates[0])
    assert burst_response(0.0, 1, work).mean_response == pytest.approx(alone)
    assert burst_response(0.0, 1, work).quantile(0.95) == pytest.approx(alone, rel=0.05)
    never = burst_response(2.0 * float(work.rates[-1]), 1, work, peakedness=2.0)
    assert never.mean_response == never.quantile(0.5) == math.inf
    assert never.survival(1e9) == 1.0


def test_counts_of_two_rates_tell_how_long_one_lasts_and_how_far_they_are_apart() -> None:
    asked = bursts(10.0, 40.0, low_s=60.0, high_s=30.0, length_s=200_000.0, sizes=Sizes(1, 1), seed=2)
    counts = np.bincount((asked.times_s / 2.0).astype(int))
    found = bursts_of(counts, 2.0)
    assert found.turn_s == pytest.approx(20.0, rel=0.25)  # a draw each 20 s leaves the low one after 60 s
    spread = sum(share * (rate - 1.0) ** 2 for share, rate in found.levels)
    assert spread == pytest.approx(0.5, rel=0.1)  # rates of 0.5 and 2 in two thirds and one third of the time


def test_poisson_counts_show_next_to_no_bursts() -> None:
    counts = np.random.default_rng(1).poisson(20.0, 5000)
    spread = sum(share * (rate - 1.0) ** 2 for share, rate in bursts_of(counts, 1.0).levels)
    assert spread < 0.003


@pytest.mark.parametrize(
    ("levels", "turn_s", "said"),
    [
        ((), 1.0, "levels"),
        (((0.5, 1.0),), 1.0, "levels"),
        (((1.0, 2.0),), 1.0, "levels"),
        (((1.0, 1.0),), 0.0, "turn_s"),
    ],
)
def test_bursts_that_make_no_sense_are_refused_by_name(
    levels: tuple[tuple[float, float], ...], turn_s: float, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        Bursts(levels, turn_s)


@pytest.mark.parametrize("counts", [[1.0] * 5, [0.0] * 30, [-1.0] * 30])
def test_counts_that_tell_nothing_are_refused(counts: list[float]) -> None:
    with pytest.raises(ValueError, match="counts"):
        bursts_of(counts, 1.0)
