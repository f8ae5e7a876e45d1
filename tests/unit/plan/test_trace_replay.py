"""Replicas for a recorded stream: beside the plan for a rate, with bursts, at its edges, and beside the simulator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tierserve.api import GenAIDeployment
from tierserve.cli.simulate.inputs import recorded
from tierserve.plan.placement import Placement, place
from tierserve.plan.pool_sizing import replicas_for
from tierserve.plan.trace.replay import (
    CLOSE_WINDOWS,
    ERROR,
    LOW_LOAD,
    LOW_LOAD_ERROR,
    LOW_LOAD_REPLICAS,
    WINDOWS,
    Requests,
    asked,
    replay,
    requests_of,
)
from tierserve.queueing import BatchProfile
from tierserve.simulate.cluster import Setup
from tierserve.simulate.policies.static import Static
from tierserve.simulate.run import simulate
from tierserve.simulate.types import Objective, Pool

PROFILE = BatchProfile(alpha=0.0112, beta=1.03e-4, gamma=9.2e-8)
"""The 8B model on an A100 of docs/benchmarks/trace-prediction.md."""


def pool(target_s: float = 6.0, slots: int = 16, **other: object) -> Placement:
    given: dict[str, object] = {
        "tier": "cloud", "site": "default", "kind": "cloud", "model": "m", "engine": "emulated", "source": None,
        "slots": slots, "profile": PROFILE, "input_tokens": 500.0, "output_tokens": 200.0, "uplink_s": 0.02,
        "downlink_s": 0.03, "min_replicas": 1, "max_replicas": 100, "startup_s": 60.0, "percentile": 95.0,
        "target_s": target_s, "sizes": ((1.0, 500.0, 200.0),), "spread_known": True,
    }  # fmt: skip
    return Placement(**(given | other))  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [4.0, 20.0, 60.0])
def test_poisson_counts_at_one_rate_need_what_the_plan_for_that_rate_says(rate: float) -> None:
    counts = np.random.default_rng(1).poisson(rate, 900).astype(float)
    found = replay(pool(), Requests(counts))
    assert found.needed == pytest.approx(replicas_for(pool(), rate), abs=1)
    assert found.mean.replicas == pytest.approx(replicas_for(pool(), float(counts.mean())), abs=0)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_same_counts_in_a_burstier_order_never_need_fewer_replicas(seed: int) -> None:
    counts = np.random.default_rng(seed).poisson(np.tile([2.0] * 40 + [30.0] * 10, 8)).astype(float)
    shuffled = replay(pool(), Requests(np.random.default_rng(seed).permutation(counts)))
    as_one_burst = replay(pool(), Requests(np.sort(counts)))
    in_turns = replay(pool(), Requests(counts))
    needs = [one.needed for one in (shuffled, in_turns, as_one_burst)]
    assert None not in needs
    assert needs == sorted(needs, key=lambda one: one or 0)
    assert needs[0] != needs[-1]


def test_one_replica_fewer_does_not_keep_the_objective() -> None:
    counts = np.tile([2.0] * 60 + [30.0] * 20, 6)
    found = replay(pool(), Requests(counts))
    assert found.needed is not None
    fewer = replay(pool(max_replicas=found.needed - 1), Requests(counts))
    assert found.meets
    assert found.within >= 0.95
    assert found.response_s <= 6.05 * (1.0 + 1e-6)
    assert not fewer.meets
    assert fewer.needed == found.needed
    assert fewer.replicas == found.needed - 1
    assert fewer.late > 0.05
    assert fewer.response_s > 6.05


def test_room_for_the_error_takes_no_fewer_replicas_and_keeps_a_shorter_target() -> None:
    counts = np.tile([2.0] * 60 + [30.0] * 20, 6)
    found = replay(pool(), Requests(counts))
    assert found.needed is not None
    assert found.needed_with_margin is not None
    assert found.needed_with_margin >= found.needed
    assert replay(pool(min_replicas=found.needed_with_margin), Requests(counts)).response_s <= 6.05 * (1.0 - ERROR)


@pytest.mark.parametrize("floor", [0, 1, 3])
def test_where_nobody_asks_the_floor_is_enough(floor: int) -> None:
    found = replay(pool(min_replicas=floor), Requests(np.zeros(60)))
    assert (found.needed, found.replicas, found.meets, found.within) == (0, floor, True, 1.0)
    assert found.utilisation == found.utilisation_busiest == 0.0


def test_a_floor_above_the_need_stands_all_the_time() -> None:
    found = replay(pool(min_replicas=7), Requests(np.full(60, 1.0)))
    assert found.needed == 1
    assert found.replicas == 7


def test_no_number_of_replicas_is_named_where_too_many_requests_are_too_long_even_alone() -> None:
    sizes = ((0.9, 500.0, 200.0), (0.1, 500.0, 2000.0))
    found = replay(pool(sizes=sizes, max_replicas=5), Requests(np.full(60, 1.0), sizes=sizes))
    assert found.needed is None
    assert found.needed_with_margin is None
    assert found.mean.replicas is None
    assert not found.meets
    assert found.replicas == 5
    assert found.late_alone == pytest.approx(0.1)
    assert found.late >= 0.1 - 1e-3


def test_utilisation_is_load_over_what_full_replicas_finish_on_the_whole_and_in_the_busiest_minute() -> None:
    counts = np.concatenate([np.full(240, 5.0), np.full(60, 10.0)])
    one = pool(min_replicas=4)
    found = replay(one, Requests(counts))
    assert found.utilisation == pytest.approx(6.0 / (4 * one.rate))
    assert found.utilisation_busiest == pytest.approx(10.0 / (4 * one.rate))


def test_the_busiest_time_is_looked_for_at_every_second_and_a_short_stream_is_all_of_it() -> None:
    counts = np.zeros(1000)
    counts[150:750] = 3.0
    assert Requests(counts).busiest(600.0) == pytest.approx(3.0)
    assert Requests(np.full(100, 2.0)).busiest(600.0) == pytest.approx(2.0)


def test_requests_are_counted_by_the_second_to_the_end_of_the_stream() -> None:
    tokens = np.array([100, 200, 300])
    found = requests_of(np.array([0.1, 0.9, 2.5]), tokens, tokens, 5.0)
    assert found.counts.tolist() == [2.0, 0.0, 1.0, 0.0, 0.0]
    assert sum(share * inputs for share, inputs, _ in found.sizes) == pytest.approx(200.0)
    assert requests_of(np.array([]), np.array([]), np.array([]), 5.0).counts.tolist() == [0.0] * 5


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"counts": np.array([-1.0])}, "counts"),
        ({"counts": np.array([np.nan])}, "counts"),
        ({"counts": np.array([])}, "counts"),
        ({"window_s": 0.0}, "window_s"),
    ],
)
def test_a_stream_that_makes_no_sense_is_refused_by_the_name_of_its_field(change: dict[str, object], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Requests(**({"counts": np.ones(3)} | change))  # type: ignore[arg-type]


@pytest.mark.parametrize(("times", "length_s", "name"), [([-1.0], 5.0, "times_s"), ([1.0], 0.0, "length_s")])
def test_requests_at_no_time_are_refused_by_name(times: list[float], length_s: float, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        requests_of(np.array(times), np.ones(1), np.ones(1), length_s)


def test_a_pool_is_asked_with_the_tokens_of_the_trace_and_keeps_its_slots(
    service: Callable[..., GenAIDeployment],
) -> None:
    gaid = service()
    cloud = place(gaid)[0]
    found = asked(gaid, cloud, ((0.5, 1000.0, 100.0), (0.5, 3000.0, 300.0)))
    assert (found.input_tokens, found.output_tokens) == (2000.0, 200.0)
    assert found.slots == cloud.slots
    assert found.target_s + found.network_s == pytest.approx(3.0)
    assert found.uplink_s > cloud.uplink_s
    assert asked(gaid, cloud, ()) is cloud


@pytest.mark.slow
def test_replicas_found_for_azure_code_keep_the_target_in_a_simulation_token_by_token() -> None:
    work = recorded("azure-code", 10)
    requests = requests_of(work.times_s, work.input_tokens, work.output_tokens, work.length_s)
    one = replace(pool(target_s=80.0, slots=32, uplink_s=0.0, downlink_s=0.0), sizes=requests.sizes)
    found = replay(one, requests)
    assert found.needed is not None
    alone = Pool(PROFILE, 32, 0.0, Objective(), 1.0, 1.0)
    seen = simulate(work, alone, Static(alone, found.needed), Setup("tokens", "central", found.needed)).response_s
    p95 = float(np.quantile(seen, 0.95))
    assert p95 == pytest.approx(found.response_s, rel=ERROR)
    assert p95 <= 80.0 * (1.0 + ERROR)
    assert found.busiest.replicas is not None
    assert found.busiest.replicas < found.needed  # Poisson arrivals, even at the rate of the busiest ten minutes
    assert found.busiest.within < 0.95


def test_how_far_it_is_off_is_what_the_benchmark_pages_say() -> None:
    docs = Path(__file__).parents[3] / "docs"
    windows = (docs / "benchmarks" / "trace-prediction.md").read_text()
    replicas = " ".join((docs / "benchmarks" / "trace-planning.md").read_text().split())
    planning = " ".join((docs / "planning.md").read_text().split())
    low, high = LOW_LOAD_ERROR
    assert f"p95 is within {ERROR:.0%}" in windows
    assert f"all traces ({WINDOWS})" in windows
    assert f"| counts | {CLOSE_WINDOWS / WINDOWS:.0%};" in windows
    assert f"loads below {LOW_LOAD:g}, predicted p95 is {low:+.0%} to {high:+.0%} off" in replicas
    assert "Replicas found are {:.2f} to {:.2f} of those".format(*LOW_LOAD_REPLICAS) in replicas
    assert f"on {CLOSE_WINDOWS} of {WINDOWS} windows of real traces" in planning
    assert f"p95 is {-low:.0%} too low to {high:.0%} too high" in planning
    assert "the replicas found are {:.2f} to {:.2f} of those".format(*LOW_LOAD_REPLICAS) in planning
