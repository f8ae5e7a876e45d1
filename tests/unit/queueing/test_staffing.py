"""Staffing: the least number of servers, for every kind of target."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest

from tierserve.queueing import (
    erlang_c,
    halfin_whitt,
    mean_response,
    mean_wait,
    response_quantile,
    servers_for,
    wait_quantile,
)


@pytest.mark.parametrize("a", [0.01, 0.3, 3.7, 50.0, 970.0, 99_800.0, 999_000.0])
def test_one_server_less_misses_the_chance_of_waiting(a: float) -> None:
    c = servers_for(a, max_p_wait=0.2)
    assert erlang_c(c, a) <= 0.2 < erlang_c(c - 1, a)


@pytest.mark.parametrize("lam", [0.4, 12.0, 800.0, 250_000.0])
@pytest.mark.parametrize(
    ("targets", "measure", "limit"),
    [
        ({"max_mean_wait": 0.02}, lambda c, lam: mean_wait(c, lam, 2.0), 0.02),
        ({"max_wait_quantile": 0.01, "q": 0.99}, lambda c, lam: wait_quantile(c, lam, 2.0, 0.99), 0.01),
        ({"max_mean_response": 0.55}, lambda c, lam: mean_response(c, lam, 2.0), 0.55),
        ({"max_response_quantile": 1.6}, lambda c, lam: response_quantile(c, lam, 2.0, 0.95), 1.6),
        (
            {"max_response_quantile": 0.6, "service_quantile_s": 0.55},
            lambda c, lam: response_quantile(c, lam, 2.0, 0.95, service_quantile_s=0.55),
            0.6,
        ),
    ],
)
def test_one_server_less_misses_the_target(lam: float, targets: dict[str, float], measure, limit: float) -> None:
    c = servers_for(lam / 2.0, mu=2.0, **targets)
    assert measure(c, lam) <= limit * (1 + 1e-9)
    assert measure(c - 1, lam) > limit


def test_the_margin_at_half_a_million_erlangs_is_twenty_servers() -> None:
    assert servers_for(500_000, max_mean_wait=0.05) == 500_020


def test_all_targets_must_hold() -> None:
    parts = [servers_for(80, max_p_wait=0.3), servers_for(80, max_mean_wait=0.001)]
    assert servers_for(80, max_p_wait=0.3, max_mean_wait=0.001) == max(parts)


def test_bursts_need_more_servers() -> None:
    assert servers_for(100, max_p_wait=0.1, z=4.0) > servers_for(100, max_p_wait=0.1)


def test_no_load_needs_no_server_and_a_target_of_one_needs_a_stable_queue() -> None:
    assert servers_for(0, max_p_wait=0.1) == 0
    assert servers_for(7, max_p_wait=1.0) == 8


def test_an_array_of_loads_gives_an_array_of_servers() -> None:
    loads = np.array([[0.0, 5.0], [50.0, 500.0]])
    together = servers_for(loads, max_p_wait=0.2)
    assert isinstance(together, np.ndarray)
    assert together.tolist() == [[servers_for(float(a), max_p_wait=0.2) for a in row] for row in loads]


def test_halfin_and_whitt_is_the_limit_of_erlang_c() -> None:
    a = 1e6
    assert erlang_c(a + 1.2 * math.sqrt(a), a) == pytest.approx(halfin_whitt(1.2), rel=2e-3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "needs a target, got none: give max_p_wait"),
        ({"max_p_wait": 0.0}, r"max_p_wait must be in \(0, 1\]"),
        ({"max_p_wait": 1.5}, "max_p_wait must be"),
        ({"max_mean_wait": -1.0}, "max_mean_wait must be"),
        ({"max_mean_response": 0.5}, r"max_mean_response must be > 1 / mu = 1 s.*give a longer time"),
        ({"max_response_quantile": 2.0}, r"max_response_quantile must be >= 2.99573 s.*faster server"),
        ({"max_p_wait": 0.1, "q": 2.0}, "q must be"),
        ({"max_p_wait": 0.1, "z": 0.0}, "z must be"),
        ({"max_p_wait": 0.1, "mu": math.nan}, "mu must be"),
    ],
)
def test_bad_targets_are_named_with_a_mend(arguments: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        servers_for(10.0, **arguments)


def test_a_bad_load_is_named() -> None:
    with pytest.raises(ValueError, match="a must be a finite number >= 0, got nan"):
        servers_for(math.nan, max_p_wait=0.1)
    with pytest.raises(ValueError, match="a must be finite numbers >= 0"):
        servers_for(np.array([1.0, -2.0]), max_p_wait=0.1)


def test_the_limit_is_as_near_to_erlang_c_as_it_states(stated: ModuleType) -> None:
    assert stated.broken(stated.rows_of.heavy()) == []
