"""llm-d workload-variant-autoscaler (WVA): its queueing model, and its saturation mode.

Rules: llm-d workload-variant-autoscaler, "Saturation analyzer" and the queue analyser it sizes by (Tantawi et al.,
arXiv 2603.09730). Both decide every 60 s. Its times of a batch are its own: the tokens of a request count among those
of the batch and once more alone, so that its T(n) is our T(n + 1). What WVA wants is applied at once here; in a cluster
an HPA or KEDA applies it, with a delay or a stabilisation that its user sets.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import numpy as np

from tierserve.queueing.batching.birth_death import loss_queue
from tierserve.queueing.batching.profile import BatchProfile
from tierserve.simulate.policies.windows import Window, mean_tokens, round_up, waiting_per_replica
from tierserve.simulate.types import Floats, Pool, Snapshot

_INTERVAL_S = 60.0
_ROOM = 10
"""Requests that may wait, in batches: with the batch itself there is room for 11 of them."""
_EDGE = 1e-3
"""How near to 0 and to the full rate the search of the largest rate goes, relative."""
_TOLERANCE = 1e-4
_GRID = 1.02
"""Mean tokens are rounded to powers of this, so that one answer serves many decisions."""
_KEPT = 2048
_QUEUE = 5.0
"""Requests waiting at which a replica counts as saturated."""
_SPARE_KV = 0.1
_SPARE_QUEUE = 3.0
_NOISE = 1e-12
_SLACK_S = 1e-6


class WvaQueue:
    """R = ceil(rate / the largest rate at which one replica meets its mean TTFT and ITL).

    A replica is a queue of its own with r(min(n, N)) for n requests. Where the targets are below what an idle replica
    does, WVA finds no allocation and the replicas stay as they are.

    Args:
        pool: step times, slots, tokens and the targets `objective.ttft_s` and `objective.itl_s` (`inf`: none).
        factor: what the targets are multiplied by.
    """

    interval_s = _INTERVAL_S

    def __init__(self, pool: Pool, factor: float) -> None:
        self._pool = pool
        self._ttft_s, self._itl_s = factor * pool.objective.ttft_s, factor * pool.objective.itl_s
        self._window = Window(_INTERVAL_S, "arrivals", "completions", "input_tokens", "output_tokens")
        self._rates: dict[tuple[int, int], float | None] = {}

    def decide(self, seen: Snapshot) -> int:
        """Return the desired replicas; with no request, the least there may be."""
        self._window.add(seen)
        rate = self._window.rate("arrivals")
        if rate <= 0.0:
            return self._pool.min_replicas
        best = self._largest_rate(*mean_tokens(self._window, self._pool))
        return seen.target if best is None else max(round_up(rate / best), self._pool.min_replicas)

    def _largest_rate(self, i: float, o: float) -> float | None:
        key = (_rounded(i), _rounded(o))
        if key not in self._rates:
            if len(self._rates) >= _KEPT:
                self._rates.clear()
            self._rates[key] = largest_rate(self._pool, _GRID ** key[0], _GRID ** key[1], self._ttft_s, self._itl_s)
        return self._rates[key]


def _rounded(tokens: float) -> int:
    return round(math.log(tokens) / math.log(_GRID))


def prefill_s(profile: BatchProfile, n: float, i: float, o: float) -> float:
    """Return what WVA takes for the prefill in a batch of n: a step with all of n, and the request's own input."""
    return profile.iteration(n, i, o) + (profile.beta + profile.gamma) * i


def service_s(profile: BatchProfile, n: float, i: float, o: float) -> float:
    """Return what WVA takes for the service in a batch of n: steps with all of n, and the request's own tokens."""
    return (1.0 + o) * profile.iteration(n, i, o) + profile.own(i, o)


def largest_rate(pool: Pool, i: float, o: float, ttft_s: float, itl_s: float) -> float | None:
    """Return the most requests per second at which one replica meets both targets, None where it never does.

    Mean TTFT is the wait and the prefill at the mean batch; mean ITL is the rest of the mean service over the tokens.

    Args:
        pool: step times and slots.
        i, o: input and output tokens of a request.
        ttft_s, itl_s: targets in seconds, `inf` for none.
    """
    batches = range(1, pool.slots + 1)
    # an odd profile may finish fewer per second with more in the batch: such a batch is not filled
    rates = np.maximum.accumulate([n / service_s(pool.profile, n, i, o) for n in batches])

    targets = (ttft_s, itl_s)

    def at(rate: float) -> tuple[float, float]:
        queue = loss_queue(rate, 1, rates, _ROOM * pool.slots)
        prefill = prefill_s(pool.profile, queue.mean_batch, i, o)
        return queue.mean_wait + prefill, (queue.mean_service - prefill) / o

    low, high = float(rates[0]) * _EDGE, float(rates[-1]) * (1.0 - _EDGE)
    # both rise with the rate, so that the lesser of their two largest rates is the largest at which both are met
    return _bisect(low, high, lambda rate: all(got <= asked for got, asked in zip(at(rate), targets, strict=True)))


def _bisect(low: float, high: float, good: Callable[[float], bool]) -> float | None:
    """The last rate that is good, to 1e-4 relative; `high` where all are, None where not even `low` is."""
    if not good(low):
        return None
    if good(high):
        return high
    while high - low > _TOLERANCE * high:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if good(middle) else (low, middle)
    return low


class WvaSaturation:
    """One replica more where the unsaturated ones have little to spare, one less where one could go.

    A replica is saturated with 80 % (the knob) of its KV memory taken or 5 requests waiting; both are the highest
    values of the last minute, read every 15 s. The memory taken is the share of slots taken. Nothing changes while
    replicas start or stop.

    Args:
        pool: its slots.
        kv_threshold: share of the KV memory at which a replica counts as saturated.
    """

    interval_s = 15.0

    def __init__(self, pool: Pool, kv_threshold: float) -> None:
        self._slots, self._kv = pool.slots, kv_threshold
        self._samples: deque[tuple[Floats, Floats]] = deque(maxlen=int(_INTERVAL_S / self.interval_s))
        self._next_s = _INTERVAL_S

    def decide(self, seen: Snapshot) -> int:
        """Return the desired replicas, the target as it is between two decisions."""
        if self._samples and self._samples[-1][0].size != seen.ready:
            self._samples.clear()  # other replicas: what was seen of the old ones says nothing of these
        self._samples.append((seen.in_batch / self._slots, waiting_per_replica(seen)))
        if seen.t < self._next_s - _SLACK_S:
            return seen.target
        self._next_s = seen.t + _INTERVAL_S
        if seen.ready == 0 or seen.starting > 0 or seen.ready != seen.target:
            return seen.target
        return seen.ready + self._step()

    def _step(self) -> int:
        kv = np.max([sample[0] for sample in self._samples], axis=0)
        queue = np.max([sample[1] for sample in self._samples], axis=0)
        free = (kv < self._kv) & (queue < _QUEUE)
        count = int(np.count_nonzero(free))
        used_kv = float(kv[free].mean()) if count else self._kv
        used_queue = float(queue[free].mean()) if count else _QUEUE
        if not self._enough(used_kv, used_queue):
            return 1
        if count < 2:
            return 0
        more = count / (count - 1.0)
        return -1 if self._enough(used_kv * more, used_queue * more) else 0

    def _enough(self, kv: float, queue: float) -> bool:
        """Whether so much use leaves both spares."""
        return self._kv - kv >= _SPARE_KV - _NOISE and _QUEUE - queue >= _SPARE_QUEUE - _NOISE
