"""Replicas with a queue each, beside Erlang C and beside a simulation of a hundred of them."""

from __future__ import annotations

import random
import re
from types import ModuleType

import pytest

from tierserve.queueing import BatchProfile, batch_queue, erlang_c, mean_wait, power_of_choices

PROFILE = BatchProfile(alpha=0.010, beta=2e-5, gamma=1e-7)
BATCH = [PROFILE.rate(n, 1000, 200) for n in range(1, 9)]
PROPORTIONAL = [float(n) for n in range(1, 9)]


def simulated(
    replicas: int, rates: list[float], lam: float, choices: int, events: int = 1_200_000
) -> tuple[float, float]:
    """P(wait) and mean wait of the Markov chain itself, made uniform; the first fifth is left out."""
    r, slots, full = random.Random(1), len(rates), rates[-1]
    have, step = [0] * replicas, 1 / (replicas * (lam + full))
    queue = waited = arrived = 0
    area = seconds = 0.0
    for event in range(events):
        warm = event > events // 5
        if warm:
            area, seconds = area + queue * step, seconds + step
        if r.random() * (lam + full) < lam:
            one = min(r.sample(range(replicas), choices), key=have.__getitem__)
            waited, arrived = waited + (warm and have[one] >= slots), arrived + warm
            queue += have[one] >= slots
            have[one] += 1
        else:
            one = r.randrange(replicas)
            if have[one] and r.random() * full < rates[min(have[one], slots) - 1]:
                queue -= have[one] > slots
                have[one] -= 1
    return waited / arrived, area / seconds / (lam * replicas)


@pytest.mark.slow
@pytest.mark.parametrize("rates", [PROPORTIONAL, BATCH])
@pytest.mark.parametrize("load", [0.9, 0.95])
def test_the_power_of_two_is_that_of_a_simulation(rates: list[float], load: float) -> None:
    lam = load * rates[-1]
    found = power_of_choices(lam, rates)
    p_wait, wait = simulated(100, rates, lam, 2)
    assert found.p_wait == pytest.approx(p_wait, abs=0.03)
    assert found.mean_wait == pytest.approx(wait, rel=0.15)


@pytest.mark.parametrize("load", [0.3, 0.9, 0.99])
def test_one_choice_is_a_replica_alone(load: float) -> None:
    found = power_of_choices(load * 8, PROPORTIONAL, 1)
    assert found.p_wait == pytest.approx(erlang_c(8, load * 8), rel=1e-6)
    assert found.mean_wait == pytest.approx(mean_wait(8, load * 8, 1.0), rel=1e-6)
    alone, same = power_of_choices(load * BATCH[-1], BATCH, 1), batch_queue(load * BATCH[-1], 1, BATCH)
    assert (alone.p_wait, alone.mean_service) == pytest.approx((same.p_wait, same.mean_service), rel=1e-6)


@pytest.mark.parametrize("load", [0.5, 0.9, 0.98])
def test_more_choices_wait_less_and_a_common_queue_least(load: float) -> None:
    lam = load * BATCH[-1]
    waits = [power_of_choices(lam, BATCH, d).mean_wait for d in (1, 2, 3, 6)]
    assert waits == sorted(waits, reverse=True)
    assert batch_queue(50 * lam, 50, BATCH).mean_wait < waits[1]


def test_what_comes_goes() -> None:
    lam = 0.9 * BATCH[-1]
    shares = power_of_choices(lam, BATCH).shares
    finish = [0.0, *BATCH] + [BATCH[-1]] * (len(shares) - len(BATCH) - 2)
    done = sum((a - b) * r for a, b, r in zip(shares, shares[1:], finish, strict=False))
    assert done == pytest.approx(lam, rel=1e-6)


@pytest.mark.parametrize(
    ("lam", "choices", "words"),
    [
        (-1.0, 2, "lam must be a finite number >= 0, got -1.0"),
        (8.0, 2, "lam must be at most 0.9995 of 8 /s, got 8.0"),
        (1.0, 0, "choices must be a whole number >= 1, got 0"),
    ],
)
def test_a_wrong_argument_is_named(lam: float, choices: int, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        power_of_choices(lam, PROPORTIONAL, choices)


def test_without_load_nobody_waits() -> None:
    idle = power_of_choices(0.0, PROPORTIONAL)
    assert (idle.p_wait, idle.mean_wait, idle.mean_service) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("rates", [PROPORTIONAL[:3], BATCH[:3]])
@pytest.mark.parametrize("load", [0.5, 0.9])
def test_one_choice_is_the_chain_of_two_replicas(chains: ModuleType, rates: list[float], load: float) -> None:
    lam = load * rates[-1]
    found, truth = power_of_choices(lam, rates, 1), chains.pool(2 * lam, rates, 2, "random", chains.room_for(load))
    seen = (found.p_wait, found.mean_wait, found.mean_service)
    assert seen == pytest.approx((truth.p_wait, truth.mean_wait, truth.mean_service), rel=1e-5)


@pytest.mark.slow
def test_two_choices_of_few_promise_too_much_and_less_so_the_more_there_are(chains: ModuleType) -> None:
    rates, lam = [1.0, 2.0], 0.5 * 2
    found = power_of_choices(lam, rates)
    truths = [chains.pool(r * lam, rates, r, "two-choices", chains.room_for(0.25, 4)) for r in (2, 3, 4)]
    errors = [truth.p_wait - found.p_wait for truth in truths]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] > 0.03
    assert found.mean_wait < 0.6 * truths[-1].mean_wait
