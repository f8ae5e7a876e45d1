"""KubeAI."""

from __future__ import annotations

from collections.abc import Callable

from tierserve.simulate.policies.kubeai import KubeAi
from tierserve.simulate.types import Pool, Snapshot

Snap = Callable[..., Snapshot]
Pools = Callable[..., Pool]


def minutes(policy: KubeAi, snap: Snap, count: int, first: int = 0, **seen: object) -> int:
    """The answer after so many minutes of the same."""
    answers = [policy.decide(snap(t, **seen)) for t in range(60 * first, 60 * (first + count), 10)]
    return answers[-1]


def test_kubeai_divides_the_mean_of_ten_minutes(snap: Snap, pool: Pools) -> None:
    # half of the window is still the zeros that it begins with
    assert minutes(KubeAi(pool(), 0.0), snap, 5, ready=1, batch=10, queued=790) == 4
    assert minutes(KubeAi(pool(), 0.0), snap, 10, ready=1, batch=10, queued=790) == 8


def test_kubeai_takes_a_share_of_the_slots_where_one_is_given(snap: Snap, pool: Pools) -> None:
    assert minutes(KubeAi(pool(), 0.5), snap, 10, ready=2, batch=10, queued=20) == 8


def test_kubeai_goes_down_at_the_fourth_tick_that_says_so(snap: Snap, pool: Pools) -> None:
    policy = KubeAi(pool(), 0.5)
    assert [policy.decide(snap(t, 4)) for t in range(0, 50, 10)] == [4, 4, 4, 1, 1]


def test_kubeai_begins_to_count_anew_after_a_tick_that_does_not(snap: Snap, pool: Pools) -> None:
    policy = KubeAi(pool(), 0.5)
    answers = [policy.decide(snap(t, 4)) for t in (0, 10)]
    answers.append(policy.decide(snap(20, 4, queued=60 * 20)))
    answers += [policy.decide(snap(t, 5)) for t in (30, 40, 50)]
    assert answers[2] == 4
    assert answers[3:] == [5, 5, 5]


def test_kubeai_leaves_replicas_that_all_start_as_they_are(snap: Snap, pool: Pools) -> None:
    assert KubeAi(pool(), 0.5).decide(snap(0, 0, starting=3, queued=100)) == 3
