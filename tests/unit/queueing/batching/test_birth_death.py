"""Replicas that slow down as their batches fill, beside the chain summed state by state and beside Erlang C."""

from __future__ import annotations

import math
import re
from types import ModuleType

import mpmath as mp
import pytest

from tierserve.queueing import BatchProfile, batch_queue, erlang_b, erlang_c, loss_queue, mean_wait
from tierserve.queueing.batching.birth_death import DIRECT

PROFILE = BatchProfile(alpha=0.010, beta=2e-5, gamma=1e-7)


def rates(slots: int) -> list[float]:
    return [PROFILE.rate(n, 1000, 200) for n in range(1, slots + 1)]


def summed(lam: float, replicas: int, levels: list[float]) -> tuple[float, float, float]:
    """P(wait), mean wait and mean service, state by state in 30 digits."""
    rate, slots = [0.0, *levels], len(levels)
    with mp.workdps(30):
        weight, weights = mp.mpf(1), [mp.mpf(1)]
        for k in range(1, replicas * slots + 1):
            q, more = divmod(k, replicas)
            mu = (replicas - more) * mp.mpf(rate[q]) + (more * mp.mpf(rate[q + 1]) if more else 0)
            weight = weight * mp.mpf(lam) / mu
            weights.append(weight)
        ratio = mp.mpf(lam) / (replicas * mp.mpf(levels[-1]))
        waiting = weights[-1] / (1 - ratio)
        total = sum(weights[:-1]) + waiting
        batch = sum(k * w for k, w in enumerate(weights[:-1])) + replicas * slots * waiting
        return float(waiting / total), float(waiting * ratio / (1 - ratio) / total / lam), float(batch / total / lam)


@pytest.mark.parametrize(("replicas", "slots"), [(1, 1), (1, 64), (8, 64), (15, 8), (DIRECT, 1), (40, 256), (3000, 4)])
@pytest.mark.parametrize("load", [0.3, 0.9, 0.97, 0.9999])
def test_it_is_the_chain_summed_state_by_state(replicas: int, slots: int, load: float) -> None:
    lam = load * replicas * rates(slots)[-1]
    found = batch_queue(lam, replicas, rates(slots))
    wanted = summed(lam, replicas, rates(slots))
    near = 1e-12 if replicas * slots <= DIRECT else 1e-6
    assert (found.p_wait, found.mean_wait, found.mean_service) == pytest.approx(wanted, rel=near, abs=1e-300)
    assert found.mean_batch == pytest.approx(lam * found.mean_service)


def test_a_million_servers_with_constant_rates_are_erlang_c() -> None:
    found = batch_queue(999_000.0, 1_000_000, [1.0])
    assert found.p_wait == pytest.approx(0.223303390, rel=1e-6)
    assert found.mean_wait == pytest.approx(mean_wait(1_000_000, 999_000.0, 1.0), rel=1e-6)
    assert found.mean_service == pytest.approx(1.0, rel=1e-6)


def test_the_wait_has_the_tail_of_a_queue_with_the_rate_of_full_batches() -> None:
    found = batch_queue(0.97 * 8 * rates(64)[-1], 8, rates(64))
    spare = found.capacity - found.arrival_rate
    assert found.wait_survival(0.5) == pytest.approx(found.p_wait * math.exp(-spare * 0.5))
    assert found.wait_survival(found.wait_quantile(0.95)) == pytest.approx(0.05)
    assert found.wait_quantile(1 - 2 * found.p_wait) == 0.0
    assert found.mean_wait == pytest.approx(found.p_wait / spare)


def test_a_replica_that_is_not_full_is_faster_than_a_full_one_and_slower_than_an_empty_one() -> None:
    full, alone = 64 / rates(64)[-1], 1 / rates(64)[0]
    services = [batch_queue(load * 8 * rates(64)[-1], 8, rates(64)).mean_service for load in (0.01, 0.3, 0.6, 0.9)]
    assert services == sorted(services)
    assert alone <= services[0]
    assert services[-1] < full


def test_without_load_nobody_waits_and_with_too_much_all_do() -> None:
    idle = batch_queue(0.0, 8, rates(64))
    assert (idle.p_wait, idle.mean_wait, idle.mean_service) == (0.0, 0.0, pytest.approx(1 / rates(64)[0]))
    flooded = batch_queue(8 * rates(64)[-1], 8, rates(64))
    assert (flooded.p_wait, flooded.mean_response, flooded.wait_quantile(0.5)) == (1.0, math.inf, math.inf)


def test_of_replicas_without_a_common_queue_more_wait() -> None:
    lam = 0.9 * 15 * 8
    pooled = batch_queue(lam, 15, [float(n) for n in range(1, 9)])
    alone = batch_queue(lam / 15, 1, [float(n) for n in range(1, 9)])
    assert pooled.p_wait == pytest.approx(erlang_c(120, lam))
    assert alone.p_wait == pytest.approx(erlang_c(8, lam / 15))
    assert alone.p_wait > 2 * pooled.p_wait


@pytest.mark.parametrize(
    ("lam", "replicas", "levels", "words"),
    [
        (-1.0, 1, [1.0], "lam must be a finite number >= 0, got -1.0"),
        (1.0, 0, [1.0], "replicas must be a whole number >= 1, got 0"),
        (1.0, 1, [], "rates must be a list of r(1), ..., r(n), got []"),
        (1.0, 1, [0.0, 1.0], "rates[0] must be a finite number > 0"),
        (1.0, 1, [1.0, 2.0, 1.5], "rates[2] must be finite and no less than the one before, got 1.5"),
        (1.0, 1, [1.0, math.nan], "rates[1] must be finite"),
    ],
)
def test_a_wrong_argument_is_named(lam: float, replicas: int, levels: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        batch_queue(lam, replicas, levels)


@pytest.mark.parametrize("load", [0.3, 0.9, 1.0, 1.5])
@pytest.mark.parametrize(("replicas", "slots"), [(1, 1), (8, 64), (2000, 50)])
def test_without_room_to_wait_the_loss_is_erlang_b(replicas: int, slots: int, load: float) -> None:
    c = replicas * slots
    found = loss_queue(load * c, replicas, [float(n) for n in range(1, slots + 1)], 0)
    assert found.p_loss == pytest.approx(erlang_b(c, load * c), rel=1e-5)
    assert (found.mean_wait, found.mean_service) == (0.0, pytest.approx(1.0, rel=1e-6))
    assert found.p_wait == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("load", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("room", [0, 1, 11, 5000])
def test_one_server_with_room_is_the_textbooks_finite_queue(load: float, room: int) -> None:
    found = loss_queue(load, 1, [1.0], room)
    with mp.workdps(50):
        weights = [mp.mpf(load) ** k for k in range(room + 2)]
        total = sum(weights)
        loss = weights[-1] / total
        queue = sum((k - 1) * w for k, w in enumerate(weights) if k) / total
        wanted = (float(loss), float(queue / (load * (1 - loss))))
    assert (found.p_loss, found.mean_wait) == pytest.approx(wanted, rel=1e-9)


def test_with_room_enough_nothing_is_lost_and_waits_are_those_of_the_open_queue() -> None:
    lam = 0.97 * 8 * rates(64)[-1]
    open_, bounded = batch_queue(lam, 8, rates(64)), loss_queue(lam, 8, rates(64), 20_000)
    assert bounded.p_loss < 1e-100
    assert (bounded.p_wait, bounded.mean_wait) == pytest.approx((open_.p_wait, open_.mean_wait))
    assert bounded.mean_service == pytest.approx(open_.mean_service)


def test_what_is_taken_is_what_is_finished() -> None:
    lam = 1.3 * 8 * rates(64)[-1]
    found = loss_queue(lam, 8, rates(64), 100)
    assert lam * (1 - found.p_loss) == pytest.approx(8 * rates(64)[-1], rel=1e-6)  # it is always full
    with pytest.raises(ValueError, match="room must be a whole number >= 0, got -1"):
        loss_queue(1.0, 1, [2.0], -1)


@pytest.mark.slow
def test_its_errors_beside_the_chain_of_every_replica_are_those_it_states(stated: ModuleType) -> None:
    rows = [*stated.rows_of.pooled(), *stated.rows_of.bounded()]
    assert len(rows) > 500
    assert stated.broken(rows) == []


@pytest.mark.parametrize("load", [0.6, 0.95, 1.4])
@pytest.mark.parametrize("room", [0, 1, 7, 40])
def test_one_replica_with_room_is_the_chain_solved_as_it_is(chains: ModuleType, load: float, room: int) -> None:
    lam = load * rates(6)[-1]
    found, truth = loss_queue(lam, 1, rates(6), room), chains.pool(lam, rates(6), 1, "central", room)
    seen = (found.p_loss, found.p_wait, found.mean_wait, found.mean_service)
    assert seen == pytest.approx((truth.p_loss, truth.p_wait, truth.mean_wait, truth.mean_service), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("load", [0.3, 0.8, 0.95])
def test_replicas_behind_a_random_router_are_each_the_chain_of_one(chains: ModuleType, load: float) -> None:
    lam = 2 * load * rates(4)[-1]
    found, truth = batch_queue(lam / 2, 1, rates(4)), chains.pool(lam, rates(4), 2, "random", chains.room_for(load))
    seen = (found.p_wait, found.mean_wait, found.mean_service)
    assert seen == pytest.approx((truth.p_wait, truth.mean_wait, truth.mean_service), rel=1e-5)
