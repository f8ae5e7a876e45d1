"""The token model: replicas that work in steps, with requests that join and leave between two steps.

A step costs alpha + beta (tokens computed) + gamma (tokens of context read). A request that joins has its prefill in
the next step (all its input at once; its first token is out at the end of it) and `output` decode steps after that, so
that n like requests take the mean step of `BatchProfile.iteration`. As long as nobody joins or leaves, k steps cost

    k (alpha + beta n + gamma context) + gamma n k (k - 1) / 2

seconds, so that a stretch of steps is one event however long it is.
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
    Requests,
    Rows,
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
from tierserve.simulate.model import Floats, Ints


@jit
def elapsed(rows: Rows, profile: Floats, row: int, k: int) -> float:
    """Seconds of the first k steps of a stretch of decoding."""
    n = float(rows.batch[row])
    first = profile[0] + profile[1] * n + profile[2] * rows.context[row]
    return float(k * first + profile[2] * n * k * (k - 1) / 2.0)


@jit
def steps_within(rows: Rows, profile: Floats, row: int, seconds: float) -> int:
    """Fewest steps (at least 1) of a stretch of decoding that take so many seconds or more."""
    n = float(rows.batch[row])
    first = profile[0] + profile[1] * n + profile[2] * rows.context[row]
    half = profile[2] * n / 2.0
    if half * seconds < 1e-9 * first * first:
        k = math.ceil(seconds / first)
    else:
        k = math.ceil((half - first + math.sqrt((first - half) ** 2 + 4.0 * half * seconds)) / (2.0 * half))
    k = max(int(k), 1)
    while k > 1 and elapsed(rows, profile, row, k - 1) >= seconds:
        k -= 1
    while elapsed(rows, profile, row, k) < seconds:
        k += 1
    return k


@jit
def plan_stretch(q: Requests, rows: Rows, profile: Floats, row: int, t: float) -> None:
    """Say until when the replica has nothing to decide: the next end, or one step where somebody has a prefill."""
    n = rows.batch[row]
    rows.began[row] = t
    if n == 0:
        rows.stretch[row] = 0
        rows.due[row] = math.inf
        return
    fresh = rows.fresh[row]
    if fresh > 0:
        tokens = float(n - fresh)
        for at in range(n - fresh, n):
            tokens += q.input[rows.request[row, at]]
        rows.stretch[row] = 1
        rows.due[row] = t + profile[0] + profile[1] * tokens + profile[2] * rows.context[row]
        return
    left = rows.last[row, 0]
    for at in range(1, n):
        left = min(left, rows.last[row, at])
    rows.stretch[row] = left - rows.steps[row]
    rows.due[row] = t + elapsed(rows, profile, row, rows.stretch[row])


@jit
def admit(q: Requests, rows: Rows, numbers: Ints, row: int, t: float) -> None:
    """Let those who wait join the batch."""
    slots = rows.request.shape[1]
    while rows.batch[row] < slots:
        if rows.head[row] < 0:
            if numbers[QUEUED] == 0 or rows.state[row] != TAKES:
                return
            if rows.have[row] >= slots:
                return
            give(q, rows, row, dequeue(q, numbers))
            numbers[FREE] -= 1
        one = rows.head[row]
        rows.head[row] = q.behind[one]
        at = rows.batch[row]
        rows.request[row, at] = one
        rows.last[row, at] = rows.steps[row] + 1 + q.output[one]
        rows.batch[row] += 1
        rows.fresh[row] += 1
        rows.context[row] += q.input[one]
        numbers[RUNNING] += 1
        q.start[one] = t


@jit
def end_stretch(m: Machine, row: int, t: float) -> None:
    """Account for the steps of a stretch: context, first tokens, ends."""
    q, rows, numbers, sums = m.q, m.rows, m.numbers, m.sums
    n, fresh, k = rows.batch[row], rows.fresh[row], rows.stretch[row]
    rows.steps[row] += k
    rows.context[row] += float(k * (n - fresh))
    for at in range(n - fresh, n):
        one = rows.request[row, at]
        q.first[one] = t
        sums[FIRSTS] += 1.0
        sums[TTFT] += t - q.arrive[one]
    rows.fresh[row] = 0
    at = n - 1
    while at >= 0:
        if rows.last[row, at] <= rows.steps[row]:
            one = rows.request[row, at]
            finish(m, one, t)
            rows.context[row] -= float(q.input[one] + q.output[one])
            last = rows.batch[row] - 1
            rows.request[row, at] = rows.request[row, last]
            rows.last[row, at] = rows.last[row, last]
            rows.batch[row] = last
            if rows.state[row] == TAKES and rows.have[row] <= rows.request.shape[1]:
                numbers[FREE] += 1
            rows.have[row] -= 1
        at -= 1
    if rows.batch[row] == 0:
        rows.context[row] = 0.0


@jit
def boundary(m: Machine, row: int, t: float) -> None:
    """Between two steps of a replica: some leave, some join."""
    rows = m.rows
    end_stretch(m, row, t)
    admit(m.q, rows, m.numbers, row, t)
    plan_stretch(m.q, rows, m.profile, row, t)
    heap_fix(m.heap, m.place, rows.due, row)
    if rows.state[row] == DRAINS and rows.have[row] == 0:
        rows.state[row] = NONE


@jit
def join(m: Machine, row: int, one: int, t: float) -> None:
    """Give a request to a replica; an idle one begins at once, a busy one at its next step."""
    q, rows, numbers, profile = m.q, m.rows, m.numbers, m.profile
    slots = rows.request.shape[1]
    if rows.have[row] < slots:
        numbers[FREE] -= 1
    give(q, rows, row, one)
    n = rows.batch[row]
    if n == 0:
        admit(q, rows, numbers, row, t)
        plan_stretch(q, rows, profile, row, t)
        heap_fix(m.heap, m.place, rows.due, row)
    elif rows.fresh[row] == 0 and n < slots and rows.stretch[row] > 1:
        k = steps_within(rows, profile, row, t - rows.began[row])
        if k < rows.stretch[row]:
            rows.stretch[row] = k
            rows.due[row] = rows.began[row] + elapsed(rows, profile, row, k)
            heap_fix(m.heap, m.place, rows.due, row)


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
            boundary(m, row, ends)
        else:
            one = arrive(q, numbers, sums)
            row = choose(q, rows, numbers, one, slots)
            if row < 0:
                enqueue(q, numbers, one)
            else:
                join(m, row, one, coming)
    clock(numbers, sums, until)


@jit
def begin(m: Machine, row: int, t: float) -> None:
    """A replica serves from now on: it takes of those who wait at the gateway."""
    q, rows, numbers = m.q, m.rows, m.numbers
    rows.steps[row] = 0
    if numbers[ROUTER] == CENTRAL:
        admit(q, rows, numbers, row, t)
    else:  # where each has its own queue, those at the gateway waited because nobody served
        while numbers[QUEUED] > 0:
            one = dequeue(q, numbers)
            if rows.have[row] < rows.request.shape[1]:
                numbers[FREE] -= 1
            give(q, rows, row, one)
        admit(q, rows, numbers, row, t)
    plan_stretch(q, rows, m.profile, row, t)
    heap_fix(m.heap, m.place, rows.due, row)
