"""The replay: the least fixed pool for the arrivals that were counted."""

from __future__ import annotations

import numpy as np
import pytest

from tierserve.autoscale.replay import ReplayState, Service, Terms, least_replicas, replay

SERVICE = Service(slots=8, alone_s=2.0, full_s=4.0)  # a full replica finishes 2 a second
TERMS = Terms(SERVICE, max_wait_s=5.0, startup_s=30.0, block_s=60.0, keep_s=36_000.0)


def replayed(arrivals: np.ndarray, tick_s: float = 1.0, max_wait_s: float = 5.0) -> ReplayState:
    state = ReplayState()
    for k, n in enumerate(arrivals):
        state = replay(state, ((k + 1) * tick_s, tick_s, float(n)), TERMS._replace(max_wait_s=max_wait_s))
    return state


def test_an_even_load_needs_its_work():
    state = replayed(np.full(3600, 9.0))
    n, fewer_late = least_replicas(state, 0.0, 0.01)
    assert n == 5  # 4.5 full replicas
    assert fewer_late > 0.5


def test_clumps_that_may_wait_need_no_more_than_their_mean():
    clumps = np.where(np.arange(3600) % 4 == 0, 36.0, 0.0)  # 9 a second
    assert least_replicas(replayed(clumps), 0.0, 0.01)[0] in (5, 6)


def test_clumps_that_may_not_wait_need_slots():
    clumps = np.where(np.arange(3600) % 60 == 0, 160.0, 0.0)
    patient, _ = least_replicas(replayed(clumps, max_wait_s=30.0), 0.0, 0.01)
    hasty, _ = least_replicas(replayed(clumps, max_wait_s=0.5), 0.0, 0.01)
    assert patient < hasty <= 20  # 160 slots


def test_a_burst_counts_while_it_is_in_the_window():
    arrivals = np.full(3600, 2.0)
    arrivals[600:700] = 20.0
    state = replayed(arrivals)
    assert least_replicas(state, 540.0, 0.01)[0] >= 8
    assert least_replicas(state, 1200.0, 0.01)[0] <= 2


def test_a_step_of_any_length_gives_the_same():
    fine, coarse = replayed(np.full(1200, 9.0)), replayed(np.full(120, 90.0), tick_s=10.0)
    assert least_replicas(fine, 0.0, 0.01)[0] == least_replicas(coarse, 0.0, 0.01)[0]


def test_a_grid_beyond_exact_sizes_is_at_most_4_percent_too_large():
    state = replayed(np.full(1200, 1000.0))
    assert 500 <= least_replicas(state, 0.0, 0.01)[0] <= 1.045 * 500


def test_nothing_seen_needs_nothing():
    assert least_replicas(ReplayState(), 0.0, 0.01) == (0, 0.0)


def test_old_blocks_are_dropped():
    state = ReplayState()
    for k in range(2000):
        state = replay(state, (float(k), 1.0, 3.0), TERMS._replace(block_s=10.0, keep_s=100.0))
    assert len(state.blocks) <= 12
    assert state.blocks[0].t >= 1999 - 111


@pytest.mark.parametrize("seconds", [0.1, 1.0, 30.0])
def test_requests_are_conserved(seconds):
    state = ReplayState()
    for k in range(50):
        state = replay(state, (k * seconds, seconds, 5.0), TERMS)
    assert (state.inside >= 0.0).all()
    assert (state.inside <= 250.0).all()
