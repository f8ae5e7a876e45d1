"""M/G/c beside a simulation of it, and peakedness of arrivals that are known."""

from __future__ import annotations

import heapq
import itertools
import math
import random
import re
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from tierserve.queueing import hayward_c, mean_wait, mean_wait_general, peakedness


def service(cs2: float, r: random.Random) -> Callable[[], float]:
    """Service times of mean 1: constant, Erlang, exponential or a mixture of two exponentials with balanced means."""
    if cs2 == 0:
        return lambda: 1.0
    if cs2 <= 1:
        phases = round(1 / cs2)
        return lambda: r.gammavariate(phases, 1 / phases)
    p = 0.5 * (1 + math.sqrt((cs2 - 1) / (cs2 + 1)))
    return lambda: r.expovariate(2 * p) if r.random() < p else r.expovariate(2 * (1 - p))


def simulated(c: int, gaps: Callable[[], float], times: Callable[[], float], n: int) -> list[float]:
    """Waits of n customers, the first tenth left out."""
    free, now, waits = [0.0] * c, 0.0, []
    for _ in range(n):
        now += gaps()
        start = max(now, free[0])
        heapq.heapreplace(free, start + times())
        waits.append(start - now)
    return waits[n // 10 :]


@pytest.mark.parametrize(("c", "rho"), [(4, 0.7), (16, 0.9), (64, 0.95)])
@pytest.mark.parametrize("cs2", [0.0, 0.25, 4.0])
def test_the_mean_wait_is_that_of_a_simulation(c: int, rho: float, cs2: float) -> None:
    r = random.Random(7)
    waits = simulated(c, lambda: r.expovariate(rho * c), service(cs2, r), 300_000)
    assert mean_wait_general(c, rho * c, 1.0, cs2) == pytest.approx(sum(waits) / len(waits), rel=0.12)


def test_a_spread_of_one_is_the_exponential_and_one_server_is_pollaczek_and_khinchine() -> None:
    assert mean_wait_general(16, 14.0, 1.0, 1.0) == mean_wait(16, 14.0, 1.0)
    for cs2 in (0.0, 0.5, 2.0, 9.0):
        exact = (1 + cs2) / 2 * 0.8 / (1 - 0.8)
        assert mean_wait_general(1, 0.8, 1.0, cs2) == pytest.approx(exact)


def test_the_ends_of_the_load_are_those_of_any_queue() -> None:
    assert mean_wait_general(4, 0.0, 1.0, 4.0) == 0.0
    assert mean_wait_general(4, 4.0, 1.0, 0.0) == math.inf
    assert 0.0 <= mean_wait_general(1000, 1.0, 1.0, 50.0) < 1e-12


def test_arrivals_by_chance_have_peakedness_one_and_pairs_two() -> None:
    draw = np.random.default_rng(1)
    assert peakedness(draw.poisson(20.0, 20_000)) == pytest.approx(1.0, rel=0.05)
    assert peakedness(2 * draw.poisson(10.0, 20_000)) == pytest.approx(2.0, rel=0.05)
    assert peakedness([7] * 100) == 0.0


def test_with_the_peakedness_of_counts_the_chance_to_wait_is_that_of_a_simulation() -> None:
    c, load, size, r = 64, 51.2, 4, random.Random(3)
    gaps = itertools.chain.from_iterable((r.expovariate(load / size), *[0.0] * (size - 1)) for _ in itertools.count())
    came: list[float] = []

    def gap() -> float:
        came.append((came[-1] if came else 0.0) + (found := next(gaps)))
        return found

    waits = simulated(c, gap, lambda: r.expovariate(1.0), 300_000)
    counts = np.bincount(np.array(came, dtype=np.int64))[:-1]
    z = (peakedness(counts) + 1) / 2  # exponential service
    assert hayward_c(c, load, z) == pytest.approx(sum(w > 0 for w in waits) / len(waits), abs=0.04)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mean_wait_general(0, 1.0, 1.0, 1.0), "c must be a finite number > 0, got 0"),
        (lambda: mean_wait_general(1, 0.5, 1.0, -1.0), "cs2 must be a finite number >= 0, got -1.0"),
        (lambda: peakedness([1, 2]), "counts must be of ten windows or more, got 2"),
        (lambda: peakedness([0] * 20), "counts must be with at least one arrival, got 0"),
        (lambda: peakedness([1, math.nan] * 10), "counts must be finite numbers >= 0, got nan"),
    ],
)
def test_a_wrong_argument_is_named(call: Callable[[], float], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        call()


@pytest.mark.slow
def test_its_errors_beside_exact_queues_are_those_it_states(stated: ModuleType) -> None:
    rows = list(stated.rows_of.general((1, 2, 4, 8)))
    assert len(rows) > 80
    assert stated.broken(rows) == []


def test_the_peakedness_of_rates_that_take_turns_is_as_near_as_stated(stated: ModuleType) -> None:
    assert stated.broken(stated.rows_of.counted()) == []
