"""Metrics of replicas as columns (struct of arrays): a decision over thousands of them is a few array operations.

`ReplicaMetrics` is a mapping of `ReplicaSample` by name like any other, and that is how it is read one by one. Who
observes a
large pool fills the columns and keeps the names: `with_values` gives the same replicas with their next figures, and a
decision then sees at once that they are the same.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, fields
from functools import cached_property
from itertools import chain
from math import isnan
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tierserve.autoscale.types import ReplicaSample

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

FIELDS = tuple(f.name for f in fields(ReplicaSample))
"""What the rows of `ReplicaMetrics.columns` are."""
TIME, STARTUP = FIELDS.index("t"), FIELDS.index("startup_s")
STARTED_AND_DONE = slice(FIELDS.index("arrivals"), FIELDS.index("completions") + 1)
COUNTERS = slice(FIELDS.index("arrivals"), FIELDS.index("gateway_wait_s") + 1)
GAUGES = slice(FIELDS.index("running"), FIELDS.index("waiting") + 1)
EMPTY = np.array([[-1e18 if name == "t" else 0.0] for name in FIELDS])
"""Column of a replica without a valid sample yet: all counters 0, at a time long ago."""
_NAN = float("nan")
_figures = attrgetter(*FIELDS)


class ReplicaIndex:
    """Ordered names of replicas, and the position of each."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)

    @cached_property
    def positions(self) -> dict[str, int]:
        """Position of each name."""
        return {name: k for k, name in enumerate(self.names)}

    def same(self, other: ReplicaIndex) -> bool:
        """Return whether both have the same replicas in the same order."""
        return self is other or self.names == other.names


def _block(columns: ArrayLike, replicas: int) -> Floats:
    block = np.array(columns, dtype=np.float64, order="C")
    if block.shape != (len(FIELDS), replicas):
        raise ValueError(
            f"columns must have the shape ({len(FIELDS)}, {replicas}), got {block.shape}; give a row for each of "
            f"{', '.join(FIELDS)} and a column for each replica"
        )
    return block


def _row(sample: ReplicaSample) -> tuple[float, ...]:
    figures: tuple[float, ...] = _figures(sample)
    return figures if figures[STARTUP] is not None else (*figures[:STARTUP], _NAN)


def _number(value: Any) -> float:
    try:
        return float(array("d", (value,))[0])  # array rejects strings, which float() would parse
    except (TypeError, OverflowError):
        return _NAN


class ReplicaMetrics(Mapping[str, ReplicaSample]):
    """Samples of replicas, one column each; a mapping of name to `ReplicaSample`.

    Args:
        names: of the replicas, each once.
        columns: shape (9, replicas): a row for each field of `ReplicaSample` in its order, with its units. NaN is an
            unknown start-up time; any other NaN makes the sample invalid. They are copied.

    Raises:
        ValueError: the shape is another one, or a name comes twice.
    """

    __slots__ = ("columns", "replica_index")

    def __init__(self, names: Sequence[str], columns: ArrayLike) -> None:
        replica_index = ReplicaIndex(names)
        if len(replica_index.positions) != len(replica_index.names):
            twice = next(name for k, name in enumerate(replica_index.names) if replica_index.positions[name] != k)
            raise ValueError(f"names must differ, got {twice!r} twice; give each replica one column")
        self.replica_index, self.columns = replica_index, _block(columns, len(replica_index.names))
        self.columns.setflags(write=False)

    @classmethod
    def from_columns(cls, replica_index: ReplicaIndex, columns: Floats) -> ReplicaMetrics:
        """Return metrics that take over `columns` without a copy; they become read-only."""
        new = cls.__new__(cls)
        columns.setflags(write=False)
        new.replica_index, new.columns = replica_index, columns
        return new

    @classmethod
    def of(cls, samples: Mapping[str, ReplicaSample], like: ReplicaMetrics | None = None) -> ReplicaMetrics:
        """Return `samples` as columns, with the names of `like` where they are the same; what is no number is NaN."""
        if isinstance(samples, ReplicaMetrics):
            return samples
        replica_index = ReplicaIndex(samples)
        if like is not None and replica_index.same(like.replica_index):
            replica_index = like.replica_index
        try:
            flat = array("d", chain.from_iterable(map(_row, samples.values())))
        except (TypeError, OverflowError):
            flat = array("d", (_number(v) for s in samples.values() for v in astuple(s)))
        return cls.from_columns(replica_index, np.array(flat).reshape(-1, len(FIELDS)).T.copy())

    def with_values(self, columns: ArrayLike) -> ReplicaMetrics:
        """Return samples of the same replicas with other figures, of the same shape. Raises `ValueError`."""
        return self.from_columns(self.replica_index, _block(columns, len(self)))

    @property
    def names(self) -> tuple[str, ...]:
        """The replicas, in the order of the columns."""
        return self.replica_index.names

    def __getitem__(self, name: str) -> ReplicaSample:
        figures = self.columns[:, self.replica_index.positions[name]].tolist()
        if isnan(figures[STARTUP]):
            figures[STARTUP] = None
        return ReplicaSample(*figures)

    def __contains__(self, name: object) -> bool:
        return name in self.replica_index.positions

    def __iter__(self) -> Iterator[str]:
        return iter(self.replica_index.names)

    def __len__(self) -> int:
        return len(self.replica_index.names)


NONE = ReplicaMetrics((), np.empty((len(FIELDS), 0)))


def reindexed(
    before: ReplicaMetrics, left: Mapping[str, Floats], replica_index: ReplicaIndex
) -> tuple[Floats, dict[str, Floats]]:
    """Return the columns of `before` and `left` in the order of `replica_index`, and those of replicas that are not in
    it.

    A column is `EMPTY` where nothing is known of a replica.
    """
    index = before.replica_index.positions
    position = np.array([index.get(name, -1) for name in replica_index.names], dtype=np.intp)
    stays = position >= 0
    values = EMPTY.repeat(len(replica_index.names), axis=1)
    values[:, stays] = before.columns[:, position[stays]]
    goes = np.ones(len(before), dtype=bool)
    goes[position[stays]] = False
    gone = dict(left)
    gone |= {before.names[k]: before.columns[:, k].copy() for k in np.flatnonzero(goes)}
    for k in np.flatnonzero(~stays):
        back = gone.pop(replica_index.names[k], None)
        if back is not None:
            values[:, k] = back
    return values, gone
