"""AIBrix APA."""

from __future__ import annotations

from collections.abc import Callable

from tierserve.simulate.policies.aibrix import Apa
from tierserve.simulate.types import Pool, Snapshot

Snap = Callable[..., Snapshot]
Pools = Callable[..., Pool]


def test_apa_holds_within_its_tolerance(snap: Snap, pool: Pools) -> None:
    for load, wanted in ((46, 10), (54, 10), (56, 12)):
        assert Apa(pool(), 0.5).decide(snap(0, 10, batch=load / 10)) == wanted


def test_apa_at_most_doubles(snap: Snap, pool: Pools) -> None:
    assert Apa(pool(), 0.5).decide(snap(0, 3, batch=10, queued=500)) == 6


def test_apa_at_most_halves_and_keeps_one(snap: Snap, pool: Pools) -> None:
    assert Apa(pool(), 0.5).decide(snap(0, 9)) == 4  # a first answer has no history that keeps it up
    assert Apa(pool(min_replicas=0), 0.5).decide(snap(0, 1)) == 1


def test_apa_goes_down_only_when_300_s_agree(snap: Snap, pool: Pools) -> None:
    policy = Apa(pool(), 0.5)
    assert policy.decide(snap(0, 10, batch=5)) == 10
    answers = {t: policy.decide(snap(t, 10, batch=4)) for t in range(10, 320, 10)}
    assert all(answers[t] == 10 for t in range(10, 300, 10))
    assert answers[300] == answers[310] == 8


def test_apa_keeps_raising_while_replicas_load(snap: Snap, pool: Pools) -> None:
    # 2 ready at twice the target: 4, then 8, though the 2 that start would do
    policy = Apa(pool(), 0.5)
    assert policy.decide(snap(0, 2, batch=10)) == 4
    assert policy.decide(snap(10, 2, starting=2, batch=10)) == 8


def test_apa_holds_where_nothing_can_be_measured(snap: Snap, pool: Pools) -> None:
    assert Apa(pool(), 0.5).decide(snap(0, 0, starting=3, queued=99)) == 3
