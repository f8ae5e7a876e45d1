"""Event loop of a pool: arrivals and due events of replicas, for both models."""

from __future__ import annotations

import math

from tierserve.simulate.engine import slots as _slots
from tierserve.simulate.engine import tokens as _tokens
from tierserve.simulate.engine.gateway import (
    CENTRAL,
    DRAINS,
    MODEL,
    NEXT,
    NONE,
    ROUTER,
    TOKENS,
    Machine,
    arrive,
    choose,
    clock,
    enqueue,
    give,
    heap_fix,
    take_all,
)
from tierserve.simulate.engine.jit import inlined, jit

_end_stretch, _serve_tokens, _joined_tokens = _tokens.end_stretch, _tokens.serve, _tokens.joined
_end_service, _serve_slots = _slots.end_service, _slots.serve


@jit
def serve(m: Machine, row: int, t: float) -> None:
    """Admit queued requests to a replica, and schedule its next event."""
    if m.numbers[MODEL] == TOKENS:
        _serve_tokens(m, row, t)
    else:
        _serve_slots(m, row, t)
    heap_fix(m.heap, m.place, m.rows.due, row)


@inlined
def due(m: Machine, row: int, t: float) -> None:
    """Process the due event of a replica: requests finish, others join."""
    if m.numbers[MODEL] == TOKENS:
        _end_stretch(m, row, t)
    else:
        _end_service(m, row, t)
    serve(m, row, t)
    if m.rows.state[row] == DRAINS and m.rows.have[row] == 0:
        m.rows.state[row] = NONE


@inlined
def join(m: Machine, row: int, one: int, t: float) -> None:
    """Route a request to a replica."""
    give(m.q, m.rows, m.numbers, row, one)
    if m.numbers[MODEL] == TOKENS:
        _joined_tokens(m, row, t)
    else:
        _serve_slots(m, row, t)
    heap_fix(m.heap, m.place, m.rows.due, row)


@inlined
def enter(m: Machine, one: int, t: float) -> None:
    """Arrival at the pool: routed to a replica, or queued at the gateway."""
    row = choose(m.q, m.rows, m.numbers, one, m.rows.request.shape[1])
    if row < 0:
        enqueue(m.q, m.numbers, one)
    else:
        join(m, row, one, t)


@jit
def advance(m: Machine, until: float) -> None:
    """Run all events up to a time."""
    q, rows, numbers, sums, heap = m.q, m.rows, m.numbers, m.sums, m.heap
    count = q.arrive.size
    while True:
        coming = q.arrive[numbers[NEXT]] if numbers[NEXT] < count else math.inf
        row = heap[1] if heap[0] > 0 else -1
        ends = rows.due[row] if row >= 0 else math.inf
        if min(coming, ends) > until:
            break
        if ends <= coming:
            clock(numbers, sums, ends)
            due(m, row, ends)
            continue
        enter(m, arrive(q, numbers, sums), coming)
    clock(numbers, sums, until)


@jit
def begin(m: Machine, row: int, t: float) -> None:
    """Make a replica ready."""
    m.rows.steps[row] = 0
    if m.numbers[ROUTER] != CENTRAL:
        take_all(m.q, m.rows, m.numbers, row)
    serve(m, row, t)
