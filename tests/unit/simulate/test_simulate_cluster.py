"""The simulated pool beside exact formulas, and what it promises of starts, stops and failures."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tierserve.queueing import BatchProfile, batch_queue, erlang_c, mean_wait
from tierserve.simulate.cluster import ROUTERS, Cluster, Setup
from tierserve.simulate.run import Result, simulate
from tierserve.simulate.types import Objective, Pool, Snapshot, Workload
from tierserve.simulate.workload import Sizes, poisson

pytestmark = pytest.mark.slow  # runs are simulated

PROFILE = BatchProfile(alpha=0.010, beta=2e-5, gamma=1e-7)


class Fixed:
    """A policy that wants what it was told, from which second on."""

    def __init__(self, *steps: tuple[float, int], interval_s: float = 1.0) -> None:
        self.steps, self.interval_s = steps, interval_s
        self.seen: list[Snapshot] = []

    def decide(self, seen: Snapshot) -> int:
        self.seen.append(seen)
        return [n for t, n in self.steps if t <= seen.t][-1]


def pool(slots: int = 8, startup_s: float = 0.0, **more: float) -> Pool:
    return Pool(PROFILE, slots, startup_s, Objective(), 500.0, 200.0, **more)  # type: ignore[arg-type]


def exponential(lam: float, n: int, seed: int = 1) -> tuple[Workload, np.ndarray]:
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.exponential(1.0 / lam, n))
    tokens = np.ones(n, dtype=np.int64)
    return Workload(times, tokens, tokens, float(times[-1])), rng.exponential(1.0, n)


def waits(found: Result, skip: float = 0.1) -> np.ndarray:
    return (found.start_s - found.arrive_s)[int(skip * found.arrive_s.size) :]


@pytest.mark.parametrize(("servers", "load"), [(1, 0.5), (8, 0.8), (64, 0.9)])
def test_the_slot_model_with_one_queue_is_erlang_c(servers: int, load: float) -> None:
    lam = load * servers
    work, service = exponential(lam, 1_000_000)
    replicas, slots = (1, 1) if servers == 1 else (servers // 8, 8)
    found = simulate(
        work, pool(slots), Fixed((0.0, replicas), interval_s=1e4), Setup("slots", initial=replicas), service_s=service
    )
    assert (waits(found) > 1e-9).mean() == pytest.approx(erlang_c(servers, lam), rel=0.05)
    assert waits(found).mean() == pytest.approx(mean_wait(servers, lam, 1.0), rel=0.12)


def test_a_router_without_a_common_queue_makes_them_wait_longer_the_less_it_looks() -> None:
    work, service = exponential(0.85 * 64, 300_000)
    mean = {
        router: waits(
            simulate(work, pool(8), Fixed((0.0, 8), interval_s=1e3), Setup("slots", router, 8), service_s=service)
        ).mean()
        for router in ROUTERS
    }
    assert mean["central"] <= mean["shortest"] < mean["two-choices"] < mean["round-robin"] < mean["random"]
    assert mean["random"] == pytest.approx(mean_wait(8, 0.85 * 8, 1.0), rel=0.1)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.9, 0.97])
def test_the_token_model_is_the_birth_death_process_within_two_percent(load: float) -> None:
    sizes = Sizes(500.0, 200.0, 0.7)
    probe = poisson(100.0, 2_000.0, sizes, 3)
    i, o = probe.input_tokens, probe.output_tokens
    steps = o.mean() + 1.0
    each = np.mean(PROFILE.beta * (i + o) + PROFILE.gamma * ((o + 1) * i + o * (o - 1) / 2.0)) / steps
    rates = [n / (steps * (PROFILE.alpha + n * each)) for n in range(1, 65)]
    lam = load * 8 * rates[-1]
    work = poisson(lam, 250_000 / lam, sizes, 4)
    found = simulate(work, pool(64), Fixed((0.0, 8), interval_s=1e3), Setup("tokens", "central", 8))
    seen = np.mean((found.end_s - found.arrive_s)[len(work) // 10 :])
    assert seen == pytest.approx(batch_queue(lam, 8, rates).mean_response, rel=0.02)


def test_a_request_alone_takes_the_time_of_its_steps() -> None:
    work = Workload(np.array([1.0]), np.array([100]), np.array([3]), 5.0)
    found = simulate(work, pool(), Fixed((0.0, 1)))
    a, b, c = PROFILE.alpha, PROFILE.beta, PROFILE.gamma
    prefill = a + (b + c) * 100
    assert found.ttft_s[0] == pytest.approx(prefill)
    decode = 3 * (a + b + 100 * c) + c * (0 + 1 + 2)
    assert found.response_s[0] == pytest.approx(prefill + decode)


def test_one_who_comes_while_a_step_runs_joins_at_its_end() -> None:
    work = Workload(np.array([1.0, 1.0151]), np.array([100, 100]), np.array([50, 1]), 5.0)
    found = simulate(work, pool(), Fixed((0.0, 1)))
    a, b, c = PROFILE.alpha, PROFILE.beta, PROFILE.gamma
    first = 1.0 + a + (b + c) * 100
    steps = math.ceil((1.0151 - first) / (a + b + 100 * c))
    boundary = first + steps * (a + b + 100 * c) + c * steps * (steps - 1) / 2
    assert found.start_s[1] == pytest.approx(boundary)
    # its prefill and the other's decode are one step
    assert found.first_s[1] == pytest.approx(boundary + a + b * 101 + c * (100 + steps + 100))


@pytest.mark.parametrize("model", ["tokens", "slots"])
def test_the_same_seed_gives_the_same_run_and_another_seed_another(model: str) -> None:
    work = poisson(20.0 if model == "tokens" else 42.0, 600.0, Sizes(500.0, 200.0, 0.7))  # so much that some wait
    service = np.random.default_rng(5).exponential(1.0, len(work))
    runs = [
        simulate(work, pool(), Fixed((0.0, 6)), Setup(model, "two-choices", 6, seed=seed), service_s=service).end_s
        for seed in (1, 1, 2)
    ]
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_a_replica_serves_a_start_up_time_after_it_was_asked_for() -> None:
    work, service = exponential(20.0, 4_000)
    policy = Fixed((0.0, 1), (20.0, 4))
    found = simulate(work, pool(8, 30.0), policy, Setup("slots", initial=1), service_s=service)
    ready = dict(zip(found.decided_s, found.ready, strict=True))
    assert (ready[20.0], ready[49.0], ready[50.0]) == (1, 1, 4)
    held = dict(zip(found.decided_s, found.held, strict=True))
    assert (held[19.0], held[20.0]) == (1, 4)  # the accelerator is held from the start of the start


@pytest.mark.parametrize("model", ["tokens", "slots"])
@pytest.mark.parametrize("router", list(ROUTERS))
def test_scaling_down_and_up_loses_nobody(model: str, router: str) -> None:
    work, service = exponential(20.0, 6_000)
    policy = Fixed(*((20.0 * k, 8 if k % 2 == 0 else 3) for k in range(20)))
    found = simulate(work, pool(8, 5.0), policy, Setup(model, router, 8, startup_spread=0.5), service_s=service)
    assert not np.isnan(found.end_s).any()
    assert found.aborted == 0


def test_without_draining_they_are_aborted_and_counted() -> None:
    work, service = exponential(20.0, 2_000)
    policy = Fixed((0.0, 4), (30.0, 3), (60.0, 4))
    found = simulate(work, pool(8), policy, Setup("slots", initial=4, drain=False), service_s=service)
    assert 0 < found.aborted == np.isnan(found.end_s).sum()


@pytest.mark.parametrize("model", ["tokens", "slots"])
def test_the_requests_of_a_dead_replica_are_sent_again(model: str) -> None:
    work, service = exponential(20.0, 3_000)
    setup = Setup(model, initial=4, failures=((10.0, 2), (40.0, 1)))
    policy = Fixed((0.0, 4))
    found = simulate(work, pool(8, 5.0), policy, setup, service_s=service)
    assert not np.isnan(found.end_s).any()
    assert {s.t: s.ready for s in policy.seen if s.t in (9.0, 11.0, 16.0)} == {9.0: 4, 11.0: 2, 16.0: 4}


def test_too_many_are_first_taken_from_those_that_start() -> None:
    work, service = exponential(1.0, 200)
    policy = Fixed((0.0, 2), (10.0, 6), (20.0, 3), (30.0, 2))
    simulate(work, pool(8, 60.0), policy, Setup("slots", initial=2), service_s=service)
    seen = {s.t: (s.ready, s.starting) for s in policy.seen}
    assert (seen[11.0], seen[21.0], seen[31.0]) == ((2, 4), (2, 1), (2, 0))


def test_what_a_policy_sees_adds_up() -> None:
    work, service = exponential(30.0, 10_000)
    policy = Fixed((0.0, 5))
    found = simulate(work, pool(8), policy, Setup("slots", initial=5), service_s=service)
    last = policy.seen[-1]
    assert (last.arrivals, last.completions, last.queued, last.running) == (10_000, 10_000, 0, 0)
    assert last.response_sum_s == pytest.approx((found.end_s - found.arrive_s).sum())
    assert last.in_system_s == pytest.approx(last.response_sum_s)  # Little
    assert last.running_s == pytest.approx(last.service_sum_s)
    assert all(s.in_batch.size == s.ready for s in policy.seen)


def test_late_counts_those_that_missed_a_target() -> None:
    work, service = exponential(36.0, 20_000)
    goal = Objective(response_s=2.0)
    policy = Fixed((0.0, 5))
    found = simulate(work, Pool(PROFILE, 8, 0.0, goal, 1.0, 1.0), policy, Setup("slots", initial=5), service_s=service)
    assert policy.seen[-1].late == (found.response_s > 2.0).sum() > 0
    assert found.attainment(goal) == pytest.approx(1.0 - policy.seen[-1].late / 20_000)


def test_gpu_hours_and_turns_are_those_of_the_decisions() -> None:
    work, service = exponential(1.0, 100)
    work = Workload(work.times_s, work.input_tokens, work.output_tokens, 7200.0)
    policy = Fixed((0.0, 1), (1800.0, 3), (3600.0, 2), (5400.0, 4))
    found = simulate(work, pool(), policy, Setup("slots", initial=1), service_s=service)
    assert found.gpu_hours() == pytest.approx((1 + 3 + 2 + 4) / 2, rel=1e-3)
    assert found.gpu_hours(3600.0) == pytest.approx(3.0, rel=1e-3)
    assert found.reversals_per_hour() == 1.0  # up, down, up in two hours


def test_a_setup_that_is_not_known_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"router: is unknown \('nearest'\): choose one of central"):
        Setup(router="nearest")
    with pytest.raises(ValueError, match="the slot model needs service_s"):
        Cluster(exponential(1.0, 10)[0], pool(), Setup("slots"))
