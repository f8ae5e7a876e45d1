"""The caches of the simulator beside Che's approximation, and what they forget first."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq

from tierserve.queueing import BatchProfile
from tierserve.simulate.cluster import Setup
from tierserve.simulate.engine.cache import Lru, find, holds, lru, put
from tierserve.simulate.engine.router import of_pool
from tierserve.simulate.multi_tier import AnswerCache, Gateway, Site, Traffic, simulate_tiers
from tierserve.simulate.policies.static import Static
from tierserve.simulate.results import TiersResult
from tierserve.simulate.types import Objective, Pool, Workload
from tierserve.simulate.workload import zipf

pytestmark = pytest.mark.slow  # runs are simulated

KEYS = 2_000
PROFILE = BatchProfile(alpha=0.010, beta=2e-5, gamma=1e-7)


def cache(keys: int, capacity: int) -> Lru:
    return of_pool(lru(keys, [capacity]), 0)


def played(n: int, exponent: float, *, answers: int, ttl_s: float = 1e9, prefixes: int = 0) -> TiersResult:
    """Requests at 100 a second, prompts and beginnings Zipf; service so short that answers are there at once."""
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.exponential(0.01, n))
    ones = np.ones(n, dtype=np.int64)
    keys = zipf(KEYS, exponent, n, 3)
    traffic = Traffic(Workload(times, 3 * ones, ones, float(times[-1])), {"all": ("edge",)}, None, keys, keys, 2 * ones)
    pool = Pool(PROFILE, 8, 0.0, Objective(), 1.0, 1.0)
    setup = Setup("slots", initial=4)
    edge = Site("edge", "edge", pool, Static(pool, 4), setup, 0.0, 0.0, np.full(n, 1e-6), 1.0, prefixes)
    held = AnswerCache("edge", ttl_s, answers, bytes_per_token=1.0)
    return simulate_tiers(traffic, [edge], Gateway(cache=held))


def che(exponent: float, held: float) -> float:
    """Hit rate of an LRU of so many equal answers (Che, Tung and Wang, 2002): each key is in with 1 - exp(-p t)."""
    p = 1.0 / np.arange(1, KEYS + 1) ** exponent
    p /= p.sum()
    t = brentq(lambda t: (1.0 - np.exp(-p * t)).sum() - held, 1.0, 1e9)
    return float((p * (1.0 - np.exp(-p * t))).sum())


@pytest.mark.slow
@pytest.mark.parametrize(("exponent", "held"), [(0.8, 100), (0.8, 500), (1.1, 100)])
def test_the_hit_rate_of_answers_is_che_s(exponent: float, held: int) -> None:
    found = played(200_000, exponent, answers=held)
    assert found.cached[20_000:].mean() == pytest.approx(che(exponent, held), rel=0.02)


def test_answers_that_grow_old_are_hit_as_a_timer_says() -> None:
    found = played(200_000, 0.8, answers=10**9, ttl_s=20.0)
    p = 1.0 / np.arange(1, KEYS + 1) ** 0.8
    rate = 100.0 * p / p.sum()
    seen = rate * 20.0  # a miss begins each period of the ttl, with so many hits after it
    assert found.cached[20_000:].mean() == pytest.approx(float((p / p.sum() * seen / (1.0 + seen)).sum()), rel=0.02)


def test_the_hit_rate_of_beginnings_is_che_s() -> None:
    found = played(200_000, 0.8, answers=0, prefixes=2 * 300)
    assert not found.cached.any()
    assert found.prefix_hit[20_000:].mean() == pytest.approx(che(0.8, 300), rel=0.02)


def test_the_one_used_longest_ago_is_forgotten_first() -> None:
    held = cache(5, 3)
    for key in (0, 1, 2):
        put(held, key, 1, float(key))
    assert find(held, 0, -np.inf)
    put(held, 3, 1, 3.0)
    assert [bool(holds(held, key)) for key in range(5)] == [True, False, True, True, False]


def test_a_large_one_drives_out_as_many_as_it_needs_and_one_that_never_fits_none() -> None:
    held = cache(5, 10)
    for key in (0, 1, 2):
        put(held, key, 3, float(key))
    put(held, 3, 5, 3.0)
    assert [bool(holds(held, key)) for key in range(5)] == [False, False, True, True, False]
    put(held, 4, 11, 4.0)
    assert [bool(holds(held, key)) for key in range(5)] == [False, False, True, True, False]
    assert held.room.tolist() == [8, 10]


def test_an_old_one_is_no_hit_and_is_gone_and_a_hit_makes_it_no_younger() -> None:
    held = cache(2, 2)
    put(held, 0, 1, 10.0)
    assert find(held, 0, 5.0)
    assert not find(held, 0, 10.5)
    assert not holds(held, 0)
    assert held.room[0] == 0


def test_popular_keys_are_asked_as_zipf_says() -> None:
    counts = np.bincount(zipf(100, 1.0, 200_000, 7), minlength=100)
    p = 1.0 / np.arange(1, 101)
    assert counts[:10] / 200_000 == pytest.approx(p[:10] / p.sum(), rel=0.05)
    assert counts.size == 100
