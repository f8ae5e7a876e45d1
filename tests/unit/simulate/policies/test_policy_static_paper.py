"""Static peak, and the paper's Erlang C."""

from __future__ import annotations

from collections.abc import Callable

from tierserve.queueing.erlang import erlang_c
from tierserve.queueing.mmc import mean_response, response_survival
from tierserve.simulate.policies.paper import Paper
from tierserve.simulate.policies.static import Static
from tierserve.simulate.types import Pool, Snapshot

Snap = Callable[..., Snapshot]
Pools = Callable[..., Pool]


def test_static_stays_whatever_comes(snap: Snap, pool: Pools) -> None:
    policy = Static(pool(), 7.0)
    assert [policy.decide(snap(t, 3, queued=queue)) for t, queue in ((0, 0), (60, 900))] == [7, 7]


def test_static_without_a_number_is_the_floor(snap: Snap, pool: Pools) -> None:
    assert Static(pool(min_replicas=3), 0.0).decide(snap(0, 1)) == 3


def test_paper_takes_the_fewest_servers_whose_mean_response_is_in_time(snap: Snap, pool: Pools) -> None:
    # 20 erlangs of mu = 1: by the formula itself, W(c) first falls to 1.05 s at the c below
    need = next(c for c in range(21, 60) if mean_response(c, 20.0, 1.0) <= 1.05)
    assert need == 25
    counted = {"arrivals": 1200, "completions": 1, "input_tokens": 120_000, "output_tokens": 9}
    assert Paper(pool(response_s=1.05, slots=1), 1.0).decide(snap(60, 1, **counted)) == 25
    assert Paper(pool(response_s=1.05, slots=10), 1.0).decide(snap(60, 1, **counted)) == 3


def test_paper_sizes_for_the_last_interval_times_its_factor(snap: Snap, pool: Pools) -> None:
    policy = Paper(pool(slots=1), 2.0)
    assert policy.decide(snap(60, 1, arrivals=600, input_tokens=60_000)) == 21  # 2 x 10 erlangs, only to be borne
    assert policy.decide(snap(120, 21, arrivals=660, input_tokens=66_000)) == 3
    assert policy.decide(snap(180, 21, arrivals=660, input_tokens=66_000)) == 0


def test_paper_by_the_percentile_needs_more_than_by_the_mean(snap: Snap, pool: Pools) -> None:
    asked = pool(slots=1, response_s=4.7, percentile=99.0)  # the 99th percentile of the service alone is 4.605 s
    seen = snap(60, 1, arrivals=1200, input_tokens=120_000)
    assert Paper(asked, 1.0).decide(seen) == 21
    need = next(c for c in range(21, 60) if response_survival(erlang_c(c, 20.0), c - 20.0, 4.7) <= 0.01)
    assert need == 24
    assert Paper(asked, 1.0, by="percentile").decide(seen) == 24


def test_paper_bears_the_load_where_no_number_is_fast_enough(snap: Snap, pool: Pools) -> None:
    assert Paper(pool(slots=1, response_s=0.5), 1.0).decide(snap(60, 1, arrivals=1200, input_tokens=120_000)) == 21


def test_paper_does_not_know_that_a_batch_slows_down(snap: Snap, pool: Pools) -> None:
    slow = pool(profile=(0.01, 0.01, 0.0), input_tokens=9.0)  # T(1) = 0.28 s, and T(10) 1.9 s
    mu = 1.0 / slow.profile.service_time(1.0, 9.0, 9.0)
    assert slow.profile.rate(10, 9.0, 9.0) < 5.5 < 10 * mu
    seen = snap(60, 1, arrivals=1140, input_tokens=1140 * 9)  # 19 per second are 5.3 erlangs: one replica of ten
    assert Paper(slow, 1.0).decide(seen) == 1
