"""Rates over a past window, and what rules read alike."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tierserve.simulate.policies.windows import (
    Highest,
    Window,
    in_flight,
    mean_tokens,
    round_up,
    waiting_per_replica,
)
from tierserve.simulate.types import Pool, Snapshot

Snap = Callable[..., Snapshot]


def test_a_rate_is_the_rise_over_the_window_and_not_over_the_run(snap: Snap) -> None:
    window = Window(60.0, "arrivals")
    for t, count in ((0, 0), (30, 300), (60, 360), (90, 420), (120, 540)):
        window.add(snap(t, 1, arrivals=count))
    assert window.rate("arrivals") == pytest.approx((540 - 360) / 60)
    assert window.rate("arrivals", 30.0) == pytest.approx((540 - 420) / 30)


def test_between_two_snapshots_a_counter_rises_evenly(snap: Snap) -> None:
    window = Window(60.0, "in_system_s")
    for t, integral in ((0, 0), (40, 80), (80, 400)):
        window.add(snap(t, 1, in_system_s=integral))
    assert window.rate("in_system_s") == pytest.approx((400 - 40) / 60)  # at t = 20 it was 40
    assert window.rate("in_system_s", 10.0) == pytest.approx(320 / 40)


def test_until_a_window_has_gone_by_it_reaches_back_to_the_start(snap: Snap) -> None:
    window = Window(60.0, "arrivals")
    assert window.rate("arrivals") == 0.0
    window.add(snap(15, 1, arrivals=45))
    assert window.elapsed() == 15.0
    assert window.rate("arrivals") == pytest.approx(3.0)


def test_the_counters_of_the_first_moment_are_where_a_window_starts(snap: Snap) -> None:
    window = Window(60.0, "arrivals")
    window.add(snap(0, 1, arrivals=1000))
    window.add(snap(10, 1, arrivals=1050))
    assert window.rate("arrivals") == pytest.approx(5.0)


def test_a_window_stays_as_long_as_its_span_however_long_the_run(snap: Snap) -> None:
    window = Window(60.0, "arrivals")
    for tick in range(5000):
        window.add(snap(2.0 * tick, 1, arrivals=6 * tick))
        assert len(window) <= 32
    assert window.rate("arrivals") == pytest.approx(3.0)


def test_a_window_refuses_to_go_back_in_time(snap: Snap) -> None:
    window = Window(60.0, "arrivals")
    window.add(snap(10, 1))
    with pytest.raises(ValueError, match="order of time"):
        window.add(snap(9, 1))


def test_a_mean_per_request_says_so_where_there_was_no_request(snap: Snap, pool: Callable[..., Pool]) -> None:
    window = Window(60.0, "arrivals", "completions", "input_tokens", "output_tokens")
    assert mean_tokens(window, pool()) == (100.0, 9.0)
    window.add(snap(60, 1, arrivals=4, completions=2, input_tokens=800, output_tokens=60))
    assert mean_tokens(window, pool()) == (200.0, 30.0)
    window.add(snap(90, 1, arrivals=4, completions=2, input_tokens=800, output_tokens=60))
    window.add(snap(150, 1, arrivals=4, completions=2, input_tokens=800, output_tokens=60))
    assert mean_tokens(window, pool()) == (100.0, 9.0)


def test_requests_of_a_draining_replica_are_no_load(snap: Snap) -> None:
    assert in_flight(snap(0, 2, batch=[3, 4], queued=5, running=17, draining=1)) == 12.0


def test_the_queue_at_the_gateway_is_shared_out(snap: Snap) -> None:
    assert waiting_per_replica(snap(0, 2, waiting=[1, 3], queued=10)).tolist() == [4.0, 6.0]
    assert waiting_per_replica(snap(0, 0, queued=10)).size == 0


def test_rounding_up_forgives_the_last_digit() -> None:
    assert [round_up(x) for x in (0.0, 2.1 / 0.7, 3.001, 3.0 + 1e-12)] == [0, 3, 4, 3]


def test_the_highest_is_forgotten_after_its_time() -> None:
    highest = Highest(300.0)
    assert [highest(t, n) for t, n in ((0, 9), (100, 4), (200, 5), (299, 1), (300, 1), (499, 1), (500, 2))] == [
        9, 9, 9, 9, 5, 5, 2,
    ]  # fmt: skip
