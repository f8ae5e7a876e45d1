"""The least fixed number of replicas that would have held the objective over the recent past.

Arrivals that come in clumps are no matter of a mean and a variance: what counts is how much comes at once, for how
long, and how soon again. So the arrivals that were counted are replayed, as they come, beside the real pool: as a
fluid queue (Newell, "Applications of queueing theory", 1982) in front of each of a grid of fixed pools, with the slots
and service times of the real replicas. Arrivals that would have waited too long are summed up in blocks. The least
pool with few enough of them over the stabilization window is recommended: on steady arrivals that is close to Erlang C,
on others what they needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_EXACT, _STEP, _LARGEST = 25, 1.04, 100_000
"""Pool sizes replayed: each number up to 25, from where one more is 4%, then 4% more, to the maximum of the CRD."""


def _grid() -> Floats:
    sizes = list(range(1, _EXACT + 1))
    while sizes[-1] < _LARGEST:
        sizes.append(math.ceil(sizes[-1] * _STEP))
    return np.array(sizes, dtype=np.float64)


_GRID = _grid()
GRID_SIZE = _GRID.size
_EMPTY = np.zeros(GRID_SIZE)
_EMPTY.flags.writeable = False


class Service(NamedTuple):
    """Service of a replica: its slots, and seconds of a service that is alone in it and of one in a full one."""

    slots: int
    alone_s: float
    full_s: float


class Terms(NamedTuple):
    """Terms of a replay, seconds.

    Attributes:
        service: of the replicas.
        max_wait_s: the wait from which a request is late, > 0.
        startup_s: a backlog is forgotten beyond what `max_wait_s` and this much more work off: by then a real pool
            would have had more replicas.
        block_s, keep_s: length of a block, and how long blocks are kept.
    """

    service: Service
    max_wait_s: float
    startup_s: float
    block_s: float
    keep_s: float


class Block(NamedTuple):
    """A stretch of time: when it began, its arrivals, and those that each pool size would have kept waiting."""

    t: float
    arrivals: float
    late: Floats


@dataclass(frozen=True, slots=True)
class ReplayState:
    """State of the replay. Start with `ReplayState()`; arrays have one value per pool size and are never written to.

    Attributes:
        inside: requests in each pool.
        blocks: the past, in order.
        seconds: replayed so far.
    """

    inside: Floats = field(default_factory=lambda: _EMPTY)
    blocks: tuple[Block, ...] = ()
    seconds: float = 0.0


def replay(state: ReplayState, now: tuple[float, float, float], terms: Terms) -> ReplayState:
    """Return the state after some more time.

    Args:
        state: what the last call returned.
        now: time, seconds since the last call, arrivals in them.
        terms: of the replay; they may change between calls.
    """
    (t, seconds, arrivals), service, max_wait_s = now, terms.service, terms.max_wait_s
    slots = _GRID * service.slots
    rate = slots / service.full_s
    come = state.inside + arrivals
    slope = (service.full_s - service.alone_s) / max(service.slots - 1, 1)
    service_s = service.alone_s + slope * (np.clip(come / _GRID, 1.0, service.slots) - 1.0)
    leave = np.where(come > slots, np.minimum(rate * seconds, come), come * -np.expm1(-seconds / service_s))
    after = np.minimum(come - leave, slots + rate * (max_wait_s + terms.startup_s))
    first, last = np.maximum(state.inside - slots, 0.0) / rate, np.maximum(after - slots, 0.0) / rate
    low, high = np.minimum(first, last), np.maximum(first, last)  # the wait goes evenly from one to the other
    late = np.clip((high - max_wait_s) / np.maximum(high - low, 1e-9), 0.0, 1.0) * arrivals
    kept = state.blocks
    if kept and t - kept[-1].t < terms.block_s:
        kept = (*kept[:-1], Block(kept[-1].t, kept[-1].arrivals + arrivals, kept[-1].late + late))
    else:
        kept = (*(one for one in kept if one.t >= t - terms.keep_s), Block(t, arrivals, late))
    return ReplayState(after, kept, state.seconds + seconds)


def least_replicas(state: ReplayState, since: float, may_wait: float) -> tuple[int, float]:
    """Return the least pool that would have kept few enough waiting, and the share that the next smaller one would.

    Args:
        state: of the replay.
        since: blocks that end before this time do not count.
        may_wait: share of the arrivals that may be late.
    """
    seen = [one for one in state.blocks if one.t >= since]
    arrivals = sum(one.arrivals for one in seen)
    if arrivals <= 0.0:
        return 0, 0.0
    share = np.add.reduce([one.late for one in seen]) / arrivals
    at = int(np.argmax(share <= may_wait)) if share[-1] <= may_wait else share.size - 1
    return int(_GRID[at]), float(share[at - 1]) if at else 1.0
