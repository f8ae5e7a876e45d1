"""The emulated batch against an independent simulation with small time steps, and its invariants."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierserve.queueing.batching.profile import BatchProfile
from tierserve_serving.engines.batch import Batch, Job

profiles = st.builds(
    BatchProfile,
    alpha=st.floats(1e-3, 0.05),
    beta=st.floats(0.0, 1e-4),
    gamma=st.floats(0.0, 1e-6),
)
sizes = st.tuples(st.integers(0, 500), st.integers(1, 200))


def run(batch: Batch) -> dict[Job, float]:
    """Return when each job ends if no other job joins."""
    ends = {}
    while batch.jobs:
        for progress in batch.advance(batch.next_event()):
            if progress.done:
                ends[progress.job] = progress.at
    return ends


@given(profiles, sizes, st.integers(1, 30), st.booleans())
def test_with_constant_n_the_service_time_is_t_of_n_and_all_end_together(profile, size, n, streamed):
    batch = Batch(profile)
    jobs = [Job(*size, streamed=streamed) for _ in range(n)]
    for job in jobs:
        batch.join(job, 0.0)
    ends = run(batch)
    assert set(ends) == set(jobs)
    for end in ends.values():
        assert end == pytest.approx(profile.service_time(n, *size), rel=1e-9)


@given(profiles, sizes, st.integers(1, 10))
def test_the_first_token_comes_with_the_prefill_and_the_next_a_decode_step_later(profile, size, n):
    batch = Batch(profile)
    for _ in range(n):
        batch.join(Job(*size, streamed=True), 0.0)
    first = profile.prefill(n, *size)
    assert batch.next_event() == pytest.approx(first, rel=1e-9)
    while batch.jobs and (due := batch.next_event()) <= first * (1 + 1e-9):
        batch.advance(due)
    assert batch.next_event() == pytest.approx(first + profile.decode(n, *size), rel=1e-9)


arrivals = st.lists(st.tuples(st.floats(0.0, 5.0), sizes, st.booleans()), min_size=1, max_size=12)


def play(profile: BatchProfile, plan: list, looks: list[float]) -> tuple[Batch, dict[int, float]]:
    """Run the batch with arrivals, advanced also at extra times. Return it and the ends by number."""
    batch, jobs, ends = Batch(profile), {}, {}

    def note(events):
        ends.update({jobs[p.job]: p.at for p in events if p.done})

    todo = sorted([(at, k, None) for k, (at, *_) in enumerate(plan)] + [(at, -1, None) for at in looks])
    for at, k, _ in todo:
        if k < 0:
            note(batch.advance(at))
            continue
        job = Job(*plan[k][1], streamed=plan[k][2])
        jobs[job] = k
        note(batch.join(job, at))
    note([])
    ends.update({jobs[job]: at for job, at in run(batch).items()})
    return batch, ends


@given(profiles, arrivals, st.lists(st.floats(0.0, 20.0), max_size=5))
def test_the_times_of_polling_change_nothing(profile, plan, looks):
    _, alone = play(profile, plan, [])
    _, watched = play(profile, plan, looks)
    assert alone.keys() == watched.keys()
    for k, end in alone.items():
        assert watched[k] == pytest.approx(end, rel=1e-7, abs=1e-9)


@settings(max_examples=30)
@given(profiles, st.lists(st.tuples(st.floats(0.0, 1.0), sizes, st.booleans()), min_size=1, max_size=6))
def test_it_equals_a_simulation_in_small_steps(profile, plan):
    """Independent reference: fixed time steps, in each of which a request completes a fraction of its service time."""
    _, ends = play(profile, plan, [])
    horizon = max(ends.values())
    tick = horizon / 4000
    left: dict[int, list[float]] = {}  # prefill step and decode steps to go
    finished: dict[int, float] = {}
    starts = sorted(range(len(plan)), key=lambda k: plan[k][0])
    now = 0.0
    while len(finished) < len(plan):
        while starts and plan[starts[0]][0] <= now:
            k = starts.pop(0)
            left[k] = [1.0, float(plan[k][1][1])]
        shares = {k: _share(profile, *plan[k][1]) for k in left}
        for k in list(left):
            i, o = plan[k][1]
            it = profile.alpha + sum(share for other, share in shares.items() if other != k)
            pre, dec = it + (profile.beta + profile.gamma) * i, it + profile.beta + profile.gamma * (i + o / 2)
            spare = tick
            done = min(left[k][0], spare / pre)
            left[k][0] -= done
            spare -= done * pre
            left[k][1] -= spare / dec
            if left[k][0] <= 1e-12 and left[k][1] <= 1e-12:
                finished[k] = now + tick
                del left[k]
        now += tick
        assert now < 2 * horizon + 1
    for k, end in ends.items():
        assert finished[k] == pytest.approx(end, abs=len(plan) * 3 * tick)


def _share(profile: BatchProfile, i: int, o: int) -> float:
    return profile.beta * (i + o) / (o + 1) + profile.gamma * (i + o / 2)


@given(profiles, arrivals)
def test_every_token_comes_once_and_in_order(profile, plan):
    batch = Batch(profile)
    seen: dict[Job, list[tuple[float, int]]] = {}
    for at, size, _ in sorted(plan, key=lambda item: item[0]):
        job = Job(*size, streamed=True)
        seen[job] = []
        for progress in batch.join(job, at):
            seen[progress.job].append((progress.at, progress.tokens))
    while batch.jobs:
        for progress in batch.advance(batch.next_event()):
            seen[progress.job].append((progress.at, progress.tokens))
    for job, events in seen.items():
        assert [tokens for _, tokens in events] == [*range(1, job.output_tokens + 1), job.output_tokens]
        assert [at for at, _ in events] == sorted(at for at, _ in events)


@given(profiles, sizes, sizes, st.floats(0.01, 0.99))
def test_a_cancelled_request_no_longer_slows_the_others(profile, stays, leaves, fraction):
    batch = Batch(profile)
    first, second = Job(*stays), Job(*leaves)
    batch.join(first, 0.0)
    batch.join(second, 0.0)
    moment = fraction * batch.next_event()
    batch.leave(second, moment)
    alone = profile.service_time(1, *stays)
    end = run(batch)[first]
    assert second not in batch.jobs
    assert end <= alone + moment + 1e-9
    assert end >= alone - 1e-9


def test_an_empty_batch_has_nothing_due():
    assert Batch(BatchProfile(0.01, 0, 0)).next_event() == math.inf
