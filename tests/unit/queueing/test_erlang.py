"""Erlang B and C against 50-digit arithmetic, against published values, and on bad input."""

from __future__ import annotations

import math
import random
from types import ModuleType

import mpmath as mp
import numpy as np
import pytest

from tierserve.queueing import erlang_b, erlang_c, hayward_c, log_erlang_c

REFERENCE = [
    (1, 0.5, 0.5, 1e-14),
    (2, 1.5, 0.642857142857143, 1e-14),
    (10, 8, 0.409180150796444, 1e-14),
    (100, 95, 0.506456853913021, 1e-14),
    (285, 280, 0.678792700397646, 1e-14),
    (1000, 970, 0.242823336180412, 1e-14),
    (1e5, 99800, 0.412200997, 1e-9),
    (1e6, 999000, 0.223303390, 1e-8),
]


def exact(c: float, a: float) -> tuple[mp.mpf, mp.mpf]:
    """ln B and ln C with 50 digits."""
    with mp.workdps(50):
        servers, load = mp.mpf(c), mp.mpf(a)
        log_b = servers * mp.log(load) - load - mp.log(mp.gammainc(servers + 1, load))
        b = mp.exp(log_b)
        return log_b, mp.log(servers * b / (servers - load * (1 - b))) if a < c else mp.mpf(0)


def cases() -> list[tuple[float, float]]:
    rng = random.Random(7)
    found: list[tuple[float, float]] = []
    for k in range(240):
        c = 10 ** rng.uniform(0, 4)
        c = float(round(c)) if k % 2 else c
        a = (
            c * rng.random(),
            c * (1 - 10 ** rng.uniform(-8, 0)),
            c * 10 ** rng.uniform(-6, 0),
            c - rng.random() * 3 * math.sqrt(c),
        )[k % 4]
        found.append((c, a if a > 0 else 0.5 * c))
    return found


def relative(value: float, truth: mp.mpf) -> float:
    return abs(float((mp.mpf(value) - truth) / truth))


def test_log_erlang_c_agrees_with_fifty_digits_up_to_ten_thousand_servers() -> None:
    worst = max(relative(log_erlang_c(c, a), exact(c, a)[1]) for c, a in cases())
    assert worst <= 1e-12


def test_the_array_form_is_as_exact() -> None:
    pairs = cases()
    logs = np.asarray(log_erlang_c(np.array([c for c, _ in pairs]), np.array([a for _, a in pairs])))
    assert max(relative(float(x), exact(c, a)[1]) for x, (c, a) in zip(logs, pairs, strict=True)) <= 1e-12


@pytest.mark.parametrize(("c", "a", "expected", "error"), REFERENCE)
def test_erlang_c_gives_the_reference_values(c: float, a: float, expected: float, error: float) -> None:
    assert erlang_c(c, a) == pytest.approx(expected, rel=error)


def test_a_chance_of_1e_970_is_kept_in_the_logarithm() -> None:
    load = 1000 * 13.1e9 / 312e12  # the paper's 0.0419871795 erlangs
    assert log_erlang_c(285, load) / math.log(10) == pytest.approx(math.log10(1.22065249154) - 970, abs=1e-11)
    assert erlang_c(285, load) == 0.0


@pytest.mark.parametrize(
    ("c", "a"), [(1, 1000.0), (100, 1e4), (1e6, 1.01e6), (1e4, 1.2e4), (50, 90.0), (0.5, 30.0), (3, 1e8), (20, 20.0)]
)
def test_erlang_b_is_exact_under_overload(c: float, a: float) -> None:
    assert relative(erlang_b(c, a), mp.exp(exact(c, a)[0])) <= 1e-12
    assert np.asarray(erlang_b(np.array([c]), a))[0] == pytest.approx(erlang_b(c, a), rel=1e-13)


def test_an_unstable_queue_makes_everyone_wait() -> None:
    assert erlang_c(3, 3) == erlang_c(3, 7.5) == erlang_c(0, 0) == 1.0
    assert log_erlang_c(3, 4) == 0.0


def test_no_load_makes_no_one_wait() -> None:
    assert erlang_c(3, 0) == 0.0
    assert erlang_b(3, 0) == 0.0
    assert erlang_b(0, 3) == erlang_b(0, 0) == 1.0
    assert log_erlang_c(3, 0) == -math.inf


def test_the_smallest_load_a_float_can_hold_is_still_a_load() -> None:
    expected = 20 * math.log(5e-324) - math.lgamma(21)
    assert log_erlang_c(20, 5e-324) == pytest.approx(expected, rel=1e-12)
    assert np.asarray(log_erlang_c(np.array([20.0]), 5e-324))[0] == pytest.approx(expected, rel=1e-12)


def test_arrays_broadcast_and_keep_their_edges() -> None:
    chances = np.asarray(erlang_c(np.array([[1.0], [2.0], [0.0]]), np.array([0.0, 0.5, 5.0])))
    assert chances.shape == (3, 3)
    assert chances[:, 2].tolist() == [1.0, 1.0, 1.0]
    assert chances[0, 0] == 0.0
    assert chances[0, 1] == pytest.approx(0.5)
    assert erlang_c(np.array([]), np.array([])).shape == (0,)  # type: ignore[union-attr]


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("function", [erlang_b, erlang_c, log_erlang_c])
def test_bad_input_is_named_with_its_value_and_a_mend(function: object, bad: float) -> None:
    with pytest.raises(ValueError, match=r"c must be .* got .*: give the number of servers"):
        function(bad, 1.0)  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"a must be .* got .*: give the offered load"):
        function(np.array([3.0, 4.0]), np.array([1.0, bad]))  # type: ignore[operator]


def test_text_is_no_number() -> None:
    with pytest.raises(ValueError, match="could not convert"):
        erlang_c("three", 1)  # type: ignore[call-overload]


def test_hayward_is_erlang_c_at_a_scale_and_rises_with_bursts() -> None:
    assert hayward_c(64, 51.2, 1.0) == erlang_c(64, 51.2)
    assert hayward_c(64, 51.2, 2.0) == erlang_c(32, 25.6)
    # ca2 = 4 for exponential service: z = 1 + (ca2 - 1) / 2; simulated 0.207, Hayward 0.204 (see docs/queueing.md)
    assert hayward_c(64, 0.8 * 64, 2.5) == pytest.approx(0.204, abs=0.002)
    assert np.asarray(hayward_c(np.array([64.0]), 51.2, 2.0))[0] == pytest.approx(erlang_c(32, 25.6), rel=1e-13)
    with pytest.raises(ValueError, match="z must be a finite number > 0"):
        hayward_c(64, 51.2, 0.0)


def test_the_errors_of_hayward_beside_exact_queues_are_those_it_states(stated: ModuleType) -> None:
    rows = list(stated.rows_of.hayward())
    assert len(rows) > 100
    assert stated.broken(rows) == []
