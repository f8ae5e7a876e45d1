"""NVIDIA Dynamo's planner."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tierserve.simulate.policies.dynamo import Dynamo
from tierserve.simulate.types import Pool, Snapshot

Snap = Callable[..., Snapshot]
Pools = Callable[..., Pool]

# alpha 10 ms, beta 1 ms, 9 tokens in and 9 out: a prefill alone takes 19 ms, a step of n that decode 10 + n ms, and the
# time between tokens of a mixed engine is 11 + 1.8 n ms, so that 20.1 ms allow n = 5
ENGINE = {"profile": (0.01, 0.001, 0.0), "input_tokens": 9.0, "output_tokens": 9.0, "slots": 8, "itl_s": 0.0201}


def interval(n: int, per_s: float, ttft: float = 0.05, itl: float = 0.02, response: float = 0.2) -> dict[str, float]:
    """Counters after n intervals of 180 s alike."""
    count = 180.0 * per_s * n
    return {
        "arrivals": count, "completions": count, "first_tokens": count, "ttft_sum_s": ttft * count,
        "itl_sum_s": itl * count, "response_sum_s": response * count, "input_tokens": 9 * count,
        "output_tokens": 9 * count,
    }  # fmt: skip


def test_dynamo_adds_the_gpu_time_of_prefill_and_decode(snap: Snap, pool: Pools) -> None:
    # 100 per second: 19 ms of prefill and 9 x 15 / 5 = 27 ms of decode each are 4.6 GPUs
    assert Dynamo(pool(**ENGINE), 1.0, "throughput").decide(snap(180, 4, **interval(1, 100.0))) == 5


def test_dynamo_wants_less_prefill_where_first_tokens_come_early(snap: Snap, pool: Pools) -> None:
    # half the expected 19 ms: 9.5 + 27 ms are 3.65 GPUs
    seen = snap(180, 4, **interval(1, 100.0, ttft=0.0095))
    assert Dynamo(pool(**ENGINE), 1.0, "throughput").decide(seen) == 4


def test_dynamo_does_not_raise_prefill_where_first_tokens_come_late(snap: Snap, pool: Pools) -> None:
    seen = snap(180, 4, **interval(1, 100.0, ttft=10.0))
    assert Dynamo(pool(**ENGINE), 1.0, "throughput").decide(seen) == 5


def test_dynamo_tightens_its_itl_by_how_late_tokens_come(snap: Snap, pool: Pools) -> None:
    # twice the 20 ms that 5 in each of the 4 batches should give: 10.05 ms allow a batch of 1 at the most;
    # 19 + 9 x 11 = 118 ms are 11.8 GPUs
    seen = snap(180, 4, **interval(1, 100.0, itl=0.04))
    assert Dynamo(pool(**ENGINE), 1.0, "throughput").decide(seen) == 12


def test_dynamo_multiplies_the_predicted_load_by_its_factor(snap: Snap, pool: Pools) -> None:
    assert Dynamo(pool(**ENGINE), 2.0, "throughput").decide(snap(180, 4, **interval(1, 100.0))) == 10


def test_dynamo_predicts_the_last_interval_and_no_more(snap: Snap, pool: Pools) -> None:
    policy = Dynamo(pool(**ENGINE), 1.0, "throughput")
    assert policy.decide(snap(180, 4, **interval(1, 100.0))) == 5
    twice = {name: 3.0 * value for name, value in interval(1, 100.0).items()}
    # 200 per second on 8 replicas: 5 in each batch again, and 9.2 GPUs
    assert policy.decide(snap(360, 8, **twice)) == 10


def test_dynamo_keeps_its_replicas_where_there_was_nothing_to_measure(snap: Snap, pool: Pools) -> None:
    policy = Dynamo(pool(**ENGINE), 1.0, "throughput")
    policy.decide(snap(180, 4, **interval(1, 100.0)))
    assert policy.decide(snap(360, 5, **interval(1, 100.0))) == 5


@pytest.mark.parametrize("mode", ["throughput", "load", "both"])
def test_dynamo_changes_nothing_while_replicas_start(snap: Snap, pool: Pools, mode: str) -> None:
    policy = Dynamo(pool(**ENGINE), 1.0, mode)  # type: ignore[arg-type]
    assert policy.decide(snap(180, 1, starting=1, batch=8, **interval(1, 100.0))) == 2


def test_dynamo_sweeping_takes_the_largest_batch_that_keeps_both_targets(snap: Snap, pool: Pools) -> None:
    # ITL alone allows 5: 5 / (9 x 19 ms) = 29.2 per second of an engine, so 3.4 of them
    seen = snap(180, 4, **interval(1, 100.0))
    assert Dynamo(pool(**ENGINE), 1.0, "throughput", sizing="sweep").decide(seen) == 4
    # TTFT beside n is 19 + n ms, and 21.5 ms allow 2: 2 / (9 x 13.6 ms) = 16.3, so 6.1
    assert Dynamo(pool(**ENGINE, ttft_s=0.0215), 1.0, "throughput", sizing="sweep").decide(seen) == 7


def test_dynamo_load_adds_one_only_if_all_engines_miss_the_itl(snap: Snap, pool: Pools) -> None:
    policy = Dynamo(pool(**ENGINE), 1.0, "load")  # 6 in a batch give 21.8 ms, 5 give 20
    assert policy.decide(snap(5, 3, batch=[6, 6, 7])) == 4
    assert policy.decide(snap(10, 3, batch=[6, 5, 7])) == 3


def test_dynamo_load_adds_one_only_if_all_engines_miss_the_ttft(snap: Snap, pool: Pools) -> None:
    # behind 4 that wait: 45 tokens to prefill are 55 ms, behind 3 they are 46 ms
    policy = Dynamo(pool(**(ENGINE | {"itl_s": 1.0}), ttft_s=0.05), 1.0, "load")
    assert policy.decide(snap(5, 2, waiting=[4, 5])) == 3
    assert policy.decide(snap(10, 2, waiting=[3, 5])) == 2


def test_dynamo_load_takes_one_only_if_the_rest_keep_four_fifths(snap: Snap, pool: Pools) -> None:
    policy = Dynamo(pool(**ENGINE), 1.0, "load")  # 0.8 of the target: 16.08 ms, 2.8 in a batch
    assert policy.decide(snap(5, 3, batch=2)) == 3  # the other two would have 3: 16.4 ms
    assert policy.decide(snap(10, 6, batch=2)) == 5  # the other five would have 2.4: 15.3 ms


def test_dynamo_load_keeps_one_that_the_queue_needs(snap: Snap, pool: Pools) -> None:
    # 3 replicas, 50 ms asked, 19 ms of prefill alone: 0.8 x 31 = 24.8 ms are left for the queue, 2.75 requests of 9
    policy = Dynamo(pool(**(ENGINE | {"itl_s": 1.0}), ttft_s=0.05), 1.0, "load")
    assert policy.decide(snap(5, 3, waiting=2)) == 3  # two would have 3 each
    assert policy.decide(snap(10, 3, waiting=1)) == 2  # two would have 1.5 each


def test_dynamo_load_does_not_fill_the_rest_beyond_their_slots(snap: Snap, pool: Pools) -> None:
    policy = Dynamo(pool(**(ENGINE | {"itl_s": 10.0})), 1.0, "load")
    assert policy.decide(snap(5, 2, batch=4)) == 2
    assert policy.decide(snap(10, 2, batch=3.5)) == 1


def test_dynamo_load_keeps_the_last_one(snap: Snap, pool: Pools) -> None:
    assert Dynamo(pool(**ENGINE, min_replicas=0), 1.0, "load").decide(snap(5, 1)) == 1


def test_dynamo_both_never_goes_below_the_answer_for_throughput(snap: Snap, pool: Pools) -> None:
    both, load = Dynamo(pool(**ENGINE), 1.0, "both"), Dynamo(pool(**ENGINE), 1.0, "load")
    assert (both.interval_s, load.interval_s) == (5.0, 5.0)
    assert both.decide(snap(180, 4, **interval(1, 100.0))) == 5
    idle = snap(185, 5, **interval(1, 100.0))
    load.decide(snap(180, 4, **interval(1, 100.0)))
    assert both.decide(idle) == 5
    assert load.decide(idle) == 4
