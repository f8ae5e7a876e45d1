"""Replicas confirmed by simulation: what users see of a run, when more are of no use, and the search."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tierserve.plan.placement import Placement
from tierserve.plan.trace.search import SearchResult, Seen, most_of_use, search, seen_of
from tierserve.queueing import BatchProfile
from tierserve.simulate.cluster import Setup
from tierserve.simulate.policies.static import Static
from tierserve.simulate.run import simulate
from tierserve.simulate.types import Objective, Pool, Workload
from tierserve.simulate.workload import Sizes, bursts

PROFILE = BatchProfile(alpha=0.0112, beta=1.03e-4, gamma=9.2e-8)
WORK = bursts(1.0, 10.0, low_s=60.0, high_s=10.0, length_s=900.0, sizes=Sizes(1000, 200, 0.5))


def pool(**other: object) -> Placement:
    given: dict[str, object] = {
        "tier": "cloud", "site": "default", "kind": "cloud", "model": "m", "engine": "emulated", "source": None,
        "slots": 4, "profile": PROFILE, "input_tokens": 500.0, "output_tokens": 200.0, "uplink_s": 0.25,
        "downlink_s": 0.25, "min_replicas": 1, "max_replicas": 100, "startup_s": 60.0, "percentile": 95.0,
        "target_s": 2.0, "sizes": ((1.0, 500.0, 200.0),), "spread_known": True,
    }  # fmt: skip
    return Placement(**(given | other))  # type: ignore[arg-type]


def times(work: Workload, replicas: int) -> np.ndarray:
    alone = Pool(PROFILE, 4, 0.0, Objective(), 1.0, 1.0)
    return simulate(work, alone, Static(alone, replicas), Setup(initial=replicas)).response_s


def falls_to(least: int) -> Callable[[int], Seen]:
    """What is seen where `least` replicas and more keep the objective, and fewer do not."""
    return lambda r: Seen(10.0 / r, 1.0 if r >= least else 0.5, r >= least)


def test_one_of_twenty_may_be_late_at_the_95th_percentile_and_the_time_of_the_next_is_told_with_the_network() -> None:
    seen = seen_of(pool(), np.array([1.0] * 18 + [2.0, 9.0]))
    assert seen == Seen(2.5, 0.95, True)
    assert seen_of(pool(), np.array([1.0] * 18 + [2.0 + 1e-9, 9.0])).meets is False


def test_a_percentile_that_is_never_answered_is_infinite_and_not_kept() -> None:
    seen = seen_of(pool(), np.array([1.0] * 8 + [np.inf] * 2))
    assert (seen.response_s, seen.within, seen.meets) == (np.inf, 0.8, False)


@pytest.mark.parametrize("percentile", [50.0, 90.0, 95.0, 99.0, 99.9])
@pytest.mark.parametrize("many", [1, 7, 100, 1000])
def test_the_objective_is_kept_just_where_its_share_of_the_requests_is_in_time(percentile: float, many: int) -> None:
    for late in range(min(many, 520) + 1):
        seen = seen_of(pool(percentile=percentile), np.array([1.0] * (many - late) + [3.0] * late))
        assert seen.meets == (1000 * late <= round(10 * (100.0 - percentile)) * many)


def test_no_requests_are_refused() -> None:
    with pytest.raises(ValueError, match=r"response_s must be .* one request"):
        seen_of(pool(), np.array([]))


@pytest.mark.slow
def test_more_than_what_gives_each_request_a_replica_of_its_own_is_of_no_use_and_one_fewer_is_worse() -> None:
    most = most_of_use(PROFILE, WORK.times_s, WORK.input_tokens, WORK.output_tokens)
    there = times(WORK, most)
    np.testing.assert_array_equal(there, times(WORK, 2 * most))
    alone = [PROFILE.service_time(1.0, i, o) for i, o in zip(WORK.input_tokens, WORK.output_tokens, strict=True)]
    np.testing.assert_allclose(there, alone, rtol=1e-4)
    assert (times(WORK, most - 1) > there + 1e-3).any()


def test_one_request_has_use_for_one_replica() -> None:
    one = np.array([1])
    assert most_of_use(PROFILE, np.array([5.0]), one, one) == 1


@pytest.fixture(scope="module")
def by_hand() -> int:
    """The least number whose p95 is within 6 s, each tried."""
    return next(r for r in range(1, 40) if np.quantile(times(WORK, r), 0.95, method="inverted_cdf") <= 6.0)


@pytest.mark.parametrize("start", [1, 3, 7, 8, 9, 20, 400])
def test_the_simulator_s_least_number_is_found_from_any_guess(start: int, by_hand: int) -> None:
    most = most_of_use(PROFILE, WORK.times_s, WORK.input_tokens, WORK.output_tokens)
    assert 1 < by_hand < most
    found = search(lambda r: seen_of(pool(target_s=6.0), times(WORK, r)), start, most)
    assert found.needed == by_hand
    assert found.at.within >= 0.95
    assert found.fewer is not None
    assert found.fewer.within < 0.95
    assert found.fewer.response_s > 6.5 >= found.at.response_s


def test_a_right_guess_takes_two_runs() -> None:
    assert search(falls_to(17), 17, 100).runs == 2


def test_where_one_replica_is_enough_there_is_none_fewer() -> None:
    found = search(falls_to(1), 4, 10)
    assert (found.needed, found.fewer) == (1, None)


def test_where_no_number_does_it_says_what_users_see_with_so_many_that_more_are_of_no_use() -> None:
    asked: list[int] = []

    def never(replicas: int) -> Seen:
        asked.append(replicas)
        return Seen(10.0 / replicas, 0.5, False)

    found = search(never, None, 40, max_replicas=8)
    assert found == SearchResult(None, Seen(0.25, 0.5, False), None, 8, Seen(1.25, 0.5, False), 2)
    assert asked == [40, 8]
    assert search(never, 5, 40).needed is None


def test_a_formula_that_says_no_number_does_is_not_taken_at_its_word() -> None:
    assert search(falls_to(33), None, 40).needed == 33


def test_a_floor_above_the_need_and_a_ceiling_below_it_have_figures_of_their_own() -> None:
    high, low = search(falls_to(5), 5, 40, min_replicas=9), search(falls_to(5), 5, 40, min_replicas=1, max_replicas=3)
    assert (high.needed, high.replicas, high.seen.response_s) == (5, 9, 10.0 / 9)
    assert (low.needed, low.replicas, low.seen.meets) == (5, 3, False)
    assert high.runs == low.runs == 3


def test_nothing_is_run_with_more_replicas_than_are_of_use() -> None:
    asked: list[int] = []

    def at(replicas: int) -> Seen:
        asked.append(replicas)
        return falls_to(1000)(replicas)

    found = search(at, 700, 12, min_replicas=50, max_replicas=90)
    assert found.replicas == 90
    assert max(asked) == 12


@pytest.mark.parametrize(("start", "most", "name"), [(0, 5, "start"), (-1, 5, "start"), (1, 0, "most")])
def test_numbers_below_one_are_refused_by_name(start: int, most: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a whole number >= 1, got {min(start, most)}"):
        search(falls_to(1), start, most)
