"""The replicas follow the load down, however slowly it sinks, and stand still with it."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from tierserve.autoscale.decide import GatewaySample, Observation, ReplicaSample, Settings, State, decide

SETTINGS = Settings(target_s=6.0, service_s=2.0, slots=8, startup_s=60.0, stale_after_s=30.0)
TICK_S = 10.0


def run(rate: Callable[[float], float], hours: float, seed: int = 1) -> list[int]:
    """Return the replicas, tick by tick, of Poisson arrivals at a rate (per second) by the hour.

    The replicas bear everything at once.
    """
    dice = np.random.default_rng(seed)
    state, target, came, out = State(), 5, 0.0, []
    for k in range(int(hours * 3600.0 / TICK_S)):
        t = (k + 1) * TICK_S
        now = rate(t / 3600.0)
        came += float(dice.poisson(now * TICK_S))
        busy = float(dice.poisson(2.0 * now))
        sample = ReplicaSample(t, came, came, 2.0 * came, 4.0 * came, running=busy, startup_s=60.0)
        gateway = GatewaySample(t, came, 0.0, busy, answered=0.0, late=0.0, bypassed=0.0)
        decision, state = decide(Observation(t, target, target, 1, 64, {"a": sample}, gateway), state, SETTINGS)
        target = decision.replicas
        out.append(target)
    return out


@pytest.mark.slow
def test_a_load_that_sinks_over_hours_is_followed_down() -> None:
    # so slowly that no five minutes differ beyond chance, after a time so long that it was well settled on
    found = run(lambda hour: 15.0 * (1.0 - 0.225 * min(max(hour - 5.5, 0.0), 4.0)), 10.0)
    assert found[int(5.0 * 3600.0 / TICK_S)] >= 5
    assert found[-1] <= 2


@pytest.mark.parametrize("seed", range(2))
def test_replicas_stand_still_with_a_load_that_does_not_change(seed: int) -> None:
    found = run(lambda _: 10.0, 2.0, seed)[int(600.0 / TICK_S) :]
    assert sum(a != b for a, b in itertools.pairwise(found)) <= 4
