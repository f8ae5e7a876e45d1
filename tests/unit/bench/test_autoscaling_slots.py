"""The most that slots hold, bench/autoscaling/slots.py: over what simulated replicas have, and not by far."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import pytest

from tierserve.queueing import BatchProfile
from tierserve.simulate.cluster import Cluster, Setup
from tierserve.simulate.types import Floats, Objective, Pool, Workload
from tierserve.simulate.workload import Sizes, bursts

pytestmark = pytest.mark.slow  # runs are simulated

PROFILE = BatchProfile(alpha=0.0112, beta=1.03e-4, gamma=9.2e-8)
TARGET_S = 5.0
POOL = Pool(PROFILE, 16, 60.0, Objective(ttft_s=TARGET_S), 1000.0, 300.0)
SECONDS = 600


@pytest.fixture(scope="module")
def slots() -> ModuleType:
    return importlib.import_module("bench.autoscaling.slots")


def work_of(seed: int, replicas: int) -> Workload:
    low, high, sizes = 0.3 * replicas, 0.9 * replicas, Sizes(1500, 400, 1.0)
    return bursts(low, high, low_s=60.0, high_s=30.0, length_s=float(SECONDS), sizes=sizes, seed=seed)


def decode_s(work: Workload, done: Floats | float) -> Floats:
    """Seconds of decode work in the first `done` tokens of each answer."""
    i = work.input_tokens.astype(float)
    fixed = PROFILE.alpha / POOL.slots + PROFILE.beta
    return done * fixed + PROFILE.gamma * done * (i + (done - 1.0) / 2.0)


def tokens_done(cluster: Cluster, work: Workload, t: float) -> Floats:
    """Tokens that each request has from decode steps, the one that runs counted by its time; NaN: not in a slot."""
    q, rows = cluster.requests, cluster.machine().rows
    done = np.full(len(work), np.nan)
    for row in range(rows.state.size):
        n, fresh, context = int(rows.batch[row]), int(rows.fresh[row]), float(rows.context[row])
        ran = t - rows.began[row]
        steps = 0.0
        if n and fresh:
            steps = ran / (rows.due[row] - rows.began[row])
        while n and not fresh and ran > 0.0:
            one = PROFILE.alpha + PROFILE.beta * n + PROFILE.gamma * (context + n * steps)
            steps += min(ran / one, 1.0)
            ran -= one
        for at in range(n - fresh):
            j = rows.request[row, at]
            done[j] = q.output[j] - (rows.last[row, at] - rows.steps[row]) + steps
    return done


def held(slots: ModuleType, work: Workload, most: int) -> Floats:
    i, o = work.input_tokens.astype(float), work.output_tokens.astype(float)
    bound: Floats = slots.most_in_slots(
        work.times_s, i, o, decode_s(work, o), POOL, 1.0, int(TARGET_S), SECONDS, np.arange(most + 1)
    )
    return bound


def shares(slots: ModuleType, work: Workload, replicas: int, more: list[int]) -> list[float]:
    """Share of the bound that is in slots each second until a request misses, with `more` replicas by half minutes."""
    bound = held(slots, work, 2 * (replicas + max(more)) + 2)
    cluster, found = Cluster(work, POOL, Setup(initial=replicas)), []
    for k in range(1, SECONDS + 1):
        cluster.run_to(float(k))
        if k % 30 == 0:
            cluster.scale(replicas + more[k // 30 - 1])
        done = tokens_done(cluster, work, float(k))
        old = work.times_s < k - TARGET_S
        if (old & ~(cluster.requests.first <= work.times_s + TARGET_S)).any():
            break  # from here on some have missed, and may hold others up
        mine = old & ~np.isnan(done)
        left_s = float((decode_s(work, work.output_tokens.astype(float)) - decode_s(work, done))[mine].sum())
        found.append(left_s / max(float(bound[k - 1, cluster.ready + cluster.draining]), 1e-9))
    return found


def fullest(slots: ModuleType, seed: int, replicas: int) -> float:
    """Greatest share of the bound that is in slots."""
    dice = np.random.default_rng(seed)
    found = shares(slots, work_of(seed, replicas), replicas, dice.integers(0, 2, SECONDS // 30).tolist())
    assert len(found) > 60
    return max(found)


@pytest.mark.parametrize("replicas", [1, 2, 5])
def test_replicas_that_keep_the_target_have_no_more_work_in_slots_than_the_bound_and_come_near_it(
    slots: ModuleType, replicas: int
) -> None:
    assert 0.8 < max(fullest(slots, seed, replicas) for seed in range(8)) <= 1.0 + 1e-9


def test_a_full_replica_that_is_held_up_by_prefills_is_within_a_tenth_of_the_bound(
    slots: ModuleType,
) -> None:
    """15 prompts have their first token after 4.9 s; each half second one more comes to the last slot."""
    later = np.arange(8.0, 40.0, 0.5)
    times = np.concatenate([np.zeros(15), later])
    i = np.concatenate([np.full(15, 3150), np.full(later.size, 2500)])
    o = np.concatenate([np.full(15, 1500), np.full(later.size, 1)])

    found = shares(slots, Workload(times, i, o, float(SECONDS)), 1, [0] * (SECONDS // 30))[:40]

    assert min(found[6:20]) > 0.9 and max(found) <= 1.0 + 1e-9


def test_an_answer_that_fills_the_only_slot_is_bounded_by_its_steps(slots: ModuleType) -> None:
    """Nobody holds it up: of 1000 steps of at most 16 ms, 312 are done 5 s after its first token, if not more."""
    pool = Pool(PROFILE, 1, 60.0, Objective(ttft_s=TARGET_S), 1000.0, 300.0)
    i, o, fixed = np.array([1000.0]), np.array([1000.0]), PROFILE.alpha + PROFILE.beta + PROFILE.gamma * 1000.0
    rest = 1000.0 * fixed + PROFILE.gamma * 1000.0 * 999.0 / 2.0
    longest = fixed + PROFILE.gamma * 1000.0

    found = slots.most_in_slots(np.zeros(1), i, o, np.array([rest]), pool, 1.0, 5, 12, np.array([1, 2]))

    assert found[4].tolist() == [0.0, 0.0]  # not yet older than the target
    assert found[9].tolist() == pytest.approx([rest - fixed * 5.0 / longest] * 2)


def test_prefills_that_come_later_hold_up_those_who_decode(slots: ModuleType) -> None:
    times, i, o = np.array([0.0, 6.0]), np.array([1000.0, 20_000.0]), np.array([1000.0, 1.0])
    rest = np.array([20.0, 0.1])

    alone = slots.most_in_slots(times[:1], i[:1], o[:1], rest[:1], POOL, 1.0, 5, 9, np.array([1]))
    beside = slots.most_in_slots(times, i, o, rest, POOL, 1.0, 5, 9, np.array([1]))

    assert beside[5] == pytest.approx(alone[5])
    assert beside[8] > alone[8] + 0.05


def test_with_too_many_who_may_have_work_left_the_bound_is_the_heaviest_requests_just_begun(
    slots: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = work_of(0, 2)
    o = work.output_tokens.astype(float)
    heaviest = np.sort(decode_s(work, o))[::-1]
    monkeypatch.setattr(slots, "HELD", 5)

    bound = held(slots, work, 3)

    assert bound[-1] == pytest.approx([heaviest[: 16 * n].sum() for n in range(4)])
    assert (bound == bound[0]).all()
