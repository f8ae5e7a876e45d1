"""The search of bench/autoscaling/schedule.py: what it finds keeps the goal, dearer than what nobody is under."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import pytest

from tierserve.queueing import BatchProfile
from tierserve.simulate.types import Objective, Pool
from tierserve.simulate.workload import Sizes, steps

pytestmark = pytest.mark.slow  # runs are simulated

WORK = steps((1.0, 6.0, 1.0), 200.0, Sizes(1000, 300, 0.5), 1, "up and down")
POOL = Pool(BatchProfile(alpha=0.0112, beta=1.03e-4, gamma=9.2e-8), 8, 40.0, Objective(ttft_s=5.0), 1000.0, 300.0)


@pytest.fixture(scope="module")
def schedule() -> ModuleType:
    return importlib.import_module("bench.autoscaling.schedule")


def test_a_change_is_of_one_stretch_by_one_replica_and_leaves_one_at_least(schedule: ModuleType) -> None:
    dice, wanted = np.random.default_rng(3), np.array([1, 1, 3, 3, 2, 1, 1, 4, 4, 1])
    changes = [schedule.changed(wanted, dice) for _ in range(300)]
    assert min(int(new.min()) for new in changes) == 1
    assert {int(np.abs(new - wanted).max()) for new in changes} <= {0, 1, 2, 3}
    moved = [np.flatnonzero(new != wanted) for new in changes if (new != wanted).any()]
    assert len(moved) > 150
    assert (wanted == [1, 1, 3, 3, 2, 1, 1, 4, 4, 1]).all()


def test_what_is_found_keeps_the_goal_for_less_than_the_oracle_takes_and_more_than_anybody_needs(
    schedule: ModuleType,
) -> None:
    part = schedule.Part(WORK, POOL)
    oracle = schedule.cheapest_oracle(part)
    found, seconds, missed = schedule.cheapest(part, oracle, rounds=4, changes=60)
    assert part.run(found) == (seconds, missed)
    assert missed <= part.may_miss == int(0.01 * len(WORK))
    assert seconds < part.run(oracle)[0]
    assert seconds > 3600.0 * schedule.least_hours_of_any(WORK, POOL, 0.0)
