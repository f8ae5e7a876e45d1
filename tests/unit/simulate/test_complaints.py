"""What users of other autoscalers complain about: each a scenario that a peer fails and ours passes.

The numbers of the complaints are those of public threads: dynamo PR 9294 (flapping), dynamo 6985 (zero traffic), aibrix
2670 (more and more replicas while pods load), dynamo 10528 (queue time ignored in bursts), dynamo 13559 (requests
aborted by a scale-down).
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from tierserve.queueing import BatchProfile
from tierserve.simulate.cluster import Setup
from tierserve.simulate.policies.ours import OURS
from tierserve.simulate.policies.registry import RULES
from tierserve.simulate.run import Result, simulate
from tierserve.simulate.types import Objective, Pool
from tierserve.simulate.workload import Sizes, poisson, steps

pytestmark = pytest.mark.slow  # runs are simulated

SIZES = Sizes(500, 200, 0.5)
GOAL = Objective(ttft_s=3.0, itl_s=1.0)
POOL = Pool(BatchProfile(0.0112, 1.03e-4, 9.2e-8), 16, 100.0, GOAL, 500, 200, max_replicas=200)
"""A replica finishes 4.4 requests a second when it is full, and takes 100 s to start."""
(OURS_RULE,) = (one for one in OURS if one.name == "ours")


SCENARIOS = {
    "constant": (poisson(8.0, 5400.0, SIZES), 3),
    "stops": (steps((8, 0, 0, 0), 1800.0, SIZES), 3),
    "burst": (steps((2, 2, 20, 2, 2, 2), 600.0, SIZES), 2),  # the highest load is that of 4.6 replicas
    "waves": (steps((20, 2, 20, 2), 600.0, SIZES), 6),
}
"""Workloads, and the replicas at the start."""


@cache
def played(rule: str, scenario: str, drain: bool = True) -> Result:
    found = OURS_RULE if rule == "ours" else RULES[rule]
    work, initial = SCENARIOS[scenario]
    return simulate(work, POOL, found.make(POOL, found.default), Setup(initial=initial, drain=drain))


@pytest.mark.parametrize("peer", ["hpa", "kpa", "wva-queue", "dynamo-load"])
def test_at_a_constant_load_the_target_never_turns_and_a_peer_s_does(peer: str) -> None:
    assert played(peer, "constant").reversals_per_hour(3600.0) > 0.0
    ours = played("ours", "constant")
    assert ours.reversals_per_hour(3600.0) == 0.0
    assert ours.attainment(GOAL, 1200.0) >= 0.99


@pytest.mark.parametrize("peer", ["dynamo-throughput", "dynamo-both"])
def test_when_traffic_stops_the_pool_goes_down_to_its_floor_and_a_peer_s_stays_up(peer: str) -> None:
    last = {name: played(name, "stops").target[-1] for name in (peer, "ours")}
    assert last[peer] > POOL.min_replicas
    assert last["ours"] == POOL.min_replicas


@pytest.mark.parametrize("peer", ["aibrix", "hpa", "ray-serve"])
def test_replicas_that_start_are_counted_and_no_more_are_asked_for_while_they_do(peer: str) -> None:
    ours, theirs = played("ours", "burst"), played(peer, "burst")
    assert theirs.target.max() > 100
    assert ours.target.max() <= 16, "the load is that of 4.6 replicas, and 1,700 requests wait when the first serve"
    assert theirs.gpu_hours() > 2.0 * ours.gpu_hours()


@pytest.mark.parametrize("peer", ["wva-queue", "skyserve", "dynamo-throughput", "paper"])
def test_a_queue_that_a_burst_left_is_worked_off_and_a_peer_leaves_it_standing(peer: str) -> None:
    ours, theirs = played("ours", "burst"), played(peer, "burst")
    assert ours.attainment(GOAL, 1200.0) > 2.0 * theirs.attainment(GOAL, 1200.0)


def test_a_scale_down_aborts_nobody_where_replicas_drain_and_many_where_they_do_not() -> None:
    drained = played("kpa", "waves")
    cut = played("kpa", "waves", drain=False)
    assert (drained.aborted, int(np.isnan(drained.end_s).sum())) == (0, 0)
    assert cut.aborted > 0
    assert played("ours", "waves").aborted == 0


def test_a_target_that_somebody_else_set_is_where_ours_goes_on_from() -> None:
    """A manual edit: the pool follows what it is told it has, and comes back by its own rule."""
    work = poisson(8.0, 3600.0, SIZES)
    policy = OURS_RULE.make(POOL, 1.0)

    class Edited:
        interval_s = policy.interval_s

        def decide(self, seen: object) -> int:
            wanted = policy.decide(seen)  # type: ignore[arg-type]
            return 9 if 1500.0 <= seen.t < 1600.0 else wanted  # type: ignore[attr-defined]

    found = simulate(work, POOL, Edited(), Setup(initial=3))
    after = found.target[found.decided_s >= 1700.0]
    assert found.target[(found.decided_s > 1510.0) & (found.decided_s < 1590.0)].min() == 9
    assert after.max() <= 4
