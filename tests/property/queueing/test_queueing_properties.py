"""What must hold of Erlang's formulas whatever the numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tierserve.queueing import (
    BatchProfile,
    erlang_b,
    erlang_c,
    hayward_c,
    log_erlang_c,
    mean_response,
    mean_wait,
    response_quantile,
    servers_for,
    wait_quantile,
)

SERVERS = st.one_of(st.integers(1, 10**6).map(float), st.floats(0.5, 1e6))
SHARE = st.floats(1e-6, 0.999999)
EXAMPLES = settings(max_examples=80, deadline=None)
ROUNDING = 1e-11


@EXAMPLES
@given(SERVERS, SHARE, st.floats(1e-3, 1e3))
def test_erlang_c_falls_as_servers_are_added(c: float, rho: float, more: float) -> None:
    assert log_erlang_c(c + more, rho * c) <= log_erlang_c(c, rho * c) * (1 - ROUNDING)


@EXAMPLES
@given(SERVERS, SHARE, SHARE)
def test_erlang_c_rises_with_the_load(c: float, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assume(high - low > 1e-9)
    assert log_erlang_c(c, low * c) <= log_erlang_c(c, high * c) * (1 - ROUNDING)


@EXAMPLES
@given(SERVERS, st.floats(1e-6, 10.0))
def test_fewer_are_lost_than_would_wait(c: float, rho: float) -> None:
    b, chance = erlang_b(c, rho * c), erlang_c(c, rho * c)
    assert 0.0 <= b <= 1.0
    assert b <= chance * (1 + ROUNDING)
    assert chance <= 1.0


@EXAMPLES
@given(st.floats(1.0, 1e6))
def test_a_vanishing_load_waits_never_and_a_full_one_always(c: float) -> None:
    # C ~ a^c / c! for small a, and 1 - C ~ (c - a) times something finite for a near c
    assert log_erlang_c(c, 1e-9) == pytest.approx(c * math.log(1e-9) - math.lgamma(c + 1), rel=1e-9, abs=1e-7)
    assert erlang_c(c, c * (1 - 1e-15)) == pytest.approx(1.0, abs=1e-9)


@EXAMPLES
@given(SHARE)
def test_one_server_is_the_queue_m_m_1(rho: float) -> None:
    assert erlang_c(1, rho) == pytest.approx(rho, rel=1e-12)
    assert mean_wait(1, rho, 1.0) == pytest.approx(rho / (1 - rho), rel=1e-9)
    assert response_quantile(1, rho, 1.0, 0.9) == pytest.approx(-math.log(0.1) / (1 - rho), rel=1e-8)


@EXAMPLES
@given(SERVERS, SHARE)
def test_the_logarithm_agrees_with_the_number(c: float, rho: float) -> None:
    log = log_erlang_c(c, rho * c)
    assume(log > -600)
    assert math.exp(log) == pytest.approx(erlang_c(c, rho * c), rel=1e-12)


@EXAMPLES
@given(st.lists(st.tuples(SERVERS, st.floats(0.0, 3.0)), min_size=1, max_size=20))
def test_arrays_equal_numbers(pairs: list[tuple[float, float]]) -> None:
    c = np.array([c for c, _ in pairs])
    a = np.array([c * rho for c, rho in pairs])
    each = list(zip(c.tolist(), a.tolist(), strict=True))
    np.testing.assert_allclose(log_erlang_c(c, a), [log_erlang_c(x, y) for x, y in each], rtol=1e-11)
    np.testing.assert_allclose(erlang_b(c, a), [erlang_b(x, y) for x, y in each], rtol=1e-10)


@EXAMPLES
@given(st.integers(1, 200), st.floats(0.01, 300.0))
def test_erlang_b_satisfies_its_recursion(c: int, a: float) -> None:
    before = erlang_b(c - 1, a)
    assert erlang_b(c, a) == pytest.approx(a * before / (c + a * before), rel=1e-11)


@EXAMPLES
@given(SERVERS, SHARE, st.floats(1.0, 50.0), st.floats(1.0, 50.0))
def test_bursts_never_shorten_the_queue(c: float, rho: float, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert hayward_c(c, rho * c, low) <= hayward_c(c, rho * c, high) * (1 + 1e-9)


@EXAMPLES
@given(st.floats(1e-3, 1e6), st.floats(1e-9, 1.0))
def test_staffing_is_the_least_that_meets_the_chance(a: float, chance: float) -> None:
    c = servers_for(a, max_p_wait=chance)
    assert erlang_c(c, a) <= chance
    assert c - 1 <= a or erlang_c(c - 1, a) > chance


@EXAMPLES
@given(st.floats(1e-3, 1e5), st.floats(1e-4, 10.0), st.floats(0.5, 0.999))
def test_staffing_for_a_wait_at_a_quantile_is_the_least(a: float, wait: float, q: float) -> None:
    c = servers_for(a, max_wait_quantile=wait, q=q)
    assert wait_quantile(c, a, 1.0, q) <= wait * (1 + 1e-9)
    assert c - 1 <= a or wait_quantile(c - 1, a, 1.0, q) > wait * (1 - 1e-9)


@EXAMPLES
@given(st.integers(1, 2000), SHARE, st.floats(0.01, 100.0), st.floats(0.5, 0.999))
def test_a_response_lasts_longer_than_its_parts_and_not_longer_than_both(
    c: int, rho: float, mu: float, q: float
) -> None:
    lam = rho * c * mu
    response = response_quantile(c, lam, mu, q)
    alone = -math.log1p(-q) / mu
    half = 0.5 * (1 + q)
    assert response >= alone * (1 - 1e-9)
    assert response >= wait_quantile(c, lam, mu, q)
    assert response <= wait_quantile(c, lam, mu, half) - math.log1p(-half) / mu + 1e-9 / mu
    assert mean_response(c, lam, mu) >= 1 / mu


@EXAMPLES
@given(
    st.floats(1e-4, 0.1),
    st.floats(0, 1e-3),
    st.floats(0, 1e-6),
    st.floats(1, 4000),
    st.floats(1, 2000),
    st.integers(1, 500),
)
def test_a_batch_slows_each_request_and_speeds_the_replica(
    alpha: float, beta: float, gamma: float, i: float, o: float, n: int
) -> None:
    profile = BatchProfile(alpha, beta, gamma)
    assert profile.service_time(n + 1, i, o) >= profile.service_time(n, i, o)
    assert profile.rate(n + 1, i, o) >= profile.rate(n, i, o)
