"""The search for the least replicas: right from any guess where the percentile falls, and never wrong at its border."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from tierserve.plan.trace.search import Seen, search

GUESSES = st.integers(1, 5000)


@given(least=GUESSES, start=GUESSES, spare=st.integers(0, 5000))
def test_of_a_percentile_that_falls_the_least_number_is_found_in_few_runs(least: int, start: int, spare: int) -> None:
    asked: list[int] = []

    def at(replicas: int) -> Seen:
        asked.append(replicas)
        return Seen(1.0 / replicas, 1.0, replicas >= least)

    found = search(at, start, least + spare)
    assert found.needed == found.replicas == least
    assert found.at == found.seen == Seen(1.0 / least, 1.0, True)
    assert found.fewer == (Seen(1.0 / (least - 1), 1.0, False) if least > 1 else None)
    assert found.runs == len(asked) == len(set(asked))
    assert found.runs <= 2 * math.ceil(math.log2(abs(least - start) + 2)) + 1


@given(keeps=st.lists(st.booleans(), min_size=1, max_size=60), start=st.none() | st.integers(1, 80))
def test_whatever_comes_of_the_runs_what_is_found_keeps_the_objective_and_one_fewer_does_not(
    keeps: list[bool], start: int | None
) -> None:
    found = search(lambda r: Seen(1.0, 0.5, keeps[r - 1]), start, len(keeps))
    if found.needed is None:
        assert not keeps[-1]
        assert not found.at.meets
        assert found.fewer is None
    else:
        assert keeps[found.needed - 1]
        assert found.needed == 1 or not keeps[found.needed - 2]


@given(least=st.none() | GUESSES, start=GUESSES, min_replicas=st.integers(0, 50), span=st.integers(1, 50))
def test_what_stands_is_within_floor_and_ceiling_and_nothing_is_run_beyond_what_is_of_use(
    least: int | None, start: int, min_replicas: int, span: int
) -> None:
    most = 5000

    def at(replicas: int) -> Seen:
        assert 1 <= replicas <= most
        return Seen(1.0, 0.5, least is not None and replicas >= least)

    found = search(at, start, most, min_replicas=min_replicas, max_replicas=min_replicas + span)
    assert found.needed == least
    assert max(1, min_replicas) <= found.replicas <= min_replicas + span
    assert found.replicas == max(1, min_replicas, min(least or most, min_replicas + span))
    assert found.seen.meets == (least is not None and found.replicas >= least)
