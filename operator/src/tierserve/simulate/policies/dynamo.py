"""NVIDIA Dynamo's SLA planner, for engines that both prefill and decode.

Rules: NVIDIA Dynamo documentation, "SLA-based Planner" (throughput) and "Load-based scaling". The throughput loop,
every 180 s, predicts requests and tokens of the next interval and divides them by what one engine can do; the load
loop, every 5 s, adds a replica where all engines are estimated to miss the SLA and takes one where the rest would keep
it. With both, the answer of the throughput loop is the floor of the load loop.

The published throughput formulas are for separate prefill and decode engines. Here one engine does both, so the two are
combined as shares of one GPU's time,

    R = ceil( q i min(1, TTFT / TTFT exp.) / (i / prefill time)  +  q o / (n / step time of n that only decode) ),

q requests per second of i input and o output tokens, n the largest batch whose time between tokens on such a mixed
engine keeps the ITL target over ITL / ITL exp. `sizing="sweep"` is what newer planners do for mixed engines instead:
the largest batch n that keeps both TTFT and ITL, n / (o x step time) requests per second, and no correction.

The only predictor is the constant one (the next interval is as the last); ARIMA, Prophet and Kalman are left out.
"""

from __future__ import annotations

import math
from typing import Literal, TypeVar

import numpy as np

from tierserve.simulate.policies.windows import Window, mean_tokens, round_up, waiting_per_replica
from tierserve.simulate.types import Floats, Pool, Snapshot

Mode = Literal["throughput", "load", "both"]
_Number = TypeVar("_Number", float, Floats)

_THROUGHPUT_S = 180.0
_LOAD_S = 5.0
_DOWN = 0.8
_STEP_TOKENS = 8192
"""Tokens that are prefilled in one step at most: the usual limit of an engine on a large GPU."""
_SLACK_S = 1e-6


class Engine:
    """What the planner knows of one engine from its profiling: step times, no queue.

    Its time between tokens in a batch of n is that of a request which comes to n others: what the load loop asks for,
    and for the throughput loop a batch that is larger by one, on the safe side.

    Args:
        pool: its step times, slots and the tokens of a request.
        i, o: input and output tokens of a request.
    """

    def __init__(self, pool: Pool, i: float, o: float) -> None:
        self.profile, self.slots, self.i, self.o = pool.profile, pool.slots, i, o

    def prefill(self) -> float:
        """Return the seconds of a prefill step of one request."""
        return self.profile.prefill(1.0, self.i, self.o)

    def decode_alone(self, n: float) -> float:
        """Return the seconds of a step in which n requests decode and none is prefilled."""
        return self.profile.alpha + n * (self.profile.beta + self.profile.gamma * (self.i + self.o / 2.0))

    def itl(self, n: _Number) -> _Number:
        """Return the seconds between tokens of a request beside n others, their prefill included: it is linear in n."""
        alone = self.profile.decode(1.0, self.i, self.o)
        rise: _Number = n * (self.profile.decode(2.0, self.i, self.o) - alone)
        return rise + alone

    def ttft(self, waiting: Floats | float, n: Floats) -> Floats:
        """Return the seconds to the first token behind `waiting` requests, in steps that n requests decode in."""
        tokens = (waiting + 1.0) * self.i
        steps = np.ceil(tokens / _STEP_TOKENS)
        others = n * (self.profile.beta + self.profile.gamma * (self.i + self.o / 2.0))
        seconds: Floats = steps * (self.profile.alpha + others) + tokens * (self.profile.beta + self.profile.gamma)
        return seconds

    def largest_batch(self, itl_s: float, ttft_s: float = math.inf) -> int:
        """Return the largest batch within the targets; 1 where none is, as the planner takes the least it profiled."""
        batches = np.arange(1.0, self.slots + 1.0)
        good = (self.itl(batches) <= itl_s) & (self.ttft(0.0, batches) <= ttft_s)
        return max(1, int(np.count_nonzero(good)))  # both rise with the batch, so the good ones come first


class Dynamo:
    """The planner, with one of its loops or both.

    As there, nothing changes while replicas start, or while an interval had no request to measure. The floor of the
    pool is the planner's least number of endpoints. An objective of `inf` asks for nothing: without TTFT and ITL the
    load loop only goes down.

    Args:
        pool: step times, slots, tokens and the targets `objective.ttft_s` and `objective.itl_s`.
        factor: what the predicted number of requests is multiplied by, and the targets of the load loop divided by.
        mode: which loops run.
        sizing: how the throughput loop divides, see the module.
    """

    def __init__(self, pool: Pool, factor: float, mode: Mode, sizing: Literal["shares", "sweep"] = "shares") -> None:
        self._pool, self._factor, self._mode, self._sizing = pool, factor, mode, sizing
        self._window = Window(
            _THROUGHPUT_S, "arrivals", "completions", "first_tokens", "ttft_sum_s", "itl_sum_s", "response_sum_s",
            "input_tokens", "output_tokens",
        )  # fmt: skip
        self._least = pool.min_replicas
        self._next_s = _THROUGHPUT_S
        self._engine = Engine(pool, pool.input_tokens, pool.output_tokens)

    @property
    def interval_s(self) -> float:
        """180 s for the throughput loop alone, else 5 s."""
        return _THROUGHPUT_S if self._mode == "throughput" else _LOAD_S

    def decide(self, seen: Snapshot) -> int:
        """Return the desired replicas."""
        self._window.add(seen)
        at_rest = seen.starting == 0 and seen.ready == seen.target
        due = self._mode != "load" and seen.t >= self._next_s - _SLACK_S
        wanted = self._throughput(seen) if due else None
        if wanted is not None:
            self._least = max(wanted, self._pool.min_replicas)
        if self._mode == "throughput":
            return self._least if wanted is not None and at_rest else seen.target
        if not at_rest:
            return seen.target
        return max(self._load(seen), self._least)

    def _throughput(self, seen: Snapshot) -> int | None:
        """Replicas for the load of the last interval, None where it had nothing to measure."""
        self._next_s = seen.t + _THROUGHPUT_S
        window = self._window
        ttft, itl = window.mean("ttft_sum_s", "first_tokens"), window.mean("itl_sum_s", "completions")
        requests = window.rate("arrivals")
        if math.isnan(ttft) or math.isnan(itl) or requests <= 0.0:
            return None
        self._engine = engine = Engine(self._pool, *mean_tokens(window, self._pool))
        if self._sizing == "sweep":
            return round_up(self._factor * requests / self._swept(engine))
        beside = requests * window.mean("response_sum_s", "completions") / max(1, seen.ready)
        expected = engine.itl(min(beside, float(engine.slots)))
        slower = itl / expected if itl > 0.0 else 1.0
        return round_up(self._factor * requests * self._gpu_s(engine, ttft / engine.prefill(), slower))

    def _gpu_s(self, engine: Engine, longer: float, slower: float) -> float:
        """GPU seconds of one request: its prefill, and its share of the steps in which it decodes."""
        batch = engine.largest_batch(self._pool.objective.itl_s / slower)
        return engine.prefill() * min(1.0, longer) + engine.o * engine.decode_alone(batch) / batch

    def _swept(self, engine: Engine) -> float:
        """Requests per second of one engine at the largest batch that keeps both targets."""
        asked = self._pool.objective
        batch = engine.largest_batch(asked.itl_s, asked.ttft_s)
        return batch / (engine.o * self._pool.profile.iteration(batch, engine.i, engine.o))

    def _load(self, seen: Snapshot) -> int:
        """One more, one less or as many, by what the next request would meet on each engine."""
        engine, asked, replicas = self._engine, self._pool.objective, seen.ready
        if replicas == 0:
            return seen.target
        ttft_s, itl_s = asked.ttft_s / self._factor, asked.itl_s / self._factor
        waiting, batch = waiting_per_replica(seen), seen.in_batch
        if engine.itl(float(batch.min())) > itl_s or np.all(engine.ttft(waiting, batch) > ttft_s):
            return replicas + 1
        if replicas > 1 and self._spare(engine, waiting, batch, ttft_s, itl_s):
            return replicas - 1
        return replicas

    @staticmethod
    def _spare(engine: Engine, waiting: Floats, batch: Floats, ttft_s: float, itl_s: float) -> bool:
        """Whether one may go: the rest, N / (N - 1) as busy, keep 0.8 of the SLA, and their memory holds all."""
        more = batch.size / (batch.size - 1.0)
        fullest = more * float((batch + waiting).max())
        if fullest >= engine.slots or engine.itl(fullest) >= _DOWN * itl_s:
            return False
        own = engine.ttft(0.0, batch * more)
        queue = engine.ttft(waiting * more, batch * more) - own
        # only the part of TTFT that the queue makes is held against 0.8 of what is left for it
        return bool(np.all((own < ttft_s) & (queue < _DOWN * (ttft_s - own))))
