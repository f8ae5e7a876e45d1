"""Shared state of both engines: requests, the order of events, the queue at the gateway and the choice of a replica.

Compiled; all state is in arrays, so that a run stops between any two events and continues.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tierserve.simulate.engine.jit import inlined, jit
from tierserve.simulate.types import Floats, Ints

CENTRAL, SHORTEST, TWO_CHOICES, ROUND_ROBIN, RANDOM = range(5)
"""One queue at the gateway; or a queue at each replica and a router that joins the shortest of all, the shorter of two
at random, the next one, any one."""

NEXT, HEAD, TAIL, QUEUED, IN_SYSTEM, RUNNING, ROUTER, TURN, READY, ROWS, FREE, MODEL = range(12)
"""Whole numbers of the state: next arrival; first, last and number of the gateway's queue; requests in the system; in
batches; the router; whose turn it is; replicas that take requests; rows in use; free slots of those that take;
the model."""

TOKENS, SLOTS = range(2)
"""Models: steps of a batch, or a fixed time in a slot."""

NOW, IN_SYSTEM_S, RUNNING_S = range(3)
ARRIVED, DONE, FIRSTS, TTFT, ITL, RESPONSE, SERVICE, SERVICE_SQ, IN_TOKENS, OUT_TOKENS = range(3, 13)
"""Counters and integrals of the state, as in `Snapshot`."""
LATE = 13
COUNTERS = 14

NONE, TAKES, DRAINS = range(3)
"""State of a row: without a replica, ready, draining."""


class Requests(NamedTuple):
    """Shape (n,) each; times in seconds, NaN while it has not happened.

    `compute`: tokens of the input that no cache has. `behind`: who waits behind it. `done`: how many are done, then
    which, in order; shape (n + 1,), or (1,) without traffic.
    """

    arrive: Floats
    input: Ints
    compute: Ints
    output: Ints
    service: Floats
    pick: Floats  # (n, 2), uniform: the dice of the random routers
    start: Floats
    first: Floats
    end: Floats
    behind: Ints
    done: Ints


class Rows(NamedTuple):
    """One row per replica; shape (rows,) or (rows, slots)."""

    state: Ints
    have: Ints  # requests given to it, in the batch or before it
    head: Ints  # its own queue
    tail: Ints
    batch: Ints  # requests in the batch
    request: Ints  # (rows, slots): which
    last: Ints  # (rows, slots): the step after which each is done
    fresh: Ints  # of the batch, the last so many are in their prefill
    steps: Ints  # done since the replica began
    stretch: Ints  # steps until it next has something to do
    began: Floats  # when the stretch began
    context: Floats  # tokens of context in the batch
    due: Floats  # end of the stretch (of the first service, in the slot model), inf: idle
    until: Floats  # (rows, slots): end of each service, in the slot model


class Machine(NamedTuple):
    """State of an engine.

    Attributes:
        q, rows: requests and replicas.
        numbers, sums: counters and integrals, as named above.
        heap, place: rows by the time of their next event, and where each is in the heap.
        goals: seconds for response, first token and between tokens.
        profile: alpha, beta, gamma.
    """

    q: Requests
    rows: Rows
    numbers: Ints
    sums: Floats
    heap: Ints
    place: Ints
    goals: Floats
    profile: Floats


@jit
def heap_less(due: Floats, a: int, b: int) -> bool:
    """Order of events: by time, rows in order where two are at once."""
    return bool(due[a] < due[b] or (due[a] == due[b] and a < b))


@jit
def heap_fix(heap: Ints, place: Ints, due: Floats, row: int) -> None:
    """Move a row to its place in the heap. `heap[0]`: its length; `place[row]`: position of a row, 0 if absent."""
    at = place[row]
    if at == 0:
        heap[0] += 1
        at = heap[0]
        heap[at] = row
        place[row] = at
    while at > 1 and heap_less(due, row, heap[at // 2]):
        heap[at] = heap[at // 2]
        place[heap[at]] = at
        at //= 2
        heap[at] = row
        place[row] = at
    while 2 * at <= heap[0]:
        child = 2 * at
        if child < heap[0] and heap_less(due, heap[child + 1], heap[child]):
            child += 1
        if not heap_less(due, heap[child], row):
            break
        heap[at] = heap[child]
        place[heap[at]] = at
        at = child
        heap[at] = row
        place[row] = at


@inlined
def clock(numbers: Ints, sums: Floats, t: float) -> None:
    """Advance the time and the integrals."""
    passed = t - sums[NOW]
    sums[IN_SYSTEM_S] += numbers[IN_SYSTEM] * passed
    sums[RUNNING_S] += numbers[RUNNING] * passed
    sums[NOW] = t


@inlined
def enqueue(q: Requests, numbers: Ints, one: int) -> None:
    """Append a request to the gateway's queue."""
    q.behind[one] = -1
    if numbers[QUEUED] == 0:
        numbers[HEAD] = one
    else:
        q.behind[numbers[TAIL]] = one
    numbers[TAIL] = one
    numbers[QUEUED] += 1


@inlined
def dequeue(q: Requests, numbers: Ints) -> int:
    """Pop the first request of the gateway's queue, which must not be empty."""
    one = numbers[HEAD]
    numbers[HEAD] = q.behind[one]
    numbers[QUEUED] -= 1
    return int(one)


@inlined
def give(q: Requests, rows: Rows, numbers: Ints, row: int, one: int) -> None:
    """Append a request to a replica's queue."""
    if rows.have[row] < rows.request.shape[1]:
        numbers[FREE] -= 1
    q.behind[one] = -1
    if rows.head[row] < 0:
        rows.head[row] = one
    else:
        q.behind[rows.tail[row]] = one
    rows.tail[row] = one
    rows.have[row] += 1


@inlined
def let_go(rows: Rows, numbers: Ints, row: int) -> None:
    """Count one request less at a replica."""
    if rows.state[row] == TAKES and rows.have[row] <= rows.request.shape[1]:
        numbers[FREE] += 1
    rows.have[row] -= 1


@inlined
def next_for(q: Requests, rows: Rows, numbers: Ints, row: int) -> int:
    """Pop the next request for a replica's batch, from its queue or the gateway's; -1 if there is none."""
    if rows.batch[row] >= rows.request.shape[1]:
        return -1
    if rows.head[row] < 0:
        if numbers[QUEUED] == 0 or rows.state[row] != TAKES:
            return -1
        give(q, rows, numbers, row, dequeue(q, numbers))
    one = rows.head[row]
    rows.head[row] = q.behind[one]
    return int(one)


@jit
def take_all(q: Requests, rows: Rows, numbers: Ints, row: int) -> None:
    """Give the gateway's queue to a replica: where each has its own, they waited because no replica served."""
    while numbers[QUEUED] > 0:
        give(q, rows, numbers, row, dequeue(q, numbers))


@jit
def shortest(rows: Rows, count: int) -> int:
    """Row of the ready replica with the fewest requests; -1 if there is none."""
    best = -1
    for row in range(count):
        if rows.state[row] == TAKES and (best < 0 or rows.have[row] < rows.have[best]):
            best = row
            if rows.have[row] == 0:
                break
    return best


@jit
def nth_ready(rows: Rows, numbers: Ints, n: int) -> int:
    """Row of the n-th ready replica."""
    for row in range(numbers[ROWS]):
        if rows.state[row] == TAKES:
            if n == 0:
                return row
            n -= 1
    return -1


@inlined
def choose(q: Requests, rows: Rows, numbers: Ints, one: int, slots: int) -> int:
    """Row of the replica that this request is routed to, -1 if it is queued at the gateway."""
    ready, router = numbers[READY], numbers[ROUTER]
    if ready == 0:
        return -1
    if router == CENTRAL:
        return shortest(rows, numbers[ROWS]) if numbers[FREE] > 0 else -1
    if router == SHORTEST:
        return shortest(rows, numbers[ROWS])
    if router == ROUND_ROBIN:
        numbers[TURN] += 1
        return nth_ready(rows, numbers, numbers[TURN] % ready)
    first = nth_ready(rows, numbers, int(q.pick[one, 0] * ready))
    if router == RANDOM or ready == 1:
        return first
    step = 1 + int(q.pick[one, 1] * (ready - 1))
    other = nth_ready(rows, numbers, (int(q.pick[one, 0] * ready) + step) % ready)
    return other if rows.have[other] < rows.have[first] else first


@inlined
def finish(m: Machine, one: int, t: float) -> None:
    """Record the end of a request, and whether it met the objective."""
    q, numbers, sums, goals = m.q, m.numbers, m.sums, m.goals
    q.end[one] = t
    if q.done.size > 1:
        q.done[0] += 1
        q.done[q.done[0]] = one
    numbers[IN_SYSTEM] -= 1
    numbers[RUNNING] -= 1
    sums[DONE] += 1.0
    sums[RESPONSE] += t - q.arrive[one]
    service = t - q.start[one]
    sums[SERVICE] += service
    sums[SERVICE_SQ] += service * service
    sums[OUT_TOKENS] += q.output[one]
    itl = (t - q.first[one]) / q.output[one]
    sums[ITL] += itl
    if t - q.arrive[one] > goals[0] or q.first[one] - q.arrive[one] > goals[1] or itl > goals[2]:
        sums[LATE] += 1.0


@inlined
def arrive(q: Requests, numbers: Ints, sums: Floats) -> int:
    """Take the next request in and return it."""
    one = numbers[NEXT]
    clock(numbers, sums, q.arrive[one])
    numbers[NEXT] += 1
    numbers[IN_SYSTEM] += 1
    sums[ARRIVED] += 1.0
    sums[IN_TOKENS] += q.input[one]
    return int(one)


def requests(arrive_s: Floats, input_tokens: Ints, output_tokens: Ints, service_s: Floats, seed: int) -> Requests:
    """Return the arrays of a run; random numbers are drawn here, so that a seed determines the run."""
    n = arrive_s.size
    never = np.full(n, np.nan)
    tokens = np.asarray(input_tokens, dtype=np.int64)
    return Requests(
        arrive=np.asarray(arrive_s, dtype=np.float64),
        input=tokens,
        compute=tokens,
        output=np.asarray(output_tokens, dtype=np.int64),
        service=np.asarray(service_s, dtype=np.float64),
        pick=np.random.default_rng(seed).random((n, 2)),
        start=never.copy(),
        first=never.copy(),
        end=never.copy(),
        behind=np.full(n, -1, dtype=np.int64),
        done=np.zeros(1, dtype=np.int64),
    )


def rows_of(count: int, slots: int) -> Rows:
    """Return rows without replicas."""
    whole = {name: np.zeros(count, dtype=np.int64) for name in ("state", "have", "batch", "fresh", "steps", "stretch")}
    nobody = {name: np.full(count, -1, dtype=np.int64) for name in ("head", "tail")}
    table = {name: np.zeros((count, slots), dtype=np.int64) for name in ("request", "last")}
    return Rows(
        **whole, **nobody, **table, began=np.zeros(count), context=np.zeros(count), due=np.full(count, np.inf),
        until=np.zeros((count, slots)),
    )  # fmt: skip


def wider(rows: Rows, count: int) -> Rows:
    """Return the same rows and empty ones up to `count`."""
    more = rows_of(count - rows.state.size, rows.request.shape[1])
    return Rows(*(np.concatenate([a, b]) for a, b in zip(rows, more, strict=True)))
