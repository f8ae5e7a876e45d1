"""Lower bound of the GPU-hours of any scaling rule that meets the goal: a relaxed pool, by dynamic programming.

Time is in bins of dt seconds. The state of the relaxed pool is the whole number of replicas that serve or drain, and
the work that is unfinished, in seconds of a full replica: a step credits each of its members with its own tokens and
with 1 / slots of the fixed cost of the step (`phases`), so n replicas do at most n dt of work in a bin. The
relaxed pool is easier than the simulated one:

* Work is fluid and done at full speed. Work from before the evaluated part costs nothing; any number of replicas is
  ready at its begin. After its end nothing is paid.
* A replica that serves from second b of the evaluated part on is paid from b - startup_s on. With b < startup_s it is
  paid from second 0 on, and may as well serve from there: all others start later, for startup_s.
* A replica that serves in a part of a bin may serve in all of it. The up to dt seconds at either end for which it is
  not paid are given back: a start costs startup_s - dt, and a stop gives dt.
* A request that arrived longer ago than the target for the first token and meets it has had its prefill and is in a
  slot. So the unfinished work of all those is at most that of the slots x n requests with most of it.

Two relaxations of the requests that miss; the higher bound of both counts:

* *Dropped*, for rules of any gateway: their work vanishes, whatever the order in which requests are served. Requests
  that meet the target have been decoding since, so that little of their work can be left (`slots.py`).
* *Late*, for the gateway of the simulator, one queue in order of arrival without drops: those that wait are the last
  that arrived. With more unfinished work than slots hold (prefills counted), so much of the work that now becomes
  late is missed. No request is done sooner than alone on a replica, so some work is always unfinished.

The work that misses is at most that of the heaviest 1% of the requests. That limit has a price (Lagrange's multiplier):
every price gives a bound. So does counting only the first tokens of each response up to a limit: less work, but less in
slots.

A rule may be below the work that arrives by the work that it leaves unfinished at the end. A second bound includes
that: it bounds the replica-seconds of a rule plus the seconds of work that it left. Dropped work that the
relaxed pool still holds at the end counts with the price of dropping it, if that is less.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from bench.autoscaling.measure import GOAL
from bench.autoscaling.slots import most_in_slots
from tierserve.simulate.engine.jit import jit
from tierserve.simulate.types import Floats, Ints, Pool, Workload

UNITS = 1
"""Units of work that a replica does in a bin: with more of them the bounds grow by a hundredth at most."""
MOST = 3000
"""Most unfinished units; more count as so many."""
TAILS = (1.0, 0.99, 0.95, 0.9, 0.8, 0.6, 0.4)
"""Quantiles of the answers' lengths up to which their tokens are counted."""
PRICES = tuple(2.0 ** (k / 2.0) for k in range(-6, 15))


@dataclass(frozen=True)
class Relaxation:
    """An evaluated part in bins, for the relaxed pool; work in units, of which a replica does `UNITS` in a bin.

    Attributes:
        dt_s: seconds of a bin; a unit is `dt_s / UNITS` seconds of a full replica.
        arrive: units that arrive in each bin, shape (bins,).
        least: units that are unfinished at the end of a bin at least, shape (bins,).
        caps: units that may be unfinished then, shape (bins, counts): with `min_replicas` replicas and upwards.
        late: seconds of work that become late at the end of each bin, shape (bins,).
        drops: whether work over the cap vanishes for its price; else the price is paid for work that becomes late.
        floor: fewest replicas. The last count stands for all above it too: it finishes all work, and is never late.
        startup_s: seconds that a start is paid for.
        works_s: seconds of work of each request, the heaviest first, shape (n,).
    """

    dt_s: float
    arrive: Ints
    least: Ints
    caps: Ints
    late: Floats
    drops: bool
    min_replicas: int
    startup_s: float
    works_s: Floats

    def __post_init__(self) -> None:
        if self.startup_s < 2.0 * self.dt_s:
            raise ValueError(f"startup_s {self.startup_s:g} is under two bins of {self.dt_s:g} s: give a smaller dt_s")

    def missable_s(self, share: float) -> float:
        """Seconds of work that may miss where this share of the requests must meet the target."""
        count = self.works_s.size
        return float(self.works_s[: count - math.ceil(share * count - 1e-6)].sum())


def phases(pool: Pool, i: Floats, o: Floats) -> tuple[Floats, Floats]:
    """Seconds of a full replica that prefill and decode of requests of i input and o output tokens take, shape (n,)."""
    step, fixed = pool.profile, pool.profile.alpha / pool.slots
    return fixed + (step.beta + step.gamma) * i, o * (fixed + step.beta) + step.gamma * o * (i + (o - 1.0) / 2.0)


def relaxation(work: Workload, pool: Pool, begin_s: float, dt_s: float, drops: bool, tail: float) -> Relaxation:
    """Relax the part from `begin_s` on.

    Args:
        work, pool: requests and the pool that serves them.
        begin_s: begin of the evaluated part.
        dt_s: seconds of a bin, at most half a start-up time.
        drops: which relaxation, see above.
        tail: tokens of an answer that are counted.
    """
    mine = work.times_s >= begin_s
    times, i = work.times_s[mine] - begin_s, work.input_tokens[mine].astype(float)
    o = np.minimum(work.output_tokens[mine].astype(float), tail)
    first, rest = phases(pool, i, o)
    bins, unit = int((work.length_s - begin_s) / dt_s), dt_s / UNITS
    came = np.concatenate([[0.0], np.cumsum(first + rest)])[np.searchsorted(times, dt_s * np.arange(bins + 1))]
    units: Ints = np.floor(came / unit).astype(np.int64)
    lag = math.ceil(pool.objective.ttft_s / dt_s)
    old = np.concatenate([np.zeros(lag), came])[: bins + 1]  # of it, work that arrived longer ago than the target
    window = min(max(lag, 1), bins)
    peak = float((came[window:] - came[:-window]).max()) / (window * dt_s)
    counts = np.arange(pool.min_replicas, max(math.ceil(1.2 * peak), pool.min_replicas) + 3)
    alone = np.zeros(bins + 1)
    if drops:
        inside = most_in_slots(times, i, o, rest, pool, dt_s, lag, bins, counts)
    else:
        held = np.concatenate([[0.0], np.cumsum(np.sort(first + rest)[::-1])])
        inside = np.tile(held[np.minimum(counts * pool.slots, held.size - 1)], (bins, 1))
        _alone(
            times, i, o, first, rest, pool.profile.alpha, pool.profile.beta, pool.profile.gamma, pool.slots, dt_s, alone
        )
    # cumulative arrivals are cut into units, so unfinished work is at most one unit too much
    caps = np.ceil(((came - old)[1:, None] + inside) / unit).astype(np.int64) + 1
    return Relaxation(
        dt_s=dt_s,
        arrive=np.diff(units),
        least=np.floor(alone[1:] / unit).astype(np.int64),
        caps=caps,
        late=np.diff(old),
        drops=drops,
        min_replicas=pool.min_replicas,
        startup_s=pool.startup_s,
        works_s=np.sort(first + rest)[::-1],
    )


@jit
def _alone(
    times: Floats, i: Floats, o: Floats, first: Floats, rest: Floats, alpha: float, beta: float, gamma: float,
    slots: int, dt: float, left: Floats,
) -> None:  # fmt: skip
    """Add up the unfinished work at the begin of each bin if each request is alone from its arrival on."""
    fixed = alpha / slots + beta
    for j in range(times.size):
        prefill_s = alpha + (beta + gamma) * i[j]
        step_s = alpha + beta + gamma * i[j]  # its shortest
        k = math.ceil(times[j] / dt)
        while k < left.size:
            age = k * dt - times[j]
            if age < prefill_s:
                left[k] += first[j] * (1.0 - age / prefill_s) + rest[j]
            else:
                m = math.ceil((age - prefill_s) / step_s)
                if m >= o[j]:
                    break
                left[k] += rest[j] - m * fixed - gamma * m * (i[j] + (m - 1.0) / 2.0)
            k += 1


def least_seconds(r: Relaxation, price: float, finishes: bool = False) -> float:
    """Fewest replica-seconds, plus `price` for each second of work that misses, of all schedules.

    With `finishes` plus the seconds of work that are unfinished at the end.
    """
    owed = (min(price, 1.0) if r.drops else 1.0) if finishes else 0.0
    most = min(int(r.caps.max()) + int(r.arrive.max()), MOST)
    first_up, up_s = int(r.startup_s / r.dt_s), r.startup_s - r.dt_s
    return _solve(r.arrive, r.least, r.caps, r.late, r.drops, r.min_replicas, r.dt_s, up_s, first_up, price, owed, most)


@jit
def _solve(
    arrive: Ints, least: Ints, caps: Ints, late: Floats, drops: bool, min_replicas: int, dt: float, up: float,
    first_up: int, price: float, owed: float, most: int,
) -> float:  # fmt: skip
    """Backward induction from the last bin. More than `most` units count as `most`, in favour of the rule."""
    bins, counts = caps.shape
    value, after = np.zeros((counts, most + 1)), np.zeros((counts, most + 1))
    for b in range(most + 1):
        after[:, b] = owed * max(b - 1, 0) * (dt / UNITS)  # one unit may be too much, as with the caps
    for k in range(bins - 1, -1, -1):
        for c in range(counts):
            cap = caps[k, c]
            for b in range(most + 1):
                left = max(b + arrive[k] - (min_replicas + c) * UNITS, least[k])
                if c == counts - 1:
                    left = min(least[k], cap)
                cost = (min_replicas + c) * dt
                if left > cap and drops:
                    cost += price * (left - cap) * (dt / UNITS)
                    left = cap
                elif left > cap:
                    cost += price * min((left - cap) * (dt / UNITS), late[k])
                value[c, b] = cost + after[c, min(left, most)]
        if k > 0:
            _change_replicas(value, after, dt, up, k >= first_up)
    return float(value[:, 0].min())


@jit
def _change_replicas(value: Floats, after: Floats, dt: float, up: float, may_start: bool) -> None:
    """From the value of a bin by its own replicas, compute that by the replicas of the bin before it."""
    counts, size = value.shape
    for b in range(size):
        after[0, b] = value[0, b]
    for c in range(1, counts):
        for b in range(size):
            after[c, b] = min(value[c, b], after[c - 1, b] - dt)
    if may_start:
        for c in range(counts - 2, -1, -1):
            for b in range(size):
                after[c, b] = min(after[c, b], after[c + 1, b] + up)


def highest_seconds(r: Relaxation, share: float = GOAL, finishes: bool = False) -> float:
    """Return the bound in replica-seconds at the best price: the bound is concave in it, so it climbs, then falls."""
    limit = r.missable_s(share)
    return _climbed(lambda price: least_seconds(r, price, finishes) - price * limit, PRICES)


def _climbed(value: Callable[[float], float], steps: Iterable[float]) -> float:
    """Return the highest value before the first that is lower: any of them is a bound, so to stop early is no error."""
    best = 0.0
    for step in steps:
        found = value(step)
        if found < best:
            break
        best = found
    return best


def least_hours_of_any(
    work: Workload, pool: Pool, begin_s: float, share: float = GOAL, finishes: bool = False
) -> float:
    """GPU-hours from `begin_s` on that any rule takes with `share` of the requests that come then within the target.

    With `finishes` the bound includes the work that is left at the end of the trace, done by full replicas.

    For the token model with a target of the first token. Replicas start in `pool.startup_s` and do not fail, and those
    that serve at the begin of the run are `pool.min_replicas` at least (fewer never do: of surplus replicas those that
    start are removed first).
    """
    dt_s = 1.0 if work.length_s - begin_s < 20_000.0 else 2.5
    lengths = work.output_tokens[work.times_s >= begin_s]
    tails = [float(np.quantile(lengths, q)) for q in TAILS]

    def bound(drops: bool) -> float:
        def at(tail: float) -> float:
            return highest_seconds(relaxation(work, pool, begin_s, dt_s, drops, tail), share, finishes)

        return _climbed(at, tails)

    return pool.gpus * max(bound(True), bound(False)) / 3600.0
