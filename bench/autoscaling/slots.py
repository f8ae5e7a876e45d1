"""Upper bound of the work in the slots of a pool of requests that have met the target for the first token.

A request j that meets the target has its first token at c_j = t_j + target at the latest, and is in a slot from then on
until its answer is done. Its replica makes one step after the other, and each gives j a token. How many there are by
second K is bounded from below: a step is at most as long as

    d = alpha + beta slots + gamma (the largest contexts that `slots` requests can have then)

but for the prefills in it, whose tokens cost beta each. A request l whose prefill delays j after c_j gets its own
first token later than c_j; if it meets the target, it arrived later than j. So j is delayed by at most the prefills
P of all that arrived since, wherever they are served, and j has `rest - rho (K - c_j - P) / d` of its decode work left
at most, with rho what its shortest step does for it. No order of the queue is assumed.

Requests that miss may delay j in other ways, with their prefills and contexts, and so may those that are delayed by
them. The time they take is lost to the pool, which compensates. To see that, count of j the less of two amounts: its
true work left, and the same bound with the true prefills of those that meet the target, `rest - rho (time without
them) / d`; it starts at c_j as the larger one and never grows. Of those that miss, count nothing. Say a step takes
T = T0 + q + u seconds: q for prefills of those that meet the target, u for prefills of those that miss and for contexts
of those that count for nothing (any more), T0 for the rest, which is at most d. Those of whom the true work is counted
lose a + q in it, those of whom the bound is counted lose at most b (T - q) / d <= b + b u / T0, with a and b the shares
of both in T0, a + b <= T0. Together that is at most T: what is counted falls by a second per replica and second, as if
no request missed, and it is never above the bounds.

What d needs, the contexts of those for whom something is counted, follows from the bounds themselves: from the d that
all contexts of the day give, then again from the result.
"""

from __future__ import annotations

import numpy as np

from tierserve.simulate.engine.jit import jit
from tierserve.simulate.types import Floats, Ints, Pool

ROUNDS = 3
"""Iterations of d from the bounds of the last one: more make no visible difference."""
HELD = 20_000
"""Requests that may have work left: where prefills arrive faster than one replica does them, no request is ever certain
to be done, and with more than so many the bound is that of the heaviest requests of the day, all just begun."""


def most_in_slots(
    times: Floats, i: Floats, o: Floats, rest: Floats, pool: Pool, dt: float, lag: int, bins: int, counts: Ints
) -> Floats:
    """Return seconds of work in slots at the end of each bin, with each count of replicas, shape (bins, counts).

    Args:
        times, i, o: requests in order of arrival; tokens that are counted.
        rest: seconds of decode work of each.
        pool: slots and step times.
        dt: seconds of a bin.
        lag: bins that are the target or more; counted are the requests that came longer ago.
        bins: how many.
        counts: replicas, from few to many.
    """
    step, base = pool.profile, pool.profile.alpha + pool.profile.beta * pool.slots
    prefill = np.concatenate([[0.0], np.cumsum(step.beta * i)])
    before = prefill[np.searchsorted(times, times, side="right")]  # of those that arrived no later than each
    rho = step.alpha / pool.slots + step.beta + step.gamma * i
    longest = np.full(bins, base + step.gamma * float(np.sort(i + o)[-pool.slots :].sum()))
    inside: Floats = np.tile(_largest(rest, rest.size)[np.minimum(counts * pool.slots, rest.size)], (bins, 1))
    for _ in range(ROUNDS):
        found, held = np.zeros(bins), np.zeros((bins, counts.size))
        few = _held(
            times, rest, rho, i + o, prefill, before, longest, dt, lag, pool.slots, counts, base, step.gamma, held,
            found, HELD,
        )  # fmt: skip
        if not few:
            break
        inside = held
        longest = np.minimum(found, longest)
    return inside


@jit
def _held(
    times: Floats, rest: Floats, rho: Floats, context: Floats, prefill: Floats, before: Floats, longest: Floats,
    dt: float, lag: int, slots: int, counts: Ints, base: float, gamma: float, inside: Floats, found: Floats,
    most: int,
) -> bool:  # fmt: skip
    """Fill in the work in slots, and the longest step in each bin, from the `longest` steps known before.

    Stop and return False where more than `most` may have work left.
    """
    some, slow, left = np.zeros(times.size, np.int64), np.zeros(times.size), np.zeros(times.size)
    held = old = came = 0
    for k in range(1, found.size + 1):
        while old < times.size and times[old] < (k - lag) * dt:
            some[held], slow[held] = old, 0.0
            held += 1
            old += 1
        while came < times.size and times[came] < k * dt:
            came += 1
        # requests that count at any time of the bin: not yet old at its end, or not done at its begin
        near = np.concatenate((context[some[:held]], context[old:came]))
        found[k - 1] = base + gamma * _largest(near, slots)[-1]
        stay = 0
        for at in range(held):
            j = some[at]
            d = max(slow[at], longest[k - 1])
            elapsed = k * dt - (times[j] + lag * dt) - (prefill[came] - before[j])
            work = rest[j] - rho[j] * max(elapsed, 0.0) / d
            if work > 0.0:  # else never again: what is counted does not grow
                some[stay], slow[stay], left[stay] = j, d, work
                stay += 1
        held = stay
        if held > most:
            return False
        sums = _largest(left[:held], slots * counts[-1])
        for c in range(counts.size):
            inside[k - 1, c] = sums[min(slots * counts[c], sums.size - 1)]
    return True


@jit
def _largest(values: Floats, most: int) -> Floats:
    """Sums of the 0, 1, ... `most` largest values (of all, where there are fewer)."""
    if values.size > most:
        values = np.partition(values, values.size - most)[values.size - most :]
    ordered = np.sort(values)[::-1]
    sums = np.zeros(ordered.size + 1)
    for k in range(sums.size - 1):
        sums[k + 1] = sums[k] + ordered[k]
    return sums
