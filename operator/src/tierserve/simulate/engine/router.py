"""The gateway in front of several pools, compiled: which pool gets a request, and what its caches hold.

The rules are those of the rendered gateway (`render/haproxy/routing.py`) and of what it counts as offered: the first
tier with a free slot in the order of the class, its site with most of them; if all are full, the pool with the least
expected wait of those that the class may use. A slot that falls free while others wait is not free.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from tierserve.simulate.engine.cache import Lru, find, put
from tierserve.simulate.engine.events import advance, enter
from tierserve.simulate.engine.gateway import ARRIVED, FREE, IN_SYSTEM, IN_TOKENS, QUEUED, READY, Machine, clock
from tierserve.simulate.engine.jit import inlined, jit
from tierserve.simulate.types import Floats, Ints

DIRECT, WAITED, CACHED, REFUSED = range(4)
"""Outcome of a request: direct (a slot was free), waited, cached, or refused (no pool of its class had a replica, or
all queues were full)."""

COMING, STORED, MOST = range(3)
"""Indices of `Router.at`: next arrival; completed requests that the response cache has stored; maximum queue length."""


class Router(NamedTuple):
    """State of the gateway. Requests (n), pools (p) and classes (k); a request without a key has -1.

    Attributes:
        at: as `COMING`, `STORED` and `MOST` say.
        kind, order: class of each request (n); its tiers in order, then -1 (k, most of them + 1).
        tier, service_us: of each pool (p): its tier, and its mean service in microseconds.
        numbers, sums: counters of all pools, one row each.
        soon: time of the next event of each pool (p).
        came: requests admitted or queued by each pool (p).
        service: seconds of each request in each pool (p, n), or (p, 0): tokens say.
        pool, how: pool and outcome of each request (n).
        key, bytes, answers, ttl_s: of the answer cache: keys and sizes of answers (n), and how long one is good (1).
        prefix, shared, prefixes: of the caches of prompts' beginnings, one per pool: which, and its tokens (n).
    """

    at: Ints
    class_id: Ints
    order: Ints
    tier: Ints
    service_us: Ints
    numbers: Ints
    sums: Floats
    next_event: Floats
    arrived: Floats
    service: Floats
    pool: Ints
    outcome: Ints
    key: Ints
    bytes: Ints
    answers: Lru
    ttl_s: Floats
    prefix: Ints
    shared: Ints
    prefixes: Lru


@inlined
def of_pool(c: Lru, p: int) -> Lru:
    """One cache of several."""
    return Lru(c.older[p], c.newer[p], c.since[p], c.size[p], c.room[p])


@inlined
def most_free(f: Router, tier: int) -> int:
    """Return the site of a tier with the most free slots, -1 if all are full."""
    best, most = -1, 0
    for p in range(f.tier.size):
        if f.tier[p] == tier and f.numbers[p, QUEUED] == 0 and f.numbers[p, FREE] > most and f.numbers[p, READY] > 0:
            best, most = p, f.numbers[p, FREE]
    return best


@inlined
def least_wait(f: Router, class_id: int) -> int:
    """Pool of all that a class may use with the least expected wait, -1 if none is up and has room to wait."""
    best, least = -1, 0
    for p in range(f.tier.size):
        allowed = False
        for at in range(f.order.shape[1]):
            allowed = allowed or f.order[class_id, at] == f.tier[p]
        waiting = f.numbers[p, QUEUED]
        if allowed and f.numbers[p, READY] > 0 and waiting < f.at[MOST]:
            wait = (waiting + 1) * f.service_us[p] // max(f.numbers[p, IN_SYSTEM] - waiting, 1)
            if best < 0 or wait < least:
                best, least = p, wait
    return best


@inlined
def offered(f: Router, tier: int, tokens: int) -> None:
    """Count an overflowed request as offered to a tier, shared by its sites in proportion to their arrivals."""
    total, sites = 0.0, 0
    for p in range(f.tier.size):
        if f.tier[p] == tier:
            total += f.arrived[p]
            sites += 1
    for p in range(f.tier.size):
        if f.tier[p] == tier:
            part = f.arrived[p] / total if total > 0.0 else 1.0 / sites
            f.sums[p, ARRIVED] += part
            f.sums[p, IN_TOKENS] += part * tokens


@inlined
def choose_pool(f: Router, one: int, tokens: int) -> int:
    """Return the pool of a request, -1 if it is refused; record its outcome and the offered load."""
    class_id, chosen, at = f.class_id[one], -1, 0
    while f.order[class_id, at] >= 0:
        chosen = most_free(f, f.order[class_id, at])
        if chosen >= 0:
            break
        at += 1
    f.outcome[one] = DIRECT
    if chosen < 0:
        chosen = least_wait(f, class_id)
        f.outcome[one] = WAITED if chosen >= 0 else REFUSED
    if chosen >= 0:
        f.arrived[chosen] += 1.0
    for passed in range(at):
        offered(f, f.order[class_id, passed], tokens)
    if f.outcome[one] == DIRECT:
        f.sums[chosen, ARRIVED] += 1.0
        f.sums[chosen, IN_TOKENS] += tokens
    f.pool[one] = chosen
    return chosen


@jit
def store_answers(f: Router, done: Ints, end: Floats) -> None:
    """Store the responses completed since the last call in the cache, in order."""
    first = f.at[STORED]
    for k in range(first + 2, done[0] + 1):  # pools were moved one after the other: few, and nearly in order
        one, at = done[k], k
        while at > first + 1 and end[done[at - 1]] > end[one]:
            done[at] = done[at - 1]
            at -= 1
        done[at] = one
    answers = of_pool(f.answers, 0)
    for k in range(first + 1, done[0] + 1):
        if f.key[done[k]] >= 0:
            put(answers, f.key[done[k]], f.bytes[done[k]], end[done[k]])
    f.at[STORED] = done[0]


@inlined
def from_cache(f: Router, m: Machine, one: int, t: float) -> bool:
    """Return whether the response cache has the answer, which is then served at once."""
    q = m.q
    store_answers(f, q.done, q.end)
    if f.key[one] < 0 or not find(of_pool(f.answers, 0), f.key[one], t - f.ttl_s[0]):
        return False
    q.start[one], q.first[one], q.end[one] = t, t, t
    f.outcome[one] = CACHED
    return True


@inlined
def use_prefix(f: Router, m: Machine, p: int, one: int, t: float) -> None:
    """Skip the cached prefix of a prompt, and cache it; at least one token is computed."""
    prefixes = of_pool(f.prefixes, p)
    if find(prefixes, f.prefix[one], -math.inf):
        m.q.compute[one] = max(m.q.input[one] - f.shared[one], 1)
    else:
        put(prefixes, f.prefix[one], f.shared[one], t)


@inlined
def look(f: Router, m: Machine, p: int) -> None:
    """Update the next event time of a pool."""
    f.next_event[p] = m.rows.due[m.heap[1]] if m.heap[0] > 0 else math.inf


@inlined
def move(f: Router, m: Machine, p: int, t: float) -> None:
    """Advance a pool to a time."""
    advance(m, t)
    look(f, m, p)


@inlined
def take(f: Router, m: Machine, p: int, one: int, t: float) -> None:
    """Admit a request to its pool, after all due events."""
    clock(m.numbers, m.sums, t)
    if f.service.shape[1] > 0:
        m.q.service[one] = f.service[p, one]
    if f.prefix[one] >= 0:
        use_prefix(f, m, p, one, t)
    m.numbers[IN_SYSTEM] += 1
    enter(m, one, t)
    look(f, m, p)


@jit
def advance_all(f: Router, pools: tuple[Machine, ...], until: float) -> None:
    """Run all events of all pools up to a time; a pool is advanced only for its own events."""
    q = pools[0].q
    for p in range(len(pools)):
        look(f, pools[p], p)
    while f.at[COMING] < q.arrive.size and q.arrive[f.at[COMING]] <= until:
        one = f.at[COMING]
        f.at[COMING] += 1
        t = q.arrive[one]
        for p in range(len(pools)):
            if f.next_event[p] <= t:
                move(f, pools[p], p, t)
        if q.done.size > 1 and from_cache(f, pools[0], one, t):
            continue
        chosen = choose_pool(f, one, q.input[one])
        if chosen >= 0:
            take(f, pools[chosen], chosen, one, t)
    for p in range(len(pools)):
        move(f, pools[p], p, until)
