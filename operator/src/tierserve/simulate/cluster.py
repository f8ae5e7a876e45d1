"""Simulated pool: replicas start, serve, drain and fail, around the compiled engines."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tierserve.simulate.engine import gateway as g
from tierserve.simulate.engine.events import advance, begin, join
from tierserve.simulate.types import Floats, Ints, Pool, Snapshot, Workload

ROUTERS = {
    "central": g.CENTRAL,
    "shortest": g.SHORTEST,
    "two-choices": g.TWO_CHOICES,
    "round-robin": g.ROUND_ROBIN,
    "random": g.RANDOM,
}
MODELS = {"tokens": g.TOKENS, "slots": g.SLOTS}


@dataclass(frozen=True, slots=True)
class Setup:
    """Behaviour of a pool, independent of the policy.

    Attributes:
        model: `tokens`, continuous batching in steps, or `slots`, a fixed service time in a slot.
        router: one of `ROUTERS`; `central` is one queue at the gateway, which is what TierServe's has.
        initial: replicas that serve at the start.
        startup_spread: coefficient of variation of the start-up time (gamma distributed); 0: always the same.
        failures: (second, replicas): so many replicas die then and are started anew; their requests are sent again.
        drain: whether a surplus replica finishes its requests; else they are aborted.
        seed: of start-up times and of the routers that throw dice.
    """

    model: str = "tokens"
    router: str = "central"
    initial: int = 1
    startup_spread: float = 0.0
    failures: tuple[tuple[float, int], ...] = ()
    drain: bool = True
    seed: int = 1

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ValueError(f"model: is unknown ({self.model!r}): choose {' or '.join(MODELS)}")
        if self.router not in ROUTERS:
            raise ValueError(f"router: is unknown ({self.router!r}): choose one of {', '.join(ROUTERS)}")


class Shared(NamedTuple):
    """State shared by the pools behind one gateway: all requests, and the table of counters of all pools."""

    requests: g.Requests
    numbers: Ints
    sums: Floats


class Cluster:
    """One pool in virtual time: Python advances it from tick to tick, compiled code handles the events in between."""

    def __init__(
        self, work: Workload, pool: Pool, setup: Setup, service_s: Floats | None = None, shared: Shared | None = None
    ) -> None:
        """Start with `setup.initial` ready replicas.

        Args:
            work: who asks.
            pool: slots, step times, start-up time.
            setup: how it behaves.
            service_s: seconds of service of each request, shape (n,), for the slot model.
            shared: where the pool is one of several, whose gateway gives it its requests; left out, all are its own.
        """
        if setup.model == "slots" and service_s is None:
            raise ValueError("the slot model needs service_s: give the seconds of service of each request")
        self.pool, self.setup, self.now = pool, setup, 0.0
        times = np.zeros(len(work)) if service_s is None else service_s
        if shared is None:
            requests = g.requests(work.times_s, work.input_tokens, work.output_tokens, times, setup.seed)
            shared = Shared(requests, np.zeros(g.MODEL + 1, dtype=np.int64), np.zeros(g.COUNTERS))
        else:
            shared.numbers[g.NEXT] = len(work)  # it takes none by itself
        self.requests, self._numbers, self._sums = shared
        self._rows = g.rows_of(max(16, setup.initial), pool.slots)
        self._numbers[g.ROUTER], self._numbers[g.MODEL] = ROUTERS[setup.router], MODELS[setup.model]
        self._heap = np.zeros(self._rows.state.size + 2, dtype=np.int64)
        self._place = np.zeros(self._rows.state.size + 1, dtype=np.int64)
        self._profile = np.array([pool.profile.alpha, pool.profile.beta, pool.profile.gamma])
        goal = pool.objective
        self._goals = np.array([goal.response_s, goal.ttft_s, goal.itl_s])
        self._dice = np.random.default_rng([setup.seed, 1])
        self._starting: list[float] = []  # a heap of the times at which replicas will serve
        self._failures = sorted(setup.failures)
        self.aborted = 0
        self.failed = 0
        self.target = setup.initial
        self.replica_s = 0.0
        for _ in range(setup.initial):
            self._begin()

    # time
    def run_to(self, t: float) -> None:
        """Run all events up to second t."""
        while True:
            moment = min(self.next_change, t)
            advance(self.machine(), moment)
            self.passed(moment)
            if not self.change(moment) and moment >= t:
                return

    @property
    def next_change(self) -> float:
        """Second of the next start or failure of a replica; inf if there is none."""
        return min(self._starting[0] if self._starting else np.inf, self._next_failure())

    def passed(self, t: float) -> None:
        """Set the time to second t, up to which the engine has run."""
        self.replica_s += self.ready * (t - self.now)
        self.now = t

    def change(self, t: float) -> bool:
        """Apply one due start or failure of replicas; return whether there was one."""
        if self._starting and self._starting[0] <= t:
            heapq.heappop(self._starting)
            self._begin()
        elif self._next_failure() <= t:
            self._fail(self._failures.pop(0)[1])
        else:
            return False
        return True

    def machine(self) -> g.Machine:
        """Return the arrays of the engine."""
        return g.Machine(
            self.requests, self._rows, self._numbers, self._sums, self._heap, self._place, self._goals, self._profile
        )

    def _next_failure(self) -> float:
        return self._failures[0][0] if self._failures else np.inf

    # replicas
    @property
    def ready(self) -> int:
        """Ready replicas."""
        return int(self._numbers[g.READY])

    @property
    def starting(self) -> int:
        """Starting replicas."""
        return len(self._starting)

    @property
    def draining(self) -> int:
        """Draining replicas."""
        return int(np.count_nonzero(self._rows.state[: self._numbers[g.ROWS]] == g.DRAINS))

    @property
    def held(self) -> int:
        """Replicas that hold an accelerator."""
        return self.ready + self.starting + self.draining

    @property
    def unfinished(self) -> int:
        """Requests in the system."""
        return int(self._numbers[g.IN_SYSTEM])

    def scale(self, target: int) -> None:
        """Set the target: start missing replicas; remove surplus ones, starting ones first, then the least loaded."""
        self.target = min(max(target, self.pool.min_replicas), self.pool.max_replicas)
        have = self.ready + self.starting
        for _ in range(self.target - have):
            heapq.heappush(self._starting, self.now + self._startup())
        surplus = have - self.target
        if surplus > 0 and self._starting:
            self._starting.sort()
            drop = min(surplus, len(self._starting))
            del self._starting[len(self._starting) - drop :]
            surplus -= drop
        for _ in range(surplus):
            self._end_one()

    def _startup(self) -> float:
        spread = self.setup.startup_spread
        if spread <= 0.0 or self.pool.startup_s <= 0.0:
            return self.pool.startup_s
        shape = 1.0 / (spread * spread)
        return float(self._dice.gamma(shape, self.pool.startup_s / shape))

    def _begin(self) -> None:
        free = np.flatnonzero(self._rows.state == g.NONE)
        if free.size == 0:
            self._widen()
            free = np.flatnonzero(self._rows.state == g.NONE)
        row, numbers = int(free[0]), self._numbers
        self._rows.state[row] = g.TAKES
        numbers[g.ROWS] = max(numbers[g.ROWS], row + 1)
        numbers[g.READY] += 1
        numbers[g.FREE] += self.pool.slots
        begin(self.machine(), row, self.now)

    def _widen(self) -> None:
        count = 2 * self._rows.state.size
        self._rows = g.wider(self._rows, count)
        self._heap = np.concatenate([self._heap, np.zeros(count + 2 - self._heap.size, dtype=np.int64)])
        self._place = np.concatenate([self._place, np.zeros(count + 1 - self._place.size, dtype=np.int64)])

    def _least_loaded(self) -> int:
        rows = self._rows
        return int(np.argmin(np.where(rows.state == g.TAKES, rows.have, np.iinfo(np.int64).max)))

    def _stop_taking(self, row: int, state: int) -> None:
        rows, numbers = self._rows, self._numbers
        numbers[g.READY] -= 1
        numbers[g.FREE] -= max(0, self.pool.slots - int(rows.have[row]))
        rows.state[row] = state if rows.have[row] else g.NONE

    def _end_one(self) -> None:
        row = self._least_loaded()
        self._stop_taking(row, g.DRAINS)
        if not self.setup.drain:
            self.aborted += len(self._empty(row))

    def _fail(self, count: int) -> None:
        """Fail replicas: others are started in their place, and their requests are retried."""
        again: list[int] = []
        for _ in range(min(count, self.ready)):
            row = self._least_loaded()
            self._stop_taking(row, g.DRAINS)
            self.failed += 1
            again += self._empty(row)
            heapq.heappush(self._starting, self.now + self._startup())
        self._send_again(again)

    def _send_again(self, again: list[int]) -> None:
        """Route requests to replicas with free slots; the rest goes to the head of the queue."""
        numbers = self._numbers
        numbers[g.IN_SYSTEM] += len(again)
        while again and numbers[g.READY] and numbers[g.FREE] > 0:
            join(self.machine(), self._least_loaded(), again.pop(0), self.now)
        for one in reversed(again):
            self.requests.behind[one] = numbers[g.HEAD] if numbers[g.QUEUED] else -1
            numbers[g.TAIL] = numbers[g.TAIL] if numbers[g.QUEUED] else one
            numbers[g.HEAD] = one
            numbers[g.QUEUED] += 1

    def _empty(self, row: int) -> list[int]:
        """Remove and return all requests of a failed replica."""
        rows, numbers = self._rows, self._numbers
        inside = [int(one) for one in rows.request[row, : rows.batch[row]]]
        numbers[g.RUNNING] -= len(inside)
        one = int(rows.head[row])
        while one >= 0:
            inside.append(one)
            one = int(self.requests.behind[one])
        numbers[g.IN_SYSTEM] -= len(inside)
        for name in ("have", "batch", "fresh", "stretch"):
            getattr(rows, name)[row] = 0
        rows.head[row], rows.context[row], rows.due[row], rows.state[row] = -1, 0.0, np.inf, g.NONE
        if self._place[row]:
            g.heap_fix(self._heap, self._place, rows.due, row)
        return inside

    # what is seen
    def snapshot(self) -> Snapshot:
        """Return the metrics for a policy."""
        rows, numbers, sums = self._rows, self._numbers, self._sums
        takes = rows.state[: numbers[g.ROWS]] == g.TAKES
        in_batch = rows.batch[: numbers[g.ROWS]][takes].astype(np.float64)
        have = rows.have[: numbers[g.ROWS]][takes].astype(np.float64)
        return Snapshot(
            t=self.now,
            target=self.target,
            ready=self.ready,
            starting=self.starting,
            draining=self.draining,
            queued=float(numbers[g.IN_SYSTEM] - numbers[g.RUNNING]),
            running=float(numbers[g.RUNNING]),
            in_batch=in_batch,
            waiting=have - in_batch,
            arrivals=float(sums[g.ARRIVED]),
            completions=float(sums[g.DONE]),
            late=float(sums[g.LATE]),
            first_tokens=float(sums[g.FIRSTS]),
            ttft_sum_s=float(sums[g.TTFT]),
            itl_sum_s=float(sums[g.ITL]),
            response_sum_s=float(sums[g.RESPONSE]),
            service_sum_s=float(sums[g.SERVICE]),
            service_sq_sum_s2=float(sums[g.SERVICE_SQ]),
            input_tokens=float(sums[g.IN_TOKENS]),
            output_tokens=float(sums[g.OUT_TOKENS]),
            in_system_s=float(sums[g.IN_SYSTEM_S]),
            running_s=float(sums[g.RUNNING_S]),
            replica_s=self.replica_s,
        )
