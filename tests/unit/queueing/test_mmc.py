"""Waits and responses: textbook values, the paper's W, edges, and an event simulation."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest

from tierserve.queueing import mean_response, mean_wait, response_quantile, response_survival, wait_quantile


def simulated(c: int, lam: float, mu: float, customers: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Waits and responses of M/M/c by its events: each customer takes the server that is free first."""
    import heapq

    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / lam, customers)).tolist()
    services = rng.exponential(1 / mu, customers)
    free = [0.0] * c
    waits = np.empty(customers)
    for k, (now, service) in enumerate(zip(arrivals, services.tolist(), strict=True)):
        start = max(now, free[0])
        heapq.heapreplace(free, start + service)
        waits[k] = start - now
    kept = slice(customers // 20, None)
    return waits[kept], (waits + services)[kept]


@pytest.mark.parametrize(("c", "lam", "mu"), [(1, 0.7, 1.0), (8, 14.0, 2.0), (32, 28.0, 1.0)])
def test_the_formulas_agree_with_an_event_simulation(c: int, lam: float, mu: float) -> None:
    waits, responses = simulated(c, lam, mu, customers=400_000, seed=11)
    assert mean_wait(c, lam, mu) == pytest.approx(waits.mean(), rel=0.05)
    assert mean_response(c, lam, mu) == pytest.approx(responses.mean(), rel=0.02)
    assert wait_quantile(c, lam, mu, 0.95) == pytest.approx(np.quantile(waits, 0.95), rel=0.05)
    assert response_quantile(c, lam, mu, 0.95) == pytest.approx(np.quantile(responses, 0.95), rel=0.02)


def test_one_server_is_the_textbook_queue() -> None:
    assert mean_wait(1, 0.8, 1.0) == pytest.approx(4.0)
    assert mean_response(1, 0.8, 1.0) == pytest.approx(5.0)
    assert response_quantile(1, 0.8, 1.0, 0.95) == pytest.approx(-math.log(0.05) / 0.2)


def test_the_papers_response_times() -> None:
    assert mean_response(285, 1000, 312e12 / 13.1e9) == pytest.approx(4.19871794872e-5, rel=1e-11)
    assert mean_response(9, 20, 120e12 / 13.1e9) == pytest.approx(1.09166666667e-4, rel=1e-11)


def test_an_unstable_queue_waits_for_ever_and_an_idle_one_not_at_all() -> None:
    assert mean_wait(2, 2, 1) == wait_quantile(2, 3, 1, 0.5) == math.inf
    assert mean_wait(2, 0, 1) == wait_quantile(2, 0, 1, 0.99) == 0.0
    assert mean_response(2, 2, 1) == response_quantile(2, 2, 1, 0.9) == math.inf
    assert response_quantile(2, 0, 1, 0.5) == pytest.approx(math.log(2))


def test_a_quantile_below_the_share_that_waits_is_zero() -> None:
    assert wait_quantile(20, 10, 1, 0.95) == 0.0


def test_constant_service_adds_to_the_tail_of_the_wait() -> None:
    wait = wait_quantile(5, 4, 1, 0.95)
    assert response_quantile(5, 4, 1, 0.95, service_quantile_s=1.0) == wait + 1.0
    assert response_quantile(5, 4, 1, 0.95, service_quantile_s=1.0) < response_quantile(5, 4, 1, 0.95)


def test_the_tail_is_smooth_where_its_two_forms_meet() -> None:
    for spare in (0.999999, 1.0, 1.000001):
        assert response_survival(0.3, spare, 2.0) == pytest.approx(math.exp(-2) * 1.6, rel=1e-5)


def test_the_quantile_solves_the_tail_for_queues_near_saturation() -> None:
    time = response_quantile(5, 4.9999, 1, 0.95)
    spare = 5 - 4.9999
    chance = mean_wait(5, 4.9999, 1) * spare
    assert response_survival(chance, spare, time) == pytest.approx(0.05, rel=1e-8)


def test_arrays_equal_numbers() -> None:
    c, lam = np.array([2.0, 5.0, 1.0]), np.array([1.5, 4.0, 2.0])
    for function, rest in (
        (mean_wait, (1.0,)),
        (mean_response, (1.0,)),
        (wait_quantile, (1.0, 0.9)),
        (response_quantile, (1.0, 0.9)),
    ):
        together = np.asarray(function(c, lam, *rest))
        assert together.tolist() == pytest.approx(
            [function(float(x), float(y), *rest) for x, y in zip(c, lam, strict=True)]
        )
    assert np.asarray(response_quantile(c, lam, 1.0, 0.9, service_quantile_s=np.ones(3))).shape == (3,)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((-1, 1, 1), "c must be"),
        ((1, math.nan, 1), "lam must be"),
        ((1, 1, 0), "mu must be"),
        (("x", 1, 1), "c must be"),
        ((np.array([1.0, 2.0]), 1, np.array([1.0, -1.0])), "mu must be"),
    ],
)
def test_bad_input_is_named(arguments: tuple[object, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mean_wait(*arguments)  # type: ignore[call-overload]


@pytest.mark.parametrize("q", [0.0, 1.0, -0.1, math.nan])
def test_a_quantile_lies_between_zero_and_one(q: float) -> None:
    with pytest.raises(ValueError, match=r"q must be between 0 and 1 .*give a quantile such as 0.95"):
        wait_quantile(2, 1, 1, q)
    with pytest.raises(ValueError, match="q must be"):
        response_quantile(2, 1, 1, q)


@pytest.mark.slow
def test_with_a_quantile_of_the_service_it_errs_on_the_long_side_as_it_states(stated: ModuleType) -> None:
    assert stated.broken(stated.rows_of.constant_response(20_000)) == []
