"""llm-d's rules on metrics of the endpoint picker."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tierserve.simulate.policies.llm_d import (
    Behaviour,
    LlmDQueue,
    LlmDSaturation,
    LlmDSlo,
    LlmDTokens,
    Side,
    average_value,
)
from tierserve.simulate.types import Pool, Snapshot

Snap = Callable[..., Snapshot]
Pools = Callable[..., Pool]

FREE = Side(0.0, 15.0, share=10.0)


def test_a_metric_is_divided_by_its_target_and_the_largest_answer_counts() -> None:
    assert average_value(2, [(7.0, 1.0), (40.0, 16.0)]) == 7
    assert average_value(2, [(1.0, 1.0), (40.0, 16.0)]) == 3


def test_a_metric_within_a_tenth_of_its_target_changes_nothing() -> None:
    assert average_value(20, [(21.9, 1.0)]) == 20
    assert average_value(20, [(22.1, 1.0)]) == 23


def test_going_up_the_lowest_recommendation_of_the_window_governs() -> None:
    behaviour = Behaviour(Side(30.0, 15.0, share=10.0), FREE)
    answers = [behaviour(t, 2, wanted) for t, wanted in ((0.0, 8), (15.0, 6), (30.0, 7), (45.0, 9))]
    assert answers == [2, 2, 6, 7]


def test_going_down_the_highest_recommendation_of_the_window_governs() -> None:
    behaviour = Behaviour(FREE, Side(30.0, 15.0, share=1.0))
    answers = [behaviour(t, 8, wanted) for t, wanted in ((0.0, 2), (15.0, 4), (30.0, 3), (45.0, 1))]
    assert answers == [8, 8, 4, 3]


def test_a_rate_limit_counts_from_the_start_of_its_period() -> None:
    behaviour = Behaviour(Side(0.0, 60.0, pods=4, share=1.0), FREE)
    assert behaviour(0.0, 2, 50) == 6  # 4 pods are more than 100%
    assert behaviour(15.0, 6, 50) == 6
    assert behaviour(60.0, 6, 50) == 12  # the first change is a period ago


def test_one_pod_a_period_goes_down() -> None:
    behaviour = Behaviour(FREE, Side(0.0, 120.0, pods=1))
    replicas, changed = 5, []
    for t in range(0, 375, 15):
        after = behaviour(float(t), replicas, 1)
        changed += [t] if after != replicas else []
        replicas = after
    assert changed == [0, 120, 240, 360]
    assert replicas == 1


def test_llm_d_queue_waits_a_start_up_before_it_goes_up(snap: Snap, pool: Pools) -> None:
    policy = LlmDQueue(pool(startup_s=60.0), 0.0)
    answers = [policy.decide(snap(t, 2, batch=10, queued=3)) for t in (0, 15, 30, 45, 60)]
    assert answers == [2, 2, 2, 2, 3]


def test_llm_d_queue_counts_running_requests(snap: Snap, pool: Pools) -> None:
    fast = {"startup_s": 0.0}
    assert LlmDQueue(pool(**fast), 0.0).decide(snap(0, 4, batch=10)) == 4  # 40 / 16 are 3: down after 300 s
    assert LlmDQueue(pool(**fast), 0.5).decide(snap(0, 4, batch=10)) == 8


def test_llm_d_saturation_rises_with_the_queue_of_a_replica(snap: Snap, pool: Pools) -> None:
    policy = LlmDSaturation(pool(startup_s=0.0), 0.0)
    # 17.5 waiting each are 3.5 times the 5 of a saturated one: 3.5 / 0.7
    assert policy.decide(snap(0, 4, batch=10, queued=70)) == 5
    assert LlmDSaturation(pool(startup_s=0.0), 0.0).decide(snap(0, 4, batch=10, queued=20)) == 4


def test_llm_d_tokens_counts_the_seconds_of_prefill_that_wait(snap: Snap, pool: Pools) -> None:
    # 0.01 s and 8.192 s for the chunk: about 999 tokens a second; 50 prompts of 100 tokens are 5 s, over 1.5 s: 4
    asked = pool(profile=(0.01, 0.001, 0.0), startup_s=0.0)
    assert LlmDTokens(asked, 0.8).decide(snap(0, 3, queued=50)) == 4
    assert LlmDTokens(asked, 0.8).decide(snap(0, 3, queued=49)) == 3  # within a tenth of 3


def test_llm_d_tokens_counts_used_cache(snap: Snap, pool: Pools) -> None:
    assert LlmDTokens(pool(), 0.8).decide(snap(0, 3, batch=9)) == 4  # 2.7 pods' worth over 0.8
    assert LlmDTokens(pool(), 0.8).decide(snap(0, 3, batch=8)) == 3


def test_llm_d_tokens_adds_one_replica_in_three_minutes(snap: Snap, pool: Pools) -> None:
    policy, replicas, added = LlmDTokens(pool(), 0.8), 2, []
    for t in range(0, 375, 15):
        after = policy.decide(snap(t, replicas, batch=10, queued=500))
        added += [t] if after > replicas else []
        replicas = after
    assert added == [0, 180, 360]


ENGINE = {"profile": (0.01, 0.001, 0.0), "input_tokens": 9.0, "output_tokens": 9.0, "slots": 8}


def slo(snap: Snap, asked: Pool, until_s: int, **seen: object) -> list[int]:
    """The answers of every 5 s to the same load."""
    policy = LlmDSlo(asked, 0.55)
    rate = {"arrivals": 10, "completions": 10, "input_tokens": 90, "output_tokens": 90}
    return [
        policy.decide(snap(t, **seen, **{name: value * t for name, value in rate.items()}))
        for t in range(0, until_s + 5, 5)
    ]


def test_llm_d_slo_goes_up_by_what_the_latency_is_above_its_threshold(snap: Snap, pool: Pools) -> None:
    # a request that makes a batch of 7 has 0.01 + 6 x 0.0018 + 0.001 = 21.8 ms between tokens: 1.09 of 20 ms; alone it
    # has 11 ms, so that the threshold is 0.55 of the way from 0.55 to 1
    answers = slo(snap, pool(**ENGINE, itl_s=0.02), 60, ready=10, batch=6)
    assert answers[:6] == [10] * 6
    assert answers[-1] == 14  # 10 x 1.09 / 0.7975, after the window of 30 s


def test_llm_d_slo_credits_what_starts(snap: Snap, pool: Pools) -> None:
    answers = slo(snap, pool(**ENGINE, itl_s=0.02), 60, ready=10, starting=5, batch=6)
    assert answers[-1] == 15  # 15 x 1.09 x 10 / 15 / 0.7975 are 15 within the tolerance


def test_llm_d_slo_holds_between_its_thresholds(snap: Snap, pool: Pools) -> None:
    answers = slo(snap, pool(**ENGINE, itl_s=0.035), 600, ready=10, batch=6)
    assert set(answers) == {10}


def test_llm_d_slo_goes_down_one_by_one(snap: Snap, pool: Pools) -> None:
    answers = slo(snap, pool(**ENGINE, itl_s=0.1), 300, ready=10, batch=3)
    assert answers[35] == 10
    assert min(answers) == 9


def test_llm_d_slo_does_not_grow_for_a_target_near_the_latency_of_an_idle_replica(snap: Snap, pool: Pools) -> None:
    answers = slo(snap, pool(**ENGINE, itl_s=0.0125), 600, ready=10, batch=0)
    assert max(answers) == 10


def test_llm_d_slo_sees_the_wait_of_a_full_pool(snap: Snap, pool: Pools) -> None:
    # 2 replicas finish 2 x 8 / 0.226 per second: 35 waiting requests are half a second, all of the target
    answers = slo(snap, pool(**ENGINE, ttft_s=0.5), 60, ready=2, batch=8, queued=35)
    assert answers[-1] == 4


def test_llm_d_slo_without_a_request_goes_down(snap: Snap, pool: Pools) -> None:
    policy = LlmDSlo(pool(**ENGINE, itl_s=0.02), 0.55)
    answers = [policy.decide(snap(t, 3)) for t in range(0, 605, 5)]
    assert answers[0] == 3
    assert min(answers) == 2


@pytest.mark.parametrize("make", [LlmDQueue, LlmDSaturation, LlmDTokens, LlmDSlo])
def test_llm_d_leaves_replicas_that_all_start_as_they_are(make: Callable, snap: Snap, pool: Pools) -> None:
    assert make(pool(), 0.5).decide(snap(0, 0, starting=3, queued=100)) == 3
