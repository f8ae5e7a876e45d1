"""Small Markov chains solved exactly: the reference of the queueing formulas, in bench and tests.

Nothing here comes from `tierserve`. A chain is a function from a state to the states that follow and their rates; all
states that can be reached are found, and pi Q = 0 is solved as one sparse system. Queues without a bound are cut where
what lies beyond has a chance below `NEGLIGIBLE`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import spsolve
from scipy.stats import poisson

State = tuple[int, ...]
Moves = Iterable[tuple[State, float]]
Floats = NDArray[np.float64]

NEGLIGIBLE = 1e-9
_BALANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of accepted requests; seconds. `p_loss`: share of the arrivals that are rejected."""

    p_wait: float
    mean_wait: float
    mean_service: float
    p_loss: float = 0.0

    @property
    def mean_response(self) -> float:
        return self.mean_wait + self.mean_service


def stationary(start: State, moves: Callable[[State], Moves]) -> dict[State, float]:
    """Return the probability of every state reachable from `start`. The chain must be able to return to `start`."""
    number: dict[State, int] = {start: 0}
    states, rows, columns, rates = [start], [], [], []
    for state in states:  # it grows meanwhile
        for to, rate in moves(state):
            if to not in number:
                number[to] = len(states)
                states.append(to)
            rows += [number[to], number[state]]
            columns += [number[state], number[state]]
            rates += [rate, -rate]
    flow = coo_matrix((rates, (rows, columns)), shape=(len(states), len(states))).tocsc()
    chance = np.ones(len(states))
    if len(states) > 1:
        chance[1:] = spsolve(flow[1:, 1:], -flow[1:, 0].toarray().ravel())
    chance /= chance.sum()
    unbalanced = float(np.abs(flow @ chance).max() / np.abs(rates).max())
    if unbalanced > _BALANCE or chance.min() < -_BALANCE:
        raise ArithmeticError(f"the chain was not solved: flows differ by {unbalanced:.1e}, least {chance.min():.1e}")
    return dict(zip(states, chance.tolist(), strict=True))


def room_for(load: float, least: int = 10) -> int:
    """Queue length beyond which the probability is negligible, where it decreases by `load` with each request."""
    return least + math.ceil(math.log(NEGLIGIBLE) / math.log(load))


# replicas with batches


def pool(lam: float, rates: Sequence[float], replicas: int, router: str, room: int) -> Figures:
    """Return the figures of like replicas that finish rates[j - 1] requests a second with j in the batch.

    A state is how full each replica is, in order of fullness, and with the router `central` how many wait in the one
    queue. `shortest`: a queue at each, the arrival joins where the fewest are; `two-choices`: the shorter of two
    different ones; `random`: any. At most `room` wait in all (`central`, `shortest`) or at each of the others.
    """
    slots, empty = len(rates), (0,) * replicas
    choices = {"central": replicas, "shortest": replicas, "two-choices": min(2, replicas), "random": 1}[router]
    odds = [math.comb(replicas - k - 1, choices - 1) / math.comb(replicas, choices) for k in range(replicas)]
    central = router == "central"
    each = slots if central else slots + room

    def full(have: State, queue: int) -> bool:
        if central:
            return queue >= room and have[0] >= slots
        return router == "shortest" and sum(have) >= replicas * slots + room

    def moves(state: State) -> Moves:
        have, queue = (state[:-1], state[-1]) if central else (state, 0)
        if central and have[0] >= slots and queue < room:
            yield (*have, queue + 1), lam
        elif not full(have, queue):
            for at, chance in enumerate(odds):
                if chance and have[at] < each:
                    yield _changed(have, at, 1, queue, central), lam * chance
        for at, n in enumerate(have):
            if n and queue:
                yield (*have, queue - 1), rates[n - 1]
            elif n:
                yield _changed(have, at, -1, queue, central), rates[min(n, slots) - 1]

    chances = stationary((*empty, 0) if central else empty, moves)
    lost = waits = queued = served = 0.0
    for state, chance in chances.items():
        have, queue = (state[:-1], state[-1]) if central else (state, 0)
        queued += chance * (queue + sum(max(n - slots, 0) for n in have))
        served += chance * sum(min(n, slots) for n in have)
        if full(have, queue):
            lost += chance
        else:
            lost += chance * sum(p for p, n in zip(odds, have, strict=True) if n >= each and not central)
            waits += chance * sum(
                p for p, n in zip(odds, have, strict=True) if slots <= n < each or (central and n >= slots)
            )
    taken = lam * (1.0 - lost)
    return Figures(waits / (1.0 - lost), queued / taken, served / taken, lost)


def _changed(have: State, at: int, by: int, queue: int, central: bool) -> State:
    now = sorted((*have[:at], have[at] + by, *have[at + 1 :]))
    return (*now, queue) if central else tuple(now)


# one queue, arrivals and services in phases


@dataclass(frozen=True, slots=True)
class Arrivals:
    """A Markovian arrival process: in phase i, `comes[i][j]` arrivals a second after which the phase is j, and
    `turns[i][j]` changes of phase a second without one (i other than j)."""

    comes: Sequence[Sequence[float]]
    turns: Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True)
class Service:
    """Phases: probability of the first; rate at which each is left; probability of the next one, else the end."""

    first: Sequence[float]
    rate: Sequence[float]
    then: Sequence[Sequence[float]]


def poisson_arrivals(lam: float) -> Arrivals:
    return Arrivals([[lam]], [[0.0]])


def two_rates(low: float, high: float, low_s: float, high_s: float) -> Arrivals:
    """Poisson with two rates that alternate after exponential times (MMPP)."""
    return Arrivals([[low, 0.0], [0.0, high]], [[0.0, 1.0 / low_s], [1.0 / high_s, 0.0]])


def renewals(lam: float, ca2: float) -> Arrivals:
    """Gaps of two exponentials with balanced means (H2), of squared coefficient of variation `ca2` > 1."""
    p, rates = balanced(ca2)
    odds = (p, 1.0 - p)
    return Arrivals([[lam * rate * q for q in odds] for rate in rates], [[0.0, 0.0], [0.0, 0.0]])


def balanced(cv2: float) -> tuple[float, tuple[float, float]]:
    """Probability of the first and rates of both exponentials, of mean 1 and cv2 > 1, each with half of the mean."""
    p = 0.5 * (1.0 + math.sqrt((cv2 - 1.0) / (cv2 + 1.0)))
    return p, (2.0 * p, 2.0 * (1.0 - p))


def service_of(cs2: float) -> Service:
    """Mean 1: exponential, two exponentials (cs2 > 1), or 1 / cs2 like phases one after the other (cs2 < 1)."""
    if cs2 > 1.0:
        p, rates = balanced(cs2)
        return Service((p, 1.0 - p), rates, ((0.0, 0.0), (0.0, 0.0)))
    phases = round(1.0 / cs2)
    then = tuple(tuple(float(j == i + 1) for j in range(phases)) for i in range(phases))
    return Service((1.0, *[0.0] * (phases - 1)), (float(phases),) * phases, then)


def queue_of(arrivals: Arrivals, service: Service, c: int, room: int) -> Figures:
    """Return the figures of c servers and one queue of at most `room`.

    A state is the phase of the arrivals, how many servers are in each phase, and how many wait.
    """
    phases, kinds = range(len(arrivals.comes)), range(len(service.rate))

    def started(busy: State) -> Moves:
        return (((*busy[:k], busy[k] + 1, *busy[k + 1 :]), service.first[k]) for k in kinds if service.first[k])

    def ended(busy: State, k: int) -> State:
        return (*busy[:k], busy[k] - 1, *busy[k + 1 :])

    def moves(state: State) -> Moves:
        phase, busy, queue = state[0], state[1:-1], state[-1]
        for to in phases:
            if arrivals.turns[phase][to]:
                yield (to, *busy, queue), arrivals.turns[phase][to]
            rate = arrivals.comes[phase][to]
            if rate and sum(busy) < c:
                for now, chance in started(busy):
                    yield (to, *now, queue), rate * chance
            elif rate and (queue < room or to != phase):
                yield (to, *busy, min(queue + 1, room)), rate
        for k in kinds:
            if not busy[k]:
                continue
            rest, rate = ended(busy, k), busy[k] * service.rate[k]
            for to in kinds:
                if service.then[k][to]:
                    yield (phase, *rest[:to], rest[to] + 1, *rest[to + 1 :], queue), rate * service.then[k][to]
            leave = rate * (1.0 - sum(service.then[k]))
            if leave and queue:
                for now, chance in started(rest):
                    yield (phase, *now, queue - 1), leave * chance
            elif leave:
                yield (phase, *rest, 0), leave

    comes = lost = waits = queued = served = 0.0
    for state, chance in stationary((0, *[0] * len(service.rate), 0), moves).items():
        rate, busy, queue = sum(arrivals.comes[state[0]]), sum(state[1:-1]), state[-1]
        comes += chance * rate
        lost += chance * rate * (busy >= c and queue >= room)
        waits += chance * rate * (busy >= c and queue < room)
        queued += chance * queue
        served += chance * busy
    taken = comes - lost
    return Figures(waits / taken, queued / taken, served / taken, lost / comes)


def constant_service(lam: float, c: int) -> Figures:
    """Return the figures of M/D/c with service of 1 s (Crommelin, 1932), lam < c.

    Those in service now are all gone in 1 s and no other that is there now: X(t + 1) = max(X(t) - c, 0) + Poisson(lam).
    """
    size = c + int(12.0 * math.sqrt(c)) + room_for((lam / c) ** 2)
    come = poisson.pmf(np.arange(size), lam)
    step = np.zeros((size, size))
    for k in range(size):
        left = max(k - c, 0)
        step[k, left:] = come[: size - left]
    step[:, -1] += 1.0 - step.sum(axis=1)
    equations = np.vstack([step.T - np.eye(size), np.ones(size)])
    chance = np.linalg.lstsq(equations, np.append(np.zeros(size), 1.0), rcond=None)[0]
    many = np.arange(size)
    return Figures(float(chance[c:].sum()), float(chance @ np.maximum(many - c, 0)) / lam, 1.0)


# a closed population


def repairmen(n: int, think_s: float, c: int, mu: float) -> Figures:
    """Return the figures of n users that think for exponential times of mean think_s and share c servers.

    A state is how many ask. The throughput is n / (think_s + mean_response).
    """

    def moves(state: State) -> Moves:
        (k,) = state
        if k < n:
            yield (k + 1,), (n - k) / think_s
        if k:
            yield (k - 1,), min(k, c) * mu

    ask = waits = queued = served = 0.0
    for (k,), chance in stationary((0,), moves).items():
        ask += chance * (n - k) / think_s
        waits += chance * (n - k) / think_s * (k >= c)
        queued += chance * max(k - c, 0)
        served += chance * min(k, c)
    return Figures(waits / ask, queued / ask, served / ask)
