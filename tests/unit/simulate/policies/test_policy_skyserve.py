"""SkyServe."""

from __future__ import annotations

from collections.abc import Callable

from tierserve.simulate.policies.skyserve import SkyServe
from tierserve.simulate.types import Pool, Snapshot

Snap = Callable[..., Snapshot]
Pools = Callable[..., Pool]


def run(policy: SkyServe, snap: Snap, rates: list[float], ready: int) -> list[int]:
    """Answers of a tick every 20 s, the rate of each before it."""
    count, answers = 0.0, []
    for tick, rate in enumerate(rates, start=1):
        count += 20.0 * rate
        answers.append(policy.decide(snap(20.0 * tick, ready, arrivals=count)))
    return answers


def test_skyserve_waits_fifteen_ticks_before_it_goes_up(snap: Snap, pool: Pools) -> None:
    # a replica does 10 per second at most, so 5 are its target: 24 per second want 5; the first tick sees 8 of them
    answers = run(SkyServe(pool(), 0.5), snap, [24.0] * 16, ready=1)
    assert answers[:14] == [1] * 14
    assert answers[14] == 5


def test_skyserve_waits_sixty_ticks_before_it_goes_down(snap: Snap, pool: Pools) -> None:
    answers = run(SkyServe(pool(), 0.5), snap, [4.0] * 60, ready=3)
    assert answers[:59] == [3] * 59
    assert answers[59] == 1


def test_skyserve_forgets_its_wait_at_one_tick_that_agrees(snap: Snap, pool: Pools) -> None:
    # fourteen ticks want up; at the fifteenth the window of three ticks is empty, and the count begins again
    answers = run(SkyServe(pool(), 0.5), snap, [24.0] * 12 + [0.0] * 3 + [24.0] * 15, ready=1)
    assert answers[:29] == [1] * 29
    assert answers[29] == 5


def test_skyserve_takes_over_the_last_number_only(snap: Snap, pool: Pools) -> None:
    answers = run(SkyServe(pool(), 0.5), snap, [49.0] * 12 + [9.0] * 3, ready=1)
    assert answers[14] == 2  # for 240 s it wanted 10


def test_skyserve_counts_only_its_own_ticks(snap: Snap, pool: Pools) -> None:
    policy = SkyServe(pool(min_replicas=0), 0.5)
    assert policy.interval_s == 5.0
    answers = {t: policy.decide(snap(t, 1, arrivals=24.0 * t)) for t in range(5, 306, 5)}
    first = min(t for t, wanted in answers.items() if wanted == 5)
    assert first == 305  # ticks at 5 s (2 per second, which one replica bears), 25 s (10 per second), 45 s, ...


def test_skyserve_comes_up_from_nothing_at_once(snap: Snap, pool: Pools) -> None:
    assert SkyServe(pool(min_replicas=0), 0.5).decide(snap(60, 0, arrivals=1440)) == 5


def test_skyserve_does_not_wait_for_more_than_the_ceiling(snap: Snap, pool: Pools) -> None:
    answers = run(SkyServe(pool(max_replicas=2), 0.5), snap, [24.0] * 40, ready=2)
    assert answers == [2] * 40
