"""llm-d after WVA: KEDA on metrics of the endpoint picker (EPP), and an HPA with a behaviour of its own.

Rules: llm-d, guides on workload autoscaling. *Queue*: the larger of the flow-control queue over 1 and the running
requests over 16. *Saturation*: the larger of the pool's saturation over 0.7 and the running requests over 16.
*Token-aware*: the larger of the seconds of prefill that wait over 1.5 s and the sum of the KV usage over 0.8.
*SLO-aware*: a control law on the 90th percentiles of estimated TTFT and time per output token over their targets.

KEDA polls and the HPA syncs every 15 s. Metrics are of type AverageValue: the replicas required are the sum over the
target, within the tolerance of 0.1 those there are. KV usage is the share of slots taken, as for WVA.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tierserve.simulate.policies.hpa import within
from tierserve.simulate.policies.windows import Highest, Window, mean_tokens, round_up, waiting_per_replica
from tierserve.simulate.types import Pool, Snapshot

SYNC_S = 15.0
RUNNING = 16.0
"""Running requests per replica, as shipped."""
_QUEUE = 1.0
_SATURATION = 0.7
_FULL_QUEUE, _FULL_KV = 5.0, 0.8
"""The EPP's saturation of a replica is 1 with so many requests waiting, or so much of its KV cache used."""
_STABLE_S = 300.0
_BACKLOG_S = 1.5
_CHUNK_TOKENS = 8192.0
"""Prompt with which the guide measures how fast a replica prefills."""
_CLAMP = 2.0
_QUANTILE = 0.9
_RATE_S, _SMOOTH_S, _SAMPLE_S = 60.0, 45.0, 5.0
_DOWN_OF_UP = 0.40 / 0.55
_SLACK_S = 1e-6


@dataclass(frozen=True, slots=True)
class Side:
    """One direction of an HPA's behaviour: the larger of `pods` and `share` of the replicas may change in a period."""

    window_s: float
    period_s: float
    pods: int = 0
    share: float = 0.0


class Behaviour:
    """Stabilisation windows and rate limits of an HPA (autoscaling/v2, selectPolicy Max).

    Going up, the lowest recommendation of the window governs; going down, the highest. A rate limit counts from the
    replicas at the start of its period.
    """

    def __init__(self, up: Side, down: Side) -> None:
        self._up, self._down = up, down
        self._lowest = Highest(up.window_s) if up.window_s > 0.0 else None  # of the negatives
        self._highest = Highest(down.window_s) if down.window_s > 0.0 else None
        self._changes: deque[tuple[float, int]] = deque()

    def __call__(self, t: float, current: int, desired: int) -> int:
        """Return the replicas from now on, of the `current` ones and those that the metrics ask for."""
        if not self._changes:  # the first recommendation is what the HPA finds
            self._changes.append((-math.inf, 0))
            self._stable(t, current)
        low, high = self._stable(t, desired)
        wanted = min(max(current, low), high)
        if wanted > current:
            start = self._start(t, current, self._up.period_s)
            most = max(start + self._up.pods, round_up(start * (1.0 + self._up.share)))
            wanted = max(min(wanted, most), current)
        elif wanted < current:
            start = self._start(t, current, self._down.period_s)
            least = min(start - self._down.pods, int(start * (1.0 - self._down.share)))
            wanted = min(max(wanted, least), current)
        if wanted != current:
            self._changes.append((t, wanted - current))
        return wanted

    def _stable(self, t: float, desired: int) -> tuple[int, int]:
        low = -self._lowest(t, -desired) if self._lowest else desired
        high = self._highest(t, desired) if self._highest else desired
        return low, high

    def _start(self, t: float, current: int, period_s: float) -> int:
        longest = max(self._up.period_s, self._down.period_s)
        while len(self._changes) > 1 and self._changes[1][0] <= t - longest:
            self._changes.popleft()
        return current - sum(change for at, change in self._changes if at > t - period_s)


def average_value(current: int, metrics: Sequence[tuple[float, float]]) -> int:
    """Return the most replicas that any of the metrics (sum, target per replica) asks for."""
    wanted = [
        current if current > 0 and within(value / (target * current)) else round_up(value / target)
        for value, target in metrics
    ]
    return max(wanted)


class _Keda(ABC):
    """KEDA and the HPA around the metrics of a rule. As in the guides, one replica stays at least."""

    interval_s = SYNC_S

    def __init__(self, pool: Pool, behaviour: Behaviour) -> None:
        self._pool, self._behaviour = pool, behaviour

    def decide(self, seen: Snapshot) -> int:
        """Return the desired replicas; 0 stays 0."""
        if seen.target == 0 or seen.ready == 0:
            return seen.target
        wanted = max(self._wanted(seen), self._pool.min_replicas, 1)
        return self._behaviour(seen.t, seen.target, wanted)

    @abstractmethod
    def _wanted(self, seen: Snapshot) -> int:
        """Return the replicas that the metrics ask for."""


class _Running(_Keda):
    """The rules of the guide that scale on running requests besides; their window going up is near the start-up time.

    Args:
        pool: its slots and start-up time.
        share: target of running requests per replica, as a share of the slots; 0: the 16 of the guide.
    """

    def __init__(self, pool: Pool, share: float) -> None:
        up, down = Side(pool.startup_s, SYNC_S, share=1.0), Side(_STABLE_S, SYNC_S, share=1.0)
        super().__init__(pool, Behaviour(up, down))
        self._target = share * pool.slots if share > 0.0 else RUNNING


class LlmDQueue(_Running):
    """Requests in the flow-control queue, and running ones."""

    def _wanted(self, seen: Snapshot) -> int:
        return average_value(seen.target, [(seen.queued, _QUEUE), (seen.running, self._target)])


class LlmDSaturation(_Running):
    """The pool's saturation, and running requests.

    The saturation is a mean over replicas that does not rise with their number, so that it can ask for few replicas
    only; unless queues are long, the running requests decide.
    """

    def _wanted(self, seen: Snapshot) -> int:
        queue, kv = waiting_per_replica(seen) / _FULL_QUEUE, seen.in_batch / self._pool.slots / _FULL_KV
        saturation = float(np.maximum(queue, kv).mean())
        return average_value(seen.target, [(saturation, _SATURATION), (seen.running, self._target)])


class LlmDTokens(_Keda):
    """Seconds of prefill that wait, and KV usage. One replica more per 3 min and one less per 5 min at most.

    Args:
        pool: slots, step times and the tokens of a request.
        kv: target of the KV usage of a replica.
    """

    def __init__(self, pool: Pool, kv: float) -> None:
        super().__init__(pool, Behaviour(Side(0.0, 180.0, pods=1), Side(_STABLE_S, 300.0, pods=1)))
        self._kv = kv
        self._per_s = _CHUNK_TOKENS / pool.profile.prefill(1.0, _CHUNK_TOKENS, 1.0)
        self._window = Window(_RATE_S, "arrivals", "completions", "input_tokens", "output_tokens")

    def _wanted(self, seen: Snapshot) -> int:
        self._window.add(seen)
        waiting_s = seen.queued * mean_tokens(self._window, self._pool)[0] / self._per_s
        kv = float(seen.in_batch.sum()) / self._pool.slots
        return average_value(seen.target, [(waiting_s, _BACKLOG_S), (kv, self._kv)])


class LlmDSlo(_Keda):
    """Estimated latency over its target: one above the first threshold asks for more, one below the second for less.

    The estimate stands for that of the EPP's predictor. It is that of a request that comes now: it waits for the
    requests before it where all slots are taken, and the batch it joins is the mean one. The 90th percentile is of
    the estimates of the last minute.

    The guide raises the thresholds where the targets are near the latency of an idle replica, which no number of
    replicas goes below: here they are shares of what lies between the two.

    Args:
        pool: step times, slots, tokens and the targets `objective.ttft_s` and `objective.itl_s` (`inf`: none).
        up: threshold going up; the one going down is 0.40 where this is 0.55, as published.
    """

    interval_s = _SAMPLE_S

    def __init__(self, pool: Pool, up: float) -> None:
        super().__init__(pool, Behaviour(Side(30.0, 60.0, pods=4, share=1.0), Side(180.0, 120.0, pods=1)))
        idle = min(max(self._latencies(0.0, 1.0, pool.input_tokens, pool.output_tokens)), _CLAMP / 2.0)
        self._at_most, self._at_least = (idle + (1.0 - idle) * share for share in (up, up * _DOWN_OF_UP))
        self._window = Window(_RATE_S, "arrivals", "completions", "input_tokens", "output_tokens")
        self._estimates: deque[tuple[float, float]] = deque(maxlen=int(_RATE_S / _SAMPLE_S))
        self._signals: deque[float] = deque(maxlen=int(_SMOOTH_S / SYNC_S))
        self._next_s = 0.0

    def decide(self, seen: Snapshot) -> int:
        """Return the desired replicas: new ones at a sync, the target between two."""
        self._window.add(seen)
        if seen.ready > 0:
            self._estimates.append(self._estimate(seen))
        if seen.t < self._next_s - _SLACK_S or not self._estimates:
            return seen.target
        self._next_s = seen.t + SYNC_S
        worst = np.quantile(np.array(self._estimates), _QUANTILE, axis=0).max()
        self._signals.append(min(float(worst), _CLAMP) if self._window.rate("arrivals") > 0.0 else 0.0)
        return super().decide(seen)

    def _estimate(self, seen: Snapshot) -> tuple[float, float]:
        pool, (i, o) = self._pool, mean_tokens(self._window, self._pool)
        batch = min(float(seen.in_batch.mean()) + 1.0, float(pool.slots))
        full = float(seen.in_batch.sum()) >= seen.ready * pool.slots
        wait_s = (seen.queued + 1.0) / (seen.ready * pool.profile.rate(pool.slots, i, o)) if full else 0.0
        return self._latencies(wait_s, batch, i, o)

    def _latencies(self, wait_s: float, batch: float, i: float, o: float) -> tuple[float, float]:
        """TTFT and time between tokens, each over its target."""
        profile, asked = self._pool.profile, self._pool.objective
        return (wait_s + profile.prefill(batch, i, o)) / asked.ttft_s, profile.decode(batch, i, o) / asked.itl_s

    def _wanted(self, seen: Snapshot) -> int:
        signal, n = sum(self._signals) / len(self._signals), seen.target
        if signal > self._at_most:
            # what starts already counts: only ready replicas are behind the signal
            credit = seen.ready / n if seen.ready < n else 1.0
            wanted = n + round_up(n * (signal * credit / self._at_most - 1.0))
        elif signal < self._at_least:
            wanted = n - math.floor(n * (1.0 - signal / self._at_least))
        else:
            wanted = n
        return average_value(n, [(float(wanted), 1.0)])
