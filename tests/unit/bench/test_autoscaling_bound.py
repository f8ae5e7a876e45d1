"""The lower bound of bench/autoscaling/bound.py: that of its relaxed pool exactly, and under whatever is simulated."""

from __future__ import annotations

import importlib
import itertools
import math
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierserve.queueing import BatchProfile
from tierserve.simulate.cluster import Setup
from tierserve.simulate.run import Result, simulate
from tierserve.simulate.types import Objective, Pool, Snapshot, Workload
from tierserve.simulate.workload import Sizes, bursts

pytestmark = pytest.mark.slow  # runs are simulated

PROFILE = BatchProfile(alpha=0.0112, beta=1.03e-4, gamma=9.2e-8)
SHORT = bursts(2.0, 12.0, low_s=120.0, high_s=40.0, length_s=1200.0, sizes=Sizes(1000, 300, 0.5))
POOL = Pool(PROFILE, 16, 60.0, Objective(ttft_s=5.0), 1000.0, 300.0)
BEGIN_S = 300.0


@pytest.fixture(scope="module")
def bound() -> ModuleType:
    return importlib.import_module("bench.autoscaling.bound")


class Schedule:
    """So many replicas wanted in each half minute, whatever is seen."""

    interval_s = 5.0

    def __init__(self, wanted: list[int]) -> None:
        self.wanted = wanted

    def decide(self, seen: Snapshot) -> int:
        return self.wanted[min(int(seen.t / 30.0), len(self.wanted) - 1)]


def cost(r: Any, counts: tuple[int, ...], price: float, units: int, owed: float) -> float:
    """Replica-seconds and price of one schedule of the relaxed pool, bin by bin, and `owed` for a second left over.

    A unit of that is free: work is cut into units as it adds up, which may be one too much.
    """
    total, left, before, top = 0.0, 0, counts[0], r.caps.shape[1] - 1
    for k, c in enumerate(counts):
        n, least, cap = r.min_replicas + c, int(r.least[k]), int(r.caps[k, c])
        if c > before and k < int(r.startup_s / r.dt_s):
            return math.inf
        total += n * r.dt_s + max(c - before, 0) * (r.startup_s - r.dt_s) - max(before - c, 0) * r.dt_s
        left = max(left + int(r.arrive[k]) - n * units, least) if c < top else min(least, cap)
        if left > cap:
            over = (left - cap) * r.dt_s / units
            total += price * (over if r.drops else min(over, float(r.late[k])))
            left = cap if r.drops else left
        before = c
    return total + owed * max(left - 1, 0) * r.dt_s / units


@st.composite
def small(draw: st.DrawFn) -> dict[str, Any]:
    bins, counts = draw(st.integers(1, 6)), draw(st.integers(2, 3))
    few = st.integers(0, 5)
    row = st.lists(few, min_size=bins, max_size=bins)
    steps = draw(st.lists(st.lists(few, min_size=counts, max_size=counts), min_size=bins, max_size=bins))
    return {
        "dt_s": 1.0,
        "arrive": np.array(draw(row)),
        "least": np.array(draw(row)) // 3,
        "caps": np.cumsum(np.array(steps), axis=1),
        "late": np.array(draw(row)) / 2.0,
        "drops": draw(st.booleans()),
        "min_replicas": draw(st.integers(0, 2)),
        "startup_s": draw(st.sampled_from([2.0, 2.5, 4.0])),
        "works_s": np.ones(1),
    }


@settings(max_examples=150, deadline=None)
@given(fields=small(), price=st.sampled_from([0.0, 0.3, 1.0, 4.0]), finishes=st.booleans())
def test_the_program_finds_the_cheapest_of_all_schedules_of_the_relaxed_pool(
    bound: ModuleType, fields: dict[str, Any], price: float, finishes: bool
) -> None:
    r = bound.Relaxation(**fields)
    every = itertools.product(range(r.caps.shape[1]), repeat=r.caps.shape[0])
    owed = (min(price, 1.0) if r.drops else 1.0) if finishes else 0.0

    least = min(cost(r, counts, price, bound.UNITS, owed) for counts in every)

    assert bound.least_seconds(r, price, finishes) == pytest.approx(least, abs=1e-9)


def run(wanted: list[int]) -> Result:
    return simulate(SHORT, POOL, Schedule(wanted), Setup(initial=max(wanted[0], 1)))


def undercut(bound: ModuleType, r: Any, found: Result, left_s: float = 0.0) -> float:
    """Hours of a run over the bound for those that miss as many, less 1: below 0 is a refutation.

    Where it left work at the end, that counts on both sides.
    """
    share = found.attainment(POOL.objective, BEGIN_S)
    took_s = found.gpu_hours(BEGIN_S) * 3600.0 + left_s
    return took_s / max(bound.highest_seconds(r, share, left_s > 0.0), 1e-9) - 1.0


def left_s(bound: ModuleType, found: Result) -> float:
    """Seconds of work that the requests take that are not done at the end of the time that counts, begun or not."""
    late = (found.end_s > SHORT.length_s) & (SHORT.times_s >= BEGIN_S)
    i, o = SHORT.input_tokens[late].astype(float), SHORT.output_tokens[late].astype(float)
    return float(sum(part.sum() for part in bound.phases(POOL, i, o)))


@pytest.fixture(scope="module")
def relaxed(bound: ModuleType) -> list[Any]:
    return [bound.relaxation(SHORT, POOL, BEGIN_S, 1.0, drops, n) for drops in (True, False) for n in (2000.0, 500.0)]


@settings(max_examples=10, deadline=None)
@given(wanted=st.lists(st.integers(1, 9), min_size=4, max_size=40))
def test_no_schedule_that_is_simulated_is_cheaper_than_the_bound_for_as_many_that_miss(
    bound: ModuleType, relaxed: list[Any], wanted: list[int]
) -> None:
    found = run(wanted)

    for r in relaxed:
        assert undercut(bound, r, found) >= 0.0
        assert undercut(bound, r, found, left_s(bound, found)) >= 0.0


def test_the_cheapest_pool_that_keeps_the_goal_is_over_the_bound_and_not_by_far(bound: ModuleType) -> None:
    runs = [run([n]) for n in range(1, 10)]
    good = min(r.gpu_hours(BEGIN_S) for r in runs if r.attainment(POOL.objective, BEGIN_S) >= 0.99)

    least = bound.least_hours_of_any(SHORT, POOL, BEGIN_S)

    assert 0.25 * good <= least <= good


def test_the_bound_is_at_least_the_work_less_what_may_be_left_at_the_end_and_what_may_miss(
    bound: ModuleType, relaxed: list[Any]
) -> None:
    r = relaxed[0]
    left_s = float(r.caps[-1].max()) * r.dt_s / bound.UNITS
    stops_s = r.caps.shape[1] * r.dt_s
    work_s = float(r.arrive.sum()) * r.dt_s / bound.UNITS

    assert bound.highest_seconds(r) >= work_s - left_s - stops_s - r.missable_s(0.99) > 0.5 * work_s


def test_who_does_what_is_left_as_well_does_all_the_work_but_what_may_miss(
    bound: ModuleType, relaxed: list[Any]
) -> None:
    for r in relaxed:
        work_s = float(r.arrive.sum()) * r.dt_s / bound.UNITS

        assert bound.highest_seconds(r, 0.99, True) >= work_s - r.missable_s(0.99) - r.dt_s / bound.UNITS
        assert bound.highest_seconds(r, 0.99, True) >= bound.highest_seconds(r, 0.99)


def test_a_replica_may_have_all_its_slots_full_of_answers_that_have_just_begun(bound: ModuleType) -> None:
    """16 answers of 15 seconds of work begin at once, and 10 s later the time that counts is over."""
    work = Workload(np.zeros(16), np.full(16, 100), np.full(16, 1000), 10.0)
    found = simulate(work, POOL, Schedule([1]), Setup(initial=1))

    for drops in (True, False):
        least_s = bound.highest_seconds(bound.relaxation(work, POOL, 0.0, 1.0, drops, 1000.0), 1.0)
        assert least_s == pytest.approx(found.gpu_hours() * 3600.0)


def test_a_replica_with_one_slot_is_busy_for_the_work_of_its_requests(bound: ModuleType) -> None:
    pool = replace(POOL, slots=1)
    i, o = np.array([900, 100, 3000]), np.array([40, 1, 300])
    work = Workload(np.zeros(3), i, o, 1.0)

    found = simulate(work, pool, Schedule([1]), Setup(initial=1))

    first, rest = bound.phases(pool, i.astype(float), o.astype(float))
    assert found.end_s.max() == pytest.approx(float((first + rest).sum()), rel=1e-12)


def test_bins_too_long_for_the_start_up_are_refused(bound: ModuleType) -> None:
    with pytest.raises(ValueError, match="startup_s 60 is under two bins of 31 s: give a smaller dt_s"):
        bound.relaxation(SHORT, POOL, BEGIN_S, 31.0, True, 500.0)
