"""Kubernetes HPA."""

from __future__ import annotations

from collections.abc import Callable

from tierserve.simulate.policies.hpa import Hpa
from tierserve.simulate.types import Pool, Snapshot

Snap = Callable[..., Snapshot]
Pools = Callable[..., Pool]


def test_hpa_holds_within_its_tolerance(snap: Snap, pool: Pools) -> None:
    # target 5 per replica, 10 replicas: 50 in flight are met exactly
    for load, wanted in ((46, 10), (54, 10), (56, 12)):
        assert Hpa(pool(), 0.5).decide(snap(0, 10, batch=load / 10)) == wanted


def test_hpa_counts_those_that_wait(snap: Snap, pool: Pools) -> None:
    assert Hpa(pool(), 0.5).decide(snap(0, 10, batch=5, queued=20)) == 14


def test_hpa_goes_up_by_four_or_by_double_at_most(snap: Snap, pool: Pools) -> None:
    assert Hpa(pool(), 0.5).decide(snap(0, 2, batch=10, queued=400)) == 6
    assert Hpa(pool(), 0.5).decide(snap(0, 20, batch=10, queued=4000)) == 40


def test_hpa_goes_up_again_at_the_next_sync(snap: Snap, pool: Pools) -> None:
    policy = Hpa(pool(), 0.5)
    assert policy.decide(snap(0, 2, batch=10, queued=400)) == 6
    assert policy.decide(snap(15, 6, batch=10, queued=400)) == 12


def test_hpa_going_up_takes_starting_pods_for_idle(snap: Snap, pool: Pools) -> None:
    # 2 ready with 10 each are twice the target; with 2 that start at 0 the ratio is 1: it holds at 4
    assert Hpa(pool(), 0.5).decide(snap(0, 2, starting=2, batch=10)) == 4
    # 60 in flight: 60 / (4 x 5) = 3, so 12, and 8 are allowed
    assert Hpa(pool(), 0.5).decide(snap(0, 2, starting=2, batch=10, queued=40)) == 8
    # 25 in flight: 25 / 20 = 1.25, so 5
    assert Hpa(pool(), 0.5).decide(snap(0, 2, starting=2, batch=10, queued=5)) == 5


def test_hpa_going_down_takes_starting_pods_for_as_busy_as_they_should_be(snap: Snap, pool: Pools) -> None:
    policy = Hpa(pool(), 0.5)
    policy.decide(snap(0, 8, batch=5))
    # 8 ready with 1 each and 2 that start at 5: 18 / 50, so ceil(3.6) = 4; alone the ready would give 2
    assert policy.decide(snap(400, 8, starting=2, batch=1)) == 4


def test_hpa_holds_where_starting_pods_turn_the_answer_around(snap: Snap, pool: Pools) -> None:
    # 1 ready with 7 is 1.4 times the target; with 2 that start at 0 it is 7 / 15, which would be a step down to 2
    policy = Hpa(pool(), 0.5)
    policy.decide(snap(0, 1, starting=2, batch=5))
    assert policy.decide(snap(400, 1, starting=2, batch=7)) == 3


def test_hpa_below_its_target_does_not_go_up(snap: Snap, pool: Pools) -> None:
    # 2 are wanted and 4 still ready with 3 each, one starts at 5: 17 / 25, and ceil(3.4) = 4 would be a step up
    policy = Hpa(pool(), 0.5)
    assert policy.decide(snap(0, 4, starting=1, target=2, batch=3.0)) == 2


def test_hpa_goes_down_only_when_300_s_agree(snap: Snap, pool: Pools) -> None:
    policy = Hpa(pool(), 0.5)
    assert policy.decide(snap(0, 10, batch=5)) == 10
    answers = {t: policy.decide(snap(t, 10, batch=2 if t != 150 else 4)) for t in range(15, 480, 15)}
    assert all(answers[t] == 10 for t in range(15, 300, 15))
    assert all(answers[t] == 8 for t in range(300, 450, 15))  # the 8 of t = 150 still counts
    assert answers[450] == 4


def test_hpa_never_goes_below_what_it_first_found_in_the_first_300_s(snap: Snap, pool: Pools) -> None:
    policy = Hpa(pool(), 0.5)
    assert [policy.decide(snap(t, 10)) for t in (0, 150, 299, 300)] == [10, 10, 10, 0]


def test_hpa_holds_without_a_metric_and_is_off_at_zero(snap: Snap, pool: Pools) -> None:
    assert Hpa(pool(), 0.5).decide(snap(0, 0, starting=3, queued=99)) == 3
    assert Hpa(pool(), 0.5).decide(snap(0, 0, target=0, queued=99)) == 0
