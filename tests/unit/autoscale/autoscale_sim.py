"""A discrete-event pool of replicas with slots behind one queue, driven by the real decision. Times in seconds."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tierserve.autoscale.decide import Decision, GatewaySample, Observation, ReplicaSample, Settings, State, decide

Service = Callable[[random.Random], float]


def constant(mean: float) -> Service:
    return lambda _: mean


def exponential(mean: float) -> Service:
    return lambda r: r.expovariate(1.0 / mean)


def lognormal(mean: float, cv: float) -> Service:
    import math

    s2 = math.log1p(cv * cv)
    return lambda r: mean * math.exp(r.gauss(0.0, math.sqrt(s2)) - s2 / 2.0)


@dataclass
class Replica:
    name: str
    slots: int
    born: float
    startup_s: float
    phase: float
    busy: int = 0
    alive: bool = True
    draining: bool = False
    counters: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("arrivals", "completions", "service_s", "service_sq_s2", "wait"), 0.0)
    )
    sample: ReplicaSample | None = None


@dataclass
class Row:
    t: float
    decision: Decision
    target: int
    running: int
    connections: int


@dataclass
class Result:
    rows: list[Row]
    responses: list[tuple[float, float]]  # (arrival time, response time)
    replica_seconds: float

    def targets(self, start: float, end: float = float("inf")) -> list[int]:
        return [r.target for r in self.rows if start <= r.t < end]

    def changes(self, start: float, end: float = float("inf")) -> int:
        t = self.targets(start, end)
        return sum(a != b for a, b in itertools.pairwise(t))

    def reversals(self, start: float, end: float = float("inf")) -> int:
        """Removals that a rise followed."""
        moves = [b > a for a, b in itertools.pairwise(self.targets(start, end)) if a != b]
        return sum(after and not before for before, after in itertools.pairwise(moves))

    def share_within(self, target_s: float, start: float = 0.0, end: float = float("inf")) -> float:
        seen = [x for t, x in self.responses if start <= t < end]
        return sum(x <= target_s for x in seen) / len(seen)


class Pool:
    """One run. `feed`: "gateway" (exact), "replicas" (each sampled every `sample_s`), "ray" (number in system only)."""

    def __init__(
        self,
        settings: Settings,
        service: Service,
        *,
        seed: int = 1,
        floor: int = 1,
        ceiling: int = 64,
        startup_s: float = 3.0,
        feed: str = "gateway",
        tick_s: float = 0.5,
        sample_s: float = 0.5,
        initial: int | None = None,
        one_by_one: bool = False,
        tweak: Callable[[Pool, Observation], Observation] | None = None,
    ) -> None:
        self.settings, self.service, self.random = settings, service, random.Random(seed)
        self.floor, self.ceiling, self.startup_s, self.feed = floor, ceiling, startup_s, feed
        self.tick_s, self.sample_s, self.tweak, self.one_by_one = tick_s, sample_s, tweak, one_by_one
        self.events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self.order = itertools.count()
        self.now = 1000.0
        self.names = itertools.count()
        self.replicas: list[Replica] = []
        self.starting = 0
        self.queue: deque[tuple[float, bool]] = deque()
        self.in_flight = 0
        self.offered = 0
        self.connections = 0
        self.wanted_connections = 0
        self.rate = 0.0
        self.rate_epoch = 0
        self.batch = 1
        self.target = initial if initial is not None else floor
        self.state = State()
        self.rows: list[Row] = []
        self.responses: list[tuple[float, float]] = []
        self.replica_seconds = 0.0
        for _ in range(self.target):
            self._ready()
        self._at(self.tick_s, self._tick)

    def _at(self, delay: float, call: Callable[..., None], *args: Any) -> None:
        heapq.heappush(self.events, (self.now + delay, next(self.order), call, args))

    # load
    def connect(self, n: int) -> None:
        """Set the number of connections of the closed loop (no think time)."""
        self.wanted_connections = n
        while self.connections < n:
            self.connections += 1
            self._arrive(True)

    def poisson(self, rate: float, batch: int = 1) -> None:
        """Set the arrival rate of the open stream, in groups of `batch`."""
        self.rate, self.batch = rate, batch
        self.rate_epoch += 1
        if rate > 0:
            self._at(self.random.expovariate(rate / batch), self._open, self.rate_epoch)

    def _open(self, epoch: int) -> None:
        if epoch != self.rate_epoch:
            return
        for _ in range(self.batch):
            self._arrive(False)
        self._at(self.random.expovariate(self.rate / self.batch), self._open, epoch)

    def _arrive(self, closed: bool) -> None:
        self.offered += 1
        self.queue.append((self.now, closed))
        self._serve()

    # service
    def _serve(self) -> None:
        while self.queue:
            free = [r for r in self.replicas if r.busy < r.slots and not r.draining]
            if not free:
                return
            replica = min(free, key=lambda r: r.busy)
            arrived, closed = self.queue.popleft()
            replica.busy += 1
            replica.counters["arrivals"] += 1
            replica.counters["wait"] += self.now - arrived
            self.in_flight += 1
            s = self.service(self.random)
            self._at(s, self._finish, replica, arrived, closed, s)

    def _finish(self, replica: Replica, arrived: float, closed: bool, s: float) -> None:
        self.in_flight -= 1
        if not replica.alive:  # it was killed: the gateway sends the request again
            self.queue.appendleft((arrived, closed))
            self._serve()
            return
        replica.busy -= 1
        replica.counters["completions"] += 1
        replica.counters["service_s"] += s
        replica.counters["service_sq_s2"] += s * s
        self.responses.append((arrived, self.now - arrived))
        if closed:
            if self.connections > self.wanted_connections:
                self.connections -= 1
            else:
                self._arrive(True)
        self._serve()

    # replicas
    def _ready(self) -> None:
        phase = self.random.random() * self.sample_s
        self.replicas.append(Replica(f"r{next(self.names)}", self.settings.slots, self.now, self.startup_s, phase))

    def _started(self) -> None:
        self.starting -= 1
        if len(self.live()) < self.target:
            self._ready()
            self._serve()

    def live(self) -> list[Replica]:
        return [r for r in self.replicas if not r.draining]

    def kill(self) -> None:
        """End one replica at once; its requests are sent again when they would have finished."""
        replica = self.live()[0]
        replica.alive, replica.draining = False, True
        self.starting += 1
        self._at(self.startup_s, self._started)

    def restart_counters(self) -> None:
        for r in self.replicas:
            r.counters = dict.fromkeys(r.counters, 0.0)

    def _scale(self) -> None:
        live = self.live()
        for _ in range(self.target - len(live) - self.starting):
            self.starting += 1
            before = self.starting if self.one_by_one else 1
            self._at(before * self.startup_s * self.random.uniform(0.9, 1.1), self._started)
        for replica in sorted(live, key=lambda r: r.busy)[: max(len(live) - self.target, 0)]:
            replica.draining = True

    # observation
    def _sample(self, r: Replica) -> ReplicaSample:
        if r.sample is None or self.now - r.sample.t >= self.sample_s:
            c = r.counters
            r.sample = ReplicaSample(
                self.now, c["arrivals"], c["completions"], c["service_s"], c["service_sq_s2"], c["wait"], r.busy,
                0.0, r.startup_s,
            )  # fmt: skip
        return r.sample

    def observe(self) -> Observation:
        live = self.live()
        samples = {r.name: self._sample(r) for r in live} if self.feed != "ray" else {}
        gateway = GatewaySample(
            self.now, self.offered, len(self.queue), self.in_flight, answered=0.0, late=0.0, bypassed=0.0
        )
        return Observation(
            self.now,
            len(live),
            self.target,
            self.floor,
            self.ceiling,
            samples,
            gateway if self.feed == "gateway" else None,
            ongoing=float(len(self.queue) + self.in_flight) if self.feed == "ray" else None,
        )

    def _tick(self) -> None:
        self.replica_seconds += self.tick_s * (len(self.live()) + self.starting)
        obs = self.observe()
        if self.tweak:
            obs = self.tweak(self, obs)
        decision, self.state = decide(obs, self.state, self.settings)
        self.target = max(self.floor, min(self.ceiling, decision.replicas))
        self.rows.append(Row(self.now - 1000.0, decision, self.target, obs.running, self.connections))
        self._scale()
        self._at(self.tick_s, self._tick)

    @property
    def clock(self) -> float:
        return self.now - 1000.0

    def run(self, until: float) -> Result:
        """Run on to `until` seconds after the start."""
        while self.events and self.events[0][0] <= 1000.0 + until:
            self.now, _, call, args = heapq.heappop(self.events)
            call(*args)
        self.now = 1000.0 + until
        return Result(self.rows, [(a - 1000.0, x) for a, x in self.responses], self.replica_seconds)


def steps(pool: Pool, numbers: list[int], seconds: float) -> Iterator[tuple[int, float, Result]]:
    """Drive the closed loop through numbers of connections, each for so many seconds."""
    for n in numbers:
        start = pool.clock
        pool.connect(n)
        yield n, start, pool.run(start + seconds)
