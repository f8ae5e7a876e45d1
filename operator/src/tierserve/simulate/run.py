"""Run of a policy on a workload, and its results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tierserve.simulate.cluster import Cluster, Setup
from tierserve.simulate.types import Floats, Ints, Objective, Policy, Pool, Workload

GRACE_S = 3600.0
"""Maximum seconds that a run continues after the last arrival, until all requests are answered."""


@dataclass(frozen=True, slots=True)
class Result:
    """Results of a run. Requests in order of arrival, shape (n,); decisions in order of time, shape (m,).

    Attributes:
        arrive_s, start_s, first_s, end_s: seconds since the start; NaN where it never happened.
        output_tokens: of each request.
        decided_s, target, ready, held: when a decision was made; desired replicas after it; that serve; that hold an
            accelerator (starting and draining ones too).
        length_s: end of the time that counts.
        aborted: requests that a stopped replica dropped.
    """

    arrive_s: Floats
    start_s: Floats
    first_s: Floats
    end_s: Floats
    output_tokens: Ints
    decided_s: Floats
    target: Ints
    ready: Ints
    held: Ints
    length_s: float
    aborted: int
    gpus: float = 1.0

    @property
    def response_s(self) -> Floats:
        """Arrival to last token; `inf` for those that were never answered."""
        return np.nan_to_num(self.end_s - self.arrive_s, nan=np.inf)

    @property
    def ttft_s(self) -> Floats:
        """Arrival to first token."""
        return np.nan_to_num(self.first_s - self.arrive_s, nan=np.inf)

    @property
    def itl_s(self) -> Floats:
        """Mean time between the tokens of each request."""
        return np.nan_to_num((self.end_s - self.first_s) / np.maximum(self.output_tokens, 1), nan=np.inf)

    def among(self, begin_s: float = 0.0, end_s: float = np.inf) -> NDArray[np.bool_]:
        """Which requests arrived in [begin_s, end_s)."""
        found: NDArray[np.bool_] = (self.arrive_s >= begin_s) & (self.arrive_s < end_s)
        return found

    def attainment(self, objective: Objective, begin_s: float = 0.0, end_s: float = np.inf) -> float:
        """Share of the requests that arrived in [begin_s, end_s) and kept every target; NaN if there were none."""
        good = (
            (self.response_s <= objective.response_s)
            & (self.ttft_s <= objective.ttft_s)
            & (self.itl_s <= objective.itl_s)
        )
        mine = self.among(begin_s, end_s)
        return float(good[mine].mean()) if mine.any() else float("nan")

    def gpu_hours(self, begin_s: float = 0.0, end_s: float = np.inf) -> float:
        """Accelerators held, summed over [begin_s, end_s) within the time that counts, in hours."""
        low, high = begin_s, min(end_s, self.length_s)
        edges = np.append(self.decided_s, max(self.length_s, self.decided_s[-1]))
        spans = np.clip(edges[1:], low, high) - np.clip(edges[:-1], low, high)
        return float((spans * self.held).sum()) * self.gpus / 3600.0

    def reversals_per_hour(self, begin_s: float = 0.0, end_s: float = np.inf) -> float:
        """Changes of direction of the target per hour."""
        mine = (self.decided_s >= begin_s) & (self.decided_s < min(end_s, self.length_s))
        steps = np.diff(self.target[mine])
        signs = np.sign(steps[steps != 0])
        hours = (min(end_s, self.length_s) - begin_s) / 3600.0
        return float(np.count_nonzero(np.diff(signs)) / hours) if hours > 0 else 0.0


def simulate(
    work: Workload,
    pool: Pool,
    policy: Policy,
    setup: Setup | None = None,
    *,
    service_s: Floats | None = None,
    progress: Callable[[float], None] | None = None,
) -> Result:
    """Simulate a pool scaled by `policy` under `work`, and return the results.

    Args:
        work: requests.
        pool: the replicas; the policy's targets are clamped to min_replicas and max_replicas.
        policy: called every `policy.interval_s`, from second 0 on.
        setup: behaviour of the pool; the token model with one queue if left out.
        service_s: for the slot model, the seconds of service of each request.
        progress: called with the simulated second after each decision.
    """
    cluster = Cluster(work, pool, setup or Setup(initial=pool.min_replicas), service_s)
    rows: list[tuple[float, int, int, int]] = []
    t, tick = 0.0, 0
    while t <= work.length_s or (cluster.unfinished and t <= work.length_s + GRACE_S):
        cluster.run_to(t)
        cluster.scale(policy.decide(cluster.snapshot()))
        rows.append((t, cluster.target, cluster.ready, cluster.held))
        if progress:
            progress(t)
        tick += 1
        t = tick * policy.interval_s
    cluster.run_to(max(cluster.now, work.length_s))  # requests that arrived after the last decision
    if cluster.unfinished:
        cluster.run_to(max(cluster.now, work.length_s + GRACE_S))
    return result_of(work, cluster, rows)


def result_of(
    work: Workload, cluster: Cluster, rows: Sequence[tuple[float, int, int, int]], mine: Ints | slice = slice(None)
) -> Result:
    """Return the results of the requests `mine` of a pool, given the rows (time, target, ready, held) of its
    decisions."""
    table = np.array(rows)
    q = cluster.requests
    return Result(
        arrive_s=q.arrive[mine],
        start_s=q.start[mine],
        first_s=q.first[mine],
        end_s=q.end[mine],
        output_tokens=q.output[mine],
        decided_s=table[:, 0],
        target=table[:, 1].astype(np.int64),
        ready=table[:, 2].astype(np.int64),
        held=table[:, 3].astype(np.int64),
        length_s=work.length_s,
        aborted=cluster.aborted,
        gpus=cluster.pool.gpus,
    )
