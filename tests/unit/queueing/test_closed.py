"""Connections as a closed population."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest

from tierserve.queueing import closed_rate, fixed_point, mean_response


@pytest.mark.parametrize("n", [1, 50, 900, 5000])
def test_little_holds_for_the_whole_circle(n: int) -> None:
    lam = closed_rate(n, 4.0, c=200, mu=2.0, network_s=0.04)
    assert lam * (4.04 + mean_response(200, lam, 2.0)) == pytest.approx(n)
    assert lam < 400


def test_the_paper_takes_a_second_for_the_whole_circle() -> None:
    mu = 312e12 / 13.1e9
    think = 1.0 - mean_response(285, 1000, mu)
    assert closed_rate(1000, think, c=285, mu=mu) == pytest.approx(1000)


def test_without_end_of_connections_the_servers_never_rest() -> None:
    assert closed_rate(1e9, 1.0, c=100, mu=2.0) == pytest.approx(200, rel=1e-6)
    assert closed_rate(1e300, 1.0, c=100, mu=2.0) <= 200


def test_no_connections_ask_nothing() -> None:
    assert closed_rate(0, 1.0, c=1, mu=1.0) == 0.0


def test_arrays_equal_numbers() -> None:
    sizes = np.array([0.0, 3.0, 70.0])
    expected = [closed_rate(float(n), 1.0, c=10, mu=1.0) for n in sizes]
    assert np.asarray(closed_rate(sizes, 1.0, c=10, mu=1.0)).tolist() == expected


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="n must be"):
        closed_rate(-1, 1.0, c=1, mu=1.0)
    with pytest.raises(ValueError, match=r"c must be .* with none no request ends"):
        closed_rate(1, 1.0, c=0, mu=1.0)
    with pytest.raises(ValueError, match="think_s must be"):
        closed_rate(1, math.nan, c=1, mu=1.0)
    with pytest.raises(ValueError, match="cycle must be > 0 s"):
        fixed_point(1, lambda _: 0.0)


def test_its_errors_beside_the_machine_repairmen_are_those_it_states(stated: ModuleType) -> None:
    rows = list(stated.rows_of.closed())
    assert len(rows) > 100
    assert stated.broken(rows) == []


def test_of_many_connections_that_seldom_ask_the_rate_is_that_of_the_exact_population(chains: ModuleType) -> None:
    errors = []
    for think_s in (10.0, 100.0, 1000.0):
        n = round(0.8 * 4 * (1.0 + think_s))
        exact = n / (think_s + chains.repairmen(n, think_s, 4, 1.0).mean_response)
        errors.append(exact / closed_rate(n, think_s, c=4, mu=1.0) - 1.0)
    assert errors == sorted(errors, reverse=True)
    assert 0.0 < errors[-1] < 2e-4
