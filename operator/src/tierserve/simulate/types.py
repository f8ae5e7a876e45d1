"""Types of the simulator: workload, objective, pool, snapshot, and the policy protocol."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tierserve.queueing.batching.profile import BatchProfile

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests in order of arrival.

    Attributes:
        times_s: arrivals, seconds from the start; shape (n,), ascending.
        input_tokens, output_tokens: shape (n,), at least 1.
        length_s: end of the evaluated run; at least the last arrival.
        name, source: name, and origin with licence.
    """

    times_s: Floats
    input_tokens: Ints
    output_tokens: Ints
    length_s: float
    name: str = "workload"
    source: str = ""

    def __len__(self) -> int:
        return int(self.times_s.size)


@dataclass(frozen=True, slots=True)
class Objective:
    """Targets of a request, seconds; `inf`: no target."""

    response_s: float = math.inf
    ttft_s: float = math.inf
    itl_s: float = math.inf
    percentile: float = 99.0


@dataclass(frozen=True, slots=True)
class Pool:
    """Pool: replicas of one model on one tier, as known to a policy.

    Attributes:
        profile: step times of a replica.
        slots: requests that one replica holds at once.
        startup_s: seconds from a raised target to a replica that serves.
        min_replicas, max_replicas: bounds of the target.
        input_tokens, output_tokens: means of a request, as measured before the run.
        objective: what the requests must keep.
        gpus: accelerators of one replica.
    """

    profile: BatchProfile
    slots: int
    startup_s: float
    objective: Objective
    input_tokens: float
    output_tokens: float
    min_replicas: int = 1
    max_replicas: int = 10_000
    gpus: float = 1.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Metrics at a tick of a policy. Counters and integrals run since the start; rates are differences of two.

    Attributes:
        t: seconds since the start.
        target: desired replicas by the last decision.
        ready, starting, draining: replicas in each state.
        queued, running: requests that wait (at the gateway and in replicas); that are in a batch.
        in_batch, waiting: the same per ready replica, shape (ready,).
        arrivals, completions: requests, counted.
        late: of the completions, those that missed a target of the pool's objective (from a histogram of the gateway).
        first_tokens: requests that had their first token, counted.
        ttft_sum_s: sum of their times to it.
        itl_sum_s: sum over completions of each one's mean time between tokens.
        response_sum_s: sum over completions of the time from arrival to last token.
        service_sum_s, service_sq_sum_s2: sum over completions of the time in the batch, and of its square.
        input_tokens: of the requests that arrived, counted.
        output_tokens: of those that were completed, counted.
        in_system_s: integral of the requests in the system (waiting and running), request-seconds.
        running_s: integral of the requests in batches, request-seconds.
        replica_s: integral of the ready replicas, replica-seconds.
    """

    t: float
    target: int
    ready: int
    starting: int
    draining: int
    queued: float
    running: float
    in_batch: Floats
    waiting: Floats
    arrivals: float
    completions: float
    late: float
    first_tokens: float
    ttft_sum_s: float
    itl_sum_s: float
    response_sum_s: float
    service_sum_s: float
    service_sq_sum_s2: float
    input_tokens: float
    output_tokens: float
    in_system_s: float
    running_s: float
    replica_s: float


class Policy(Protocol):
    """Autoscaling policy: desired replicas every `interval_s`; may keep state between calls."""

    @property
    def interval_s(self) -> float:
        """Seconds between two decisions."""

    def decide(self, seen: Snapshot) -> int:
        """Return the desired replicas from now on; the simulator clamps them to min_replicas and max_replicas."""
