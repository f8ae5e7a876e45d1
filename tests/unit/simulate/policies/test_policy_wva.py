"""llm-d's workload-variant-autoscaler."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tierserve.queueing.batching.birth_death import loss_queue
from tierserve.simulate.policies.wva import WvaQueue, WvaSaturation, largest_rate
from tierserve.simulate.types import Pool, Snapshot

Snap = Callable[..., Snapshot]
Pools = Callable[..., Pool]

# as in the tests of Dynamo: for WVA a prefill in a batch of n takes 19 + 1.8 n ms and each token after it 11 + 1.8 n ms
ENGINE = {"profile": (0.01, 0.001, 0.0), "input_tokens": 9.0, "output_tokens": 9.0, "slots": 8}
RATES = [n / (0.118 + 0.018 * n) for n in range(1, 9)]


def test_wva_finds_the_rate_at_which_the_first_token_is_just_in_time(pool: Pools) -> None:
    asked = pool(**ENGINE)
    rate = largest_rate(asked, 9.0, 9.0, ttft_s=0.03, itl_s=1.0)
    assert rate is not None
    queue = loss_queue(rate, 1, RATES, 80)
    assert queue.mean_wait + 0.019 + 0.0018 * queue.mean_batch == pytest.approx(0.03, rel=1e-3)


def test_wva_finds_the_rate_at_which_tokens_are_just_in_time(pool: Pools) -> None:
    # 16.4 ms between tokens are what 3 in a batch get, and the batch of a Poisson stream is now and then fuller
    asked = pool(**ENGINE)
    rate = largest_rate(asked, 9.0, 9.0, ttft_s=1.0, itl_s=0.0164)
    assert rate is not None
    assert RATES[0] < rate < RATES[2]
    queue = loss_queue(rate, 1, RATES, 80)
    itl = (queue.mean_service - 0.019 - 0.0018 * queue.mean_batch) / 9
    assert itl == pytest.approx(0.0164, rel=1e-3)


def test_wva_heeds_the_tighter_of_its_targets(pool: Pools) -> None:
    first, between = (largest_rate(pool(**ENGINE), 9.0, 9.0, *targets) for targets in ((0.03, 1.0), (1.0, 0.0164)))
    assert first is not None
    assert between is not None
    assert largest_rate(pool(**ENGINE), 9.0, 9.0, 0.03, 0.0164) == pytest.approx(min(first, between), rel=3e-4)


def test_wva_without_targets_fills_the_replica(pool: Pools) -> None:
    inf = float("inf")
    assert largest_rate(pool(), 100.0, 9.0, inf, inf) == pytest.approx(10.0 * 0.999)


def test_wva_sees_that_an_idle_replica_is_too_slow(snap: Snap, pool: Pools) -> None:
    assert largest_rate(pool(**ENGINE), 9.0, 9.0, 0.018, 1.0) is None
    seen = snap(60, 3, arrivals=6000, input_tokens=54_000)
    assert WvaQueue(pool(**ENGINE, ttft_s=0.018), 1.0).decide(seen) == 3


def test_wva_divides_the_rate_of_the_last_minute(snap: Snap, pool: Pools) -> None:
    policy = WvaQueue(pool(), 1.0)  # no targets: 9.99 per second of a replica
    assert policy.decide(snap(60, 1, arrivals=60 * 45, input_tokens=6000 * 45)) == 5
    assert policy.decide(snap(120, 5, arrivals=60 * 70, input_tokens=6000 * 70)) == 3


def test_wva_with_no_request_keeps_the_floor(snap: Snap, pool: Pools) -> None:
    assert WvaQueue(pool(min_replicas=2), 1.0).decide(snap(60, 5)) == 2


def test_wva_sizes_for_the_tokens_it_sees(snap: Snap, pool: Pools) -> None:
    long = {"arrivals": 1200, "completions": 1200, "input_tokens": 120_000, "output_tokens": 1200 * 99}
    assert WvaQueue(pool(), 1.0).decide(snap(60, 1, **long)) in (20, 21)  # 10 s each, so 1 per second of a replica
    assert WvaQueue(pool(), 1.0).decide(snap(60, 1, **(long | {"output_tokens": 1200 * 9}))) in (2, 3)


def test_wva_looks_an_answer_up_the_second_time(snap: Snap, pool: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = WvaQueue(pool(**ENGINE, itl_s=0.0164), 1.0)
    counted = {"arrivals": 6000, "input_tokens": 54_000}
    first = policy.decide(snap(60, 1, **counted))
    monkeypatch.setattr("tierserve.simulate.policies.wva.largest_rate", None)
    assert policy.decide(snap(120, 1, **{name: 2 * value for name, value in counted.items()})) == first


def test_wva_survives_a_profile_whose_rate_falls(pool: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {1: 1.0, 2: 3.0, 3: 2.0, 4: 2.5}
    asked = pool(slots=4)
    monkeypatch.setattr("tierserve.simulate.policies.wva.service_s", lambda profile, n, i, o: n / rates[n])
    assert largest_rate(asked, 100.0, 9.0, float("inf"), float("inf")) == pytest.approx(3.0 * 0.999)


def minute(policy: WvaSaturation, snap: Snap, **seen: object) -> int:
    """The answer after a minute of the same."""
    answers = [policy.decide(snap(t, **seen)) for t in (15, 30, 45, 60)]
    assert answers[:3] == [answers[0]] * 3
    return answers[3]


def test_wva_saturation_adds_one_where_memory_gets_scarce(snap: Snap, pool: Pools) -> None:
    # 80 % are full: 7.1 of 10 slots leave 0.09, 7 leave 0.1
    assert minute(WvaSaturation(pool(), 0.8), snap, ready=3, batch=7.1) == 4
    assert minute(WvaSaturation(pool(), 0.8), snap, ready=3, batch=7.0) == 3


def test_wva_saturation_adds_one_where_queues_grow(snap: Snap, pool: Pools) -> None:
    assert minute(WvaSaturation(pool(), 0.8), snap, ready=3, batch=5, waiting=2.1) == 4
    assert minute(WvaSaturation(pool(), 0.8), snap, ready=3, batch=5, queued=6.3) == 4
    assert minute(WvaSaturation(pool(), 0.8), snap, ready=3, batch=5, waiting=2.0) == 3


def test_wva_saturation_asks_only_those_that_are_not_saturated(snap: Snap, pool: Pools) -> None:
    # the mean of all three would be 0.77 and leave 0.03; the two that are free leave 0.15
    assert minute(WvaSaturation(pool(), 0.8), snap, ready=3, batch=[10, 6.5, 6.5]) == 3


def test_wva_saturation_adds_one_where_all_are_saturated(snap: Snap, pool: Pools) -> None:
    assert minute(WvaSaturation(pool(), 0.8), snap, ready=2, batch=9) == 3


def test_wva_saturation_takes_one_where_the_rest_keep_the_spare(snap: Snap, pool: Pools) -> None:
    # 5 of 10 on 4: on 3 they are 6.7, which leave 0.13; 5.5 become 7.3, which leave 0.07
    assert minute(WvaSaturation(pool(), 0.8), snap, ready=4, batch=5.0) == 3
    assert minute(WvaSaturation(pool(), 0.8), snap, ready=4, batch=5.5) == 4


def test_wva_saturation_keeps_the_last_free_one(snap: Snap, pool: Pools) -> None:
    assert minute(WvaSaturation(pool(), 0.8), snap, ready=1, batch=0) == 1
    assert minute(WvaSaturation(pool(), 0.8), snap, ready=2, batch=[9, 1]) == 2


def test_wva_saturation_remembers_the_worst_of_the_minute(snap: Snap, pool: Pools) -> None:
    policy = WvaSaturation(pool(), 0.8)
    for t, batch in ((15, 1), (30, 7.5), (45, 1)):
        policy.decide(snap(t, 3, batch=batch))
    assert policy.decide(snap(60, 3, batch=1)) == 4


def test_wva_saturation_changes_nothing_while_replicas_start(snap: Snap, pool: Pools) -> None:
    assert minute(WvaSaturation(pool(), 0.8), snap, ready=3, starting=1, batch=9) == 4
    assert minute(WvaSaturation(pool(), 0.8), snap, ready=3, target=2, batch=9) == 2
