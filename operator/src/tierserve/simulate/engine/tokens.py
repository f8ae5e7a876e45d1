"""The token model: replicas that work in steps, with requests that join and leave between two steps.

A step costs alpha + beta (tokens computed) + gamma (tokens of context read). A request that joins has its prefill in
the next step (all its input at once, but for what a cache has; its first token is out at the end of it) and `output`
decode steps after that, so that n like requests take the mean step of `BatchProfile.iteration`. While no request joins
or leaves, k steps cost

    k (alpha + beta n + gamma context) + gamma n k (k - 1) / 2

seconds, so that a stretch of steps is one event however long it is.
"""

from __future__ import annotations

import math

from tierserve.simulate.engine.gateway import FIRSTS, RUNNING, TTFT, Machine, Requests, Rows, finish, let_go, next_for
from tierserve.simulate.engine.jit import inlined, jit
from tierserve.simulate.types import Floats, Ints


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
    """Return the time of the next event of a replica: the next end, or one step while a request is in prefill."""
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
            tokens += q.compute[rows.request[row, at]]
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
    """Admit queued requests to the batch."""
    one = next_for(q, rows, numbers, row)
    while one >= 0:
        at = rows.batch[row]
        rows.request[row, at] = one
        rows.last[row, at] = rows.steps[row] + 1 + q.output[one]
        rows.batch[row] += 1
        rows.fresh[row] += 1
        rows.context[row] += q.input[one]
        numbers[RUNNING] += 1
        q.start[one] = t
        one = next_for(q, rows, numbers, row)


@inlined
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
            let_go(rows, numbers, row)
        at -= 1
    if rows.batch[row] == 0:
        rows.context[row] = 0.0


@jit
def serve(m: Machine, row: int, t: float) -> None:
    """Start the next stretch with the current and the joining requests."""
    admit(m.q, m.rows, m.numbers, row, t)
    plan_stretch(m.q, m.rows, m.profile, row, t)


@jit
def joined(m: Machine, row: int, t: float) -> None:
    """Arrival at a replica's queue: an idle replica starts at once, a busy one stops at its next step."""
    rows = m.rows
    if rows.batch[row] == 0:
        serve(m, row, t)
    elif rows.fresh[row] == 0 and rows.batch[row] < rows.request.shape[1] and rows.stretch[row] > 1:
        k = steps_within(rows, m.profile, row, t - rows.began[row])
        if k < rows.stretch[row]:
            rows.stretch[row] = k
            rows.due[row] = rows.began[row] + elapsed(rows, m.profile, row, k)
