"""KEDA."""

from __future__ import annotations

from collections.abc import Callable

from tierserve.simulate.policies.keda import Keda
from tierserve.simulate.types import Pool, Snapshot

Snap = Callable[..., Snapshot]
Pools = Callable[..., Pool]


def test_keda_wakes_up_at_its_poll_and_to_one(snap: Snap, pool: Pools) -> None:
    policy = Keda(pool(min_replicas=0), 0.5)
    assert policy.decide(snap(0, 0)) == 0
    assert policy.decide(snap(15, 0, queued=100)) == 0  # the next poll is at 30
    assert policy.decide(snap(30, 0, queued=100)) == 1


def test_keda_lets_the_last_go_after_the_cool_down(snap: Snap, pool: Pools) -> None:
    policy = Keda(pool(min_replicas=0), 0.5)
    assert policy.decide(snap(0, 1, batch=1)) == 1
    answers = {t: policy.decide(snap(t, 1)) for t in range(15, 346, 15)}
    assert all(answers[t] == 1 for t in range(15, 330, 15))
    assert answers[330] == 0  # the first poll more than 300 s after the last request


def test_keda_with_a_floor_never_goes_below_it(snap: Snap, pool: Pools) -> None:
    policy = Keda(pool(min_replicas=2), 0.5)
    assert {policy.decide(snap(t, 2)) for t in range(0, 1200, 15)} == {2}


def test_keda_above_one_is_the_hpa_on_the_sum_of_the_metric(snap: Snap, pool: Pools) -> None:
    assert Keda(pool(), 0.5).decide(snap(0, 10, batch=5, queued=20)) == 14
    # 40 in flight for 2 ready and 4 starting: 40 / (6 x 5) = 1.33, so 8
    assert Keda(pool(), 0.5).decide(snap(0, 2, starting=4, batch=10, queued=20)) == 8


def test_keda_counts_starting_replicas_even_when_going_down(snap: Snap, pool: Pools) -> None:
    policy = Keda(pool(), 0.5)
    policy.decide(snap(0, 8, batch=5))
    # 8 in flight for 10 pods, ready or not: ceil(8 / 5) = 2, where an HPA on Pods metrics says 4
    assert policy.decide(snap(405, 8, starting=2, batch=1)) == 2
