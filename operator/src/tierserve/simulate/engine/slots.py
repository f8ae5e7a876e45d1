"""The slot model: every request takes one slot of a replica for a time that is known when it begins.

It leaves out what a batch does to its members and is the truth that Erlang's formulas are about.
"""

from __future__ import annotations

import math

from tierserve.simulate.engine.gateway import FIRSTS, RUNNING, TTFT, Machine, finish, let_go, next_for
from tierserve.simulate.engine.jit import inlined, jit


@jit
def serve(m: Machine, row: int, t: float) -> None:
    """Fill the free slots of a replica."""
    q, rows, numbers, sums = m.q, m.rows, m.numbers, m.sums
    one = next_for(q, rows, numbers, row)
    while one >= 0:
        at = rows.batch[row]
        rows.request[row, at] = one
        rows.until[row, at] = t + q.service[one]
        rows.batch[row] += 1
        rows.due[row] = min(rows.due[row], rows.until[row, at])
        numbers[RUNNING] += 1
        q.start[one] = t
        q.first[one] = t
        sums[FIRSTS] += 1.0
        sums[TTFT] += t - q.arrive[one]
        one = next_for(q, rows, numbers, row)


@inlined
def end_service(m: Machine, row: int, t: float) -> None:
    """End the due service, and schedule the next one."""
    rows = m.rows
    at = rows.batch[row] - 1
    while at >= 0:
        if rows.until[row, at] <= t:
            finish(m, rows.request[row, at], t)
            let_go(rows, m.numbers, row)
            rows.batch[row] -= 1
            rows.request[row, at] = rows.request[row, rows.batch[row]]
            rows.until[row, at] = rows.until[row, rows.batch[row]]
        at -= 1
    due = math.inf
    for k in range(rows.batch[row]):
        due = min(due, rows.until[row, k])
    rows.due[row] = due
