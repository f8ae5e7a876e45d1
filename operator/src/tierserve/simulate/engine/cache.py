"""LRU cache, compiled: keys and sizes are integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tierserve.simulate.engine.jit import jit
from tierserve.simulate.types import Floats, Ints

USED, CAPACITY = range(2)


class Lru(NamedTuple):
    """Ring of keys from the most to the least recently used; the last element is the head.

    Attributes:
        older, newer: the neighbours of each key in the ring; shape (keys + 1,).
        since: when each was put in, NaN where it is not; shape (keys,).
        size: what each takes; shape (keys,).
        room: what is used, and how much there is; shape (2,).
    """

    older: Ints
    newer: Ints
    since: Floats
    size: Ints
    room: Ints


@jit
def holds(c: Lru, key: int) -> bool:
    """Return whether a key is cached."""
    return bool(c.since[key] == c.since[key])


@jit
def drop(c: Lru, key: int) -> None:
    """Remove a cached key."""
    c.older[c.newer[key]] = c.older[key]
    c.newer[c.older[key]] = c.newer[key]
    c.since[key] = np.nan
    c.room[USED] -= c.size[key]


@jit
def put(c: Lru, key: int, size: int, t: float) -> None:
    """Insert a key as most recently used, evicting others until it fits; a key larger than the cache is skipped."""
    if holds(c, key):
        drop(c, key)
    if size > c.room[CAPACITY]:
        return
    head = c.since.size
    while c.room[USED] + size > c.room[CAPACITY]:
        drop(c, c.newer[head])
    first = c.older[head]
    c.older[head], c.newer[key], c.older[key], c.newer[first] = key, head, first, key
    c.since[key], c.size[key] = t, size
    c.room[USED] += size


@jit
def find(c: Lru, key: int, oldest: float) -> bool:
    """Return whether a key inserted at `oldest` or later is cached, and touch it; an older one is evicted."""
    if not holds(c, key):
        return False
    since = c.since[key]
    if since < oldest:
        drop(c, key)
        return False
    put(c, key, c.size[key], since)
    return True


def lru(keys: int, capacities: Sequence[int]) -> Lru:
    """Return an empty cache for each capacity, all of the same keys: the arrays have one more dimension, the first."""
    copies = len(capacities)
    ring = np.full((copies, keys + 1), keys, dtype=np.int64)
    room = np.zeros((copies, 2), dtype=np.int64)
    room[:, CAPACITY] = capacities
    return Lru(ring, ring.copy(), np.full((copies, keys), np.nan), np.zeros((copies, keys), dtype=np.int64), room)
