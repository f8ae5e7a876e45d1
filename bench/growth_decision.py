"""How long one decision takes at a million slots: `plan.autoscale.decide` for 15,625 replicas of 64 slots."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from tierserve.plan.autoscale import GatewaySample, Observation, ReplicaSample, Settings, State, decide

REPLICAS, SLOTS, LOAD = 15_625, 64, 0.93
SERVICE_S, TICK_S = 10.0, 1.0
HISTORY_S = 400.0
"""More than a pool remembers, so that no decision is cheap for want of a past."""


@dataclass
class Timing:
    """Milliseconds of one decision: the median, and the 99th percentile."""

    what: str
    slots: int
    median_ms: float
    p99_ms: float


def observation(t: float, samples: bool, gateway: bool, growth: float = 0.0) -> Observation:
    """Everybody is as busy as everybody else; the rate grows by `growth` a second."""
    rate = LOAD * REPLICAS * SLOTS / SERVICE_S
    come = rate * t * (1.0 + growth * t / 2.0)
    busy = rate * SERVICE_S * (1.0 + growth * t)
    each = come / REPLICAS
    one = ReplicaSample(
        t, each, each, each * SERVICE_S, each * SERVICE_S**2 * 1.25, running=busy / REPLICAS, startup_s=103.0
    )
    replicas = {f"r{k}": one for k in range(REPLICAS)} if samples else {"all": one}
    front = GatewaySample(t, come, 0.0, busy, come, 0.0) if gateway else None
    return Observation(t, REPLICAS, REPLICAS, 1, 100_000, replicas, front)


def timed(what: str, samples: bool, gateway: bool, learn: bool = False, growth: float = 0.0, most: int = 200) -> Timing:
    settings = Settings(target_s=30.0, service_s=SERVICE_S, slots=SLOTS, startup_s=103.0, learn_reserve=learn)
    state, walls = State(), []
    count = int(HISTORY_S / TICK_S)
    for k in range(1, count + most):
        seen = observation(k * TICK_S, samples and k > count - 3, gateway or k <= count - 3, growth)
        began = time.perf_counter()
        _, state = decide(seen, state, settings)
        if k >= count:
            walls.append((time.perf_counter() - began) * 1e3)
    return Timing(what, REPLICAS * SLOTS, statistics.median(walls), statistics.quantiles(walls, n=100)[98])


def timings(quick: bool = False) -> list[Timing]:
    most = 5 if quick else 200
    return [
        timed("the gateway's figures, one sum of all replicas, constant load", False, True, most=most),
        timed("the same, a load that grows", False, True, growth=0.002, most=most),
        timed("the same with experience (`learn_reserve`)", False, True, learn=True, most=most),
        timed("a sample of each of 15,625 replicas", True, False, most=min(most, 30)),
        timed("both", True, True, most=min(most, 30)),
    ]


if __name__ == "__main__":
    for timing in timings():
        print(timing)
