"""What holds for every pool of replicas with batches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierserve.queueing import BatchProfile, batch_queue, erlang_c

LOADS = st.floats(0.05, 0.999)
PROFILES = st.builds(BatchProfile, st.floats(1e-3, 0.1), st.floats(0, 1e-4), st.floats(0, 1e-6))


@given(st.integers(1, 100_000), st.integers(1, 300), LOADS, st.floats(1e-3, 1e3))
def test_with_rates_in_proportion_it_is_erlang_c(replicas: int, slots: int, load: float, mu: float) -> None:
    c = replicas * slots
    found = batch_queue(load * c * mu, replicas, [n * mu for n in range(1, slots + 1)])
    assert found.p_wait == pytest.approx(erlang_c(c, load * c), rel=1e-5, abs=1e-100)
    assert found.mean_service == pytest.approx(1 / mu, rel=1e-6)


@given(PROFILES, st.integers(1, 500), st.integers(1, 128), LOADS)
def test_batches_lie_between_an_empty_and_a_full_replica(
    profile: BatchProfile, replicas: int, slots: int, load: float
) -> None:
    rates = [profile.rate(n, 500, 100) for n in range(1, slots + 1)]
    found = batch_queue(load * replicas * rates[-1], replicas, rates)
    slack = 1 + 1e-6
    assert 1 / rates[0] <= found.mean_service * slack
    assert found.mean_service <= slots / rates[-1] * slack
    assert 0 <= found.p_wait <= 1
    assert found.mean_batch <= found.servers * slack


@given(PROFILES, st.integers(1, 50), st.integers(1, 64), LOADS)
def test_more_load_is_never_faster_and_another_replica_never_slower(
    profile: BatchProfile, replicas: int, slots: int, load: float
) -> None:
    rates = [profile.rate(n, 500, 100) for n in range(1, slots + 1)]
    lam = load * replicas * rates[-1]
    here = batch_queue(lam, replicas, rates)
    assert batch_queue(0.9 * lam, replicas, rates).mean_response <= here.mean_response * (1 + 1e-6)
    assert batch_queue(lam, replicas + 1, rates).mean_response <= here.mean_response * (1 + 1e-6)
