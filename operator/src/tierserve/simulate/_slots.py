"""The slot model: every request takes one slot of a replica for a time that is known when it begins.

It leaves out what a batch does to its members and is the truth that Erlang's formulas are about.
"""

from __future__ import annotations

import math

from tierserve.simulate._gateway import (
    CENTRAL,
    DRAINS,
    FIRSTS,
    FREE,
    NEXT,
    NONE,
    QUEUED,
    ROUTER,
    RUNNING,
    TAKES,
    TTFT,
    Machine,
    arrive,
    choose,
    clock,
    dequeue,
    enqueue,
    finish,
    give,
    heap_fix,
)
from tierserve.simulate._jit import jit


@jit
def _serve(m: Machine, row: int, t: float) -> None:
    """Fill the free slots of a replica from its own queue, then from the gateway's."""
    q, rows, numbers, sums = m.q, m.rows, m.numbers, m.sums
    slots = rows.request.shape[1]
    while rows.batch[row] < slots:
        if rows.head[row] < 0:
            if numbers[QUEUED] == 0 or rows.state[row] != TAKES:
                break
            give(q, rows, row, dequeue(q, numbers))
            numbers[FREE] -= 1
        one = rows.head[row]
        rows.head[row] = q.behind[one]
        at = rows.batch[row]
        rows.request[row, at] = one
        rows.until[row, at] = t + q.service[one]
        rows.batch[row] = at + 1
        rows.due[row] = min(rows.due[row], rows.until[row, at])
        numbers[RUNNING] += 1
        q.start[one] = t
        q.first[one] = t
        sums[FIRSTS] += 1.0
        sums[TTFT] += t - q.arrive[one]


@jit
def _end(m: Machine, row: int, t: float) -> None:
    """End the service that is due, and find the next one."""
    rows, numbers = m.rows, m.numbers
    due = math.inf
    at = rows.batch[row] - 1
    while at >= 0:
        if rows.until[row, at] <= t:
            finish(m, rows.request[row, at], t)
            if rows.state[row] == TAKES and rows.have[row] <= rows.request.shape[1]:
                numbers[FREE] += 1
            rows.have[row] -= 1
            rows.batch[row] -= 1
            rows.request[row, at] = rows.request[row, rows.batch[row]]
            rows.until[row, at] = rows.until[row, rows.batch[row]]
        at -= 1
    for at in range(rows.batch[row]):
        due = min(due, rows.until[row, at])
    rows.due[row] = due


@jit
def advance(m: Machine, until: float) -> None:
    """Let all events up to a time happen."""
    q, rows, numbers, sums, heap = m.q, m.rows, m.numbers, m.sums, m.heap
    count, slots = q.arrive.size, rows.request.shape[1]
    while True:
        coming = q.arrive[numbers[NEXT]] if numbers[NEXT] < count else math.inf
        row = heap[1] if heap[0] > 0 else -1
        ends = rows.due[row] if row >= 0 else math.inf
        if min(coming, ends) > until:
            break
        if ends <= coming:
            clock(numbers, sums, ends)
            _end(m, row, ends)
            _serve(m, row, ends)
            heap_fix(m.heap, m.place, rows.due, row)
            if rows.state[row] == DRAINS and rows.have[row] == 0:
                rows.state[row] = NONE
            continue
        one = arrive(q, numbers, sums)
        row = choose(q, rows, numbers, one, slots)
        if row < 0:
            enqueue(q, numbers, one)
            continue
        if rows.have[row] < slots:
            numbers[FREE] -= 1
        give(q, rows, row, one)
        if rows.batch[row] < slots:
            _serve(m, row, coming)
            heap_fix(m.heap, m.place, rows.due, row)
    clock(numbers, sums, until)


@jit
def begin(m: Machine, row: int, t: float) -> None:
    """A replica serves from now on: it takes of those who wait at the gateway."""
    q, rows, numbers = m.q, m.rows, m.numbers
    if numbers[ROUTER] != CENTRAL:  # where each has its own queue, those at the gateway waited because nobody served
        while numbers[QUEUED] > 0:
            one = dequeue(q, numbers)
            if rows.have[row] < rows.request.shape[1]:
                numbers[FREE] -= 1
            give(q, rows, row, one)
    _serve(m, row, t)
    heap_fix(m.heap, m.place, rows.due, row)
