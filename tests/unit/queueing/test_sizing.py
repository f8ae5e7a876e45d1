"""Staffing: the least replicas that hold a response-time objective."""

from __future__ import annotations

import math
import random

import pytest

from tierserve.queueing.sizing import (
    Demand,
    Objective,
    meets,
    reachable,
    replicas_for,
    response_miss,
    response_quantile,
    wait_probability,
)

OBJECTIVE = Objective(1.5)


@pytest.mark.parametrize(("c", "a", "expected"), [(10, 8.0, 0.409180150796444), (100, 95.0, 0.506456853913021)])
def test_a_poisson_stream_waits_with_erlangs_probability(c, a, expected):
    assert wait_probability(c, Demand(a, 1.0)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("slots", [1, 4, 8, 32])
@pytest.mark.parametrize("load", [0.3, 3.0, 31.9, 250.0])
@pytest.mark.parametrize("z", [0.05, 1.0, 4.0])
def test_the_replicas_found_meet_the_objective_and_one_fewer_does_not(load, slots, z):
    demand = Demand(load, 1.0, 0.1, z)
    n = replicas_for(demand, OBJECTIVE, slots)
    assert meets(n * slots, demand, OBJECTIVE)
    assert not meets((n - 1) * slots, demand, OBJECTIVE)


def test_no_load_needs_no_replica():
    assert replicas_for(Demand(0.0, 1.0), OBJECTIVE, 8) == 0


def test_the_response_quantile_is_where_the_tail_is_what_may_miss():
    demand = Demand(40.0, 1.0, 0.3)
    p95 = response_quantile(44, demand, 95.0)
    assert response_miss(44, demand, p95 * 1.001) <= 0.05 <= response_miss(44, demand, p95 * 0.97)


def test_a_load_beyond_the_servers_has_no_quantile():
    assert response_quantile(8, Demand(8.0, 1.0), 95.0) == math.inf
    assert response_miss(8, Demand(8.0, 1.0), 100.0) == 1.0


def test_a_target_under_the_bare_service_time_keeps_waits_rare_at_a_bounded_price():
    demand, objective = Demand(40.0, 1.0), Objective(0.8)
    assert not reachable(demand, objective)
    n = replicas_for(demand, objective, 1)
    assert 45 <= n <= 60


def _simulated_miss(c: int, rate: float, mean: float, target: float, seed: int = 3) -> float:
    """Return the share over the target in an M/M/c queue, first come first served."""
    r = random.Random(seed)
    free, t, missed, n = [0.0] * c, 0.0, 0, 40_000
    import heapq

    for _ in range(n):
        t += r.expovariate(rate)
        start = max(heapq.heappop(free), t)
        end = start + r.expovariate(1.0 / mean)
        heapq.heappush(free, end)
        missed += end - t > target
    return missed / n


def test_the_predicted_share_of_misses_is_that_of_a_simulated_queue():
    predicted = response_miss(12, Demand(10.0, 1.0, 1.0), 3.5)
    assert predicted == pytest.approx(_simulated_miss(12, 10.0, 1.0, 3.5), abs=0.02)
