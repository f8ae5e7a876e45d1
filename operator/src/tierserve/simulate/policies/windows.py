"""Rates and means over a past window, from the cumulative counters of snapshots; and what several rules read alike."""

from __future__ import annotations

import math
from collections import deque
from operator import attrgetter

import numpy as np

from tierserve.simulate.types import Floats, Pool, Snapshot

_NOISE = 1e-9
"""What a quotient of floats may be above a whole number without being meant to."""


def round_up(replicas: float) -> int:
    """Return the least whole number not below `replicas`; 3.0000000001 counts as 3."""
    return math.ceil(replicas - _NOISE)


def in_flight(seen: Snapshot) -> float:
    """Return the requests that wait anywhere or are in a batch of a ready replica; those that drain do not count.

    Autoscalers of Kubernetes leave out pods that are being deleted, so their last requests are no load to scale for.
    """
    return seen.queued + float(np.sum(seen.in_batch))


def waiting_per_replica(seen: Snapshot) -> Floats:
    """Return the requests that wait per ready replica, those at the gateway shared out evenly.

    The engines of these rules queue inside the replica; a queue at the gateway would be hidden from them.
    """
    if seen.ready == 0:
        return seen.waiting
    at_gateway = max(0.0, seen.queued - float(np.sum(seen.waiting)))
    return seen.waiting + at_gateway / seen.ready


class Window:
    """The last `span_s` seconds of some counters of `Snapshot`.

    It keeps one row per snapshot of that time and one before it, so its size is bounded by the span over the interval
    between snapshots. All counters run from 0 at t = 0; until a whole window has gone by, it reaches back to there.
    """

    def __init__(self, span_s: float, *fields: str) -> None:
        self.span_s = span_s
        self._places = {name: place for place, name in enumerate(("t", *fields))}
        self._read = attrgetter("t", *fields)
        self._rows: deque[tuple[float, ...]] = deque([(0.0,) * (1 + len(fields))])

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, seen: Snapshot) -> None:
        """Take in a snapshot that is not before the last one; one of the same time replaces it."""
        row, rows = self._read(seen), self._rows
        if row[0] < rows[-1][0]:
            raise ValueError(f"snapshots must come in order of time, got t={row[0]} after t={rows[-1][0]}")
        if row[0] == rows[-1][0]:
            rows.pop()
        rows.append(row)
        while len(rows) > 2 and rows[1][0] <= row[0] - self.span_s:
            rows.popleft()

    def elapsed(self, span_s: float | None = None) -> float:
        """Return the seconds that the window covers: `span_s`, or less at the start of a run."""
        return min(self._rows[-1][0] - self._rows[0][0], self.span_s if span_s is None else span_s)

    def change(self, field: str, span_s: float | None = None) -> float:
        """Return the increase of a counter in the window; between two snapshots it is taken to rise evenly."""
        place, last = self._places[field], self._rows[-1]
        start = last[0] - self.elapsed(span_s)
        before, after = self._around(start)
        width = after[0] - before[0]
        share = (start - before[0]) / width if width > 0.0 else 0.0
        return last[place] - (before[place] + share * (after[place] - before[place]))

    def rate(self, field: str, span_s: float | None = None) -> float:
        """Return the rise per second; of an integral over time that is its mean. 0 where no time has gone by."""
        elapsed = self.elapsed(span_s)
        return self.change(field, span_s) / elapsed if elapsed > 0.0 else 0.0

    def mean(self, total: str, count: str, otherwise: float = math.nan) -> float:
        """Return the rise of `total` per rise of `count`, `otherwise` where nothing was counted."""
        counted = self.change(count)
        return self.change(total) / counted if counted > 0.0 else otherwise

    def _around(self, start: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The rows on both sides of a time."""
        rows = self._rows
        if len(rows) > 1 and start < rows[1][0]:  # the whole window, the common case
            return rows[0], rows[1]
        after = rows[-1]
        for row in reversed(rows):
            if row[0] <= start:
                return row, after
            after = row
        return rows[0], rows[0]


def mean_tokens(window: Window, pool: Pool) -> tuple[float, float]:
    """Return the mean input and output tokens of a request in a window, the pool's own where none came or finished."""
    return (
        max(1.0, window.mean("input_tokens", "arrivals", pool.input_tokens)),
        max(1.0, window.mean("output_tokens", "completions", pool.output_tokens)),
    )


class Highest:
    """The highest number said in the last `span_s` seconds: what keeps a scaler from going down too soon."""

    def __init__(self, span_s: float) -> None:
        self.span_s = span_s
        self._falling: deque[tuple[float, int]] = deque()  # ever lower, ever later: what may still be the highest

    def __call__(self, t: float, replicas: int) -> int:
        """Take in a number said at `t` and return the highest after `t - span_s`."""
        kept = self._falling
        while kept and kept[-1][1] <= replicas:
            kept.pop()
        kept.append((t, replicas))
        while kept[0][0] <= t - self.span_s:
            kept.popleft()
        return kept[0][1]
