from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from tierserve.loadgen import ClosedLoop, Outcome, Step, Traffic
from tierserve.loadgen.runner import Progress
from tierserve.loadgen.samples import Row
from tierserve.report import PoolPoint
from tierserve.report.live import LiveView, mixed_prediction, step_line
from tierserve.report.record import pool_point

POOLS = {
    "edge-default": [PoolPoint(100.0 + t, 2, 2, 6.0, 0.7, 1.2) for t in range(5)],
    "cloud-default": [PoolPoint(100.0 + t, 3, 5, 2.0, 0.6, 1.6) for t in range(5)],
    "device-default": [PoolPoint(100.0 + t, 1, 1, 0.2, 0.2, 9.9) for t in range(5)],
}


def row(step, intended, latency, outcome=Outcome.OK, traffic="chat", pool="edge-default"):
    return Row(step, traffic, intended, intended, math.nan, intended + latency, 200, outcome, pool, 1)


def progress(elapsed, rows, index=1, warmup=4.0, began=10.0):
    step = Step("8", 10.0, (Traffic("chat", ClosedLoop(8)),), warmup)
    return Progress(
        index,
        3,
        step,
        began,
        began + warmup if elapsed >= began + warmup else math.inf,
        elapsed,
        30.0,
        8,
        len(rows),
        0,
        7.0,
        1.0,
        rows,
    )


ROWS = [row(0, 9, 1.0), row(1, 10.5, 3.0), row(1, 14.5, 1.0), row(1, 15, 1.2), row(1, 15, 0.1, Outcome.HTTP_ERROR),
        row(1, 15, 9.0, traffic="personal", pool="device-default")]  # fmt: skip


def test_the_running_step_shows_its_steady_part_and_one_traffic():
    line = step_line(progress(18.0, ROWS), "chat", 1.5, POOLS)
    assert (line.name, line.warm, line.errors) == ("8", False, 1)
    assert line.p95_s == pytest.approx(1.2)
    assert line.within == pytest.approx(2 / 3)
    assert line.rate == pytest.approx(2 / 4)
    assert line.replicas == ((2, 2), (3, 5), (1, 1))


def test_until_then_it_shows_the_warm_up():
    line = step_line(progress(13.0, ROWS[:2]), "chat", 1.5, POOLS)
    assert line.warm
    assert line.p95_s == pytest.approx(3.0)


def test_predictions_of_the_serving_pools_are_weighted_by_their_arrivals():
    assert mixed_prediction(POOLS, {"edge-default", "cloud-default"}) == pytest.approx((6 * 1.2 + 2 * 1.6) / 8)
    assert mixed_prediction(POOLS, {"edge-default", ""}) == pytest.approx(1.2)
    assert math.isnan(mixed_prediction(POOLS, set()))


def test_the_screen_shows_steps_replicas_on_their_way_and_the_device_s_words():
    console = Console(file=io.StringIO(), force_terminal=True, width=140)
    with LiveView(console, lambda: POOLS, "chat", 1.5) as view:
        view.update(progress(9.5, ROWS[:1], index=0, began=0.0))
        view.say("Why?", "Because\nit rains.")
        view.update(progress(18.0, ROWS))
    shown = console.file.getvalue()
    for words in ("target 1500", "cloud replicas", "3 → 5", "1200 ms", "Because it rains."):
        assert words in shown


def test_without_a_screen_each_step_is_one_line_even_when_steps_are_skipped():
    console = Console(file=io.StringIO(), width=200)
    with LiveView(console, lambda: POOLS, "chat", 1.5) as view:
        view.update(progress(9.5, ROWS[:1], index=0, began=0.0))
        for elapsed in (18.0, 18.5, 19.0):
            view.update(progress(elapsed, ROWS, index=2))
    assert len(console.file.getvalue().strip().splitlines()) == 2


def test_a_prediction_without_the_network_gets_it_added():
    decision = {"lambda": 4.0, "rho": 0.5, "predicted_p95_s": 1.2}
    pool = {"running": 2, "desired": 3, "targetSeconds": 1.46, "decision": decision, "gateway": {"p95_s": 1.3}}
    point = pool_point(pool, 7.0, 1.5)
    assert point == PoolPoint(7.0, 2, 3, 4.0, 0.5, pytest.approx(1.24), 1.3)
    assert pool_point(pool | {"decision": None, "gateway": None}, 7.0, 1.5).predicted_p95_s is None
    assert pool_point(pool | {"running": None}, 7.0, 1.5) is None
