"""One row per request, kept as columns."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Outcome(IntEnum):
    """How a request ended."""

    OK = 0
    HTTP_ERROR = 1  # status 400 or above, or an error object inside the stream
    TIMEOUT = 2  # no full answer within the plan's timeout
    CONNECTION = 3  # refused, reset or unreadable
    TRUNCATED = 4  # a stream that ended without its last event
    UNFINISHED = 5  # still under way when the run ended
    NOT_SENT = 6  # the bound of requests in flight was reached


class Row(NamedTuple):
    """One request; times in seconds since the run began, NaN where it never came."""

    step: int
    traffic: str
    intended: float
    start: float
    first_token: float
    end: float
    status: int
    outcome: Outcome
    pool: str
    tokens: int


@dataclass(frozen=True, slots=True)
class RequestLog:
    """All requests of a run as arrays of shape (n,), in order of their end.

    Attributes:
        step: index of the step in which the request was meant to start.
        traffic, pool: index into `traffics` and `pools`.
        intended, start, first_token, end: seconds since the run began; NaN where it never came.
        status: HTTP status, 0 without an answer.
        outcome: an `Outcome`.
        tokens: content events of a streamed answer, else completion tokens of its usage.
    """

    step: NDArray[np.int32]
    traffic: NDArray[np.int32]
    pool: NDArray[np.int32]
    intended: NDArray[np.float64]
    start: NDArray[np.float64]
    first_token: NDArray[np.float64]
    end: NDArray[np.float64]
    status: NDArray[np.int32]
    outcome: NDArray[np.int32]
    tokens: NDArray[np.int32]
    traffics: tuple[str, ...]
    pools: tuple[str, ...]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> RequestLog:
        """Columns of rows."""
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(Row._fields)
        step, traffic, intended, start, first, end, status, outcome, pool, tokens = columns
        traffics, pools = tuple(dict.fromkeys(traffic)), tuple(dict.fromkeys(pool))
        return cls(
            step=np.array(step, np.int32),
            traffic=np.array([traffics.index(name) for name in traffic], np.int32),
            pool=np.array([pools.index(name) for name in pool], np.int32),
            intended=np.array(intended, np.float64),
            start=np.array(start, np.float64),
            first_token=np.array(first, np.float64),
            end=np.array(end, np.float64),
            status=np.array(status, np.int32),
            outcome=np.array(outcome, np.int32),
            tokens=np.array(tokens, np.int32),
            traffics=traffics,
            pools=pools,
        )

    def __len__(self) -> int:
        return self.step.size

    @property
    def latency(self) -> NDArray[np.float64]:
        """Response time from the intended start, seconds; for one given up on, the time waited: a lower bound."""
        return self.end - self.intended

    @property
    def first_token_wait(self) -> NDArray[np.float64]:
        """Time to first token from the intended start, seconds; NaN where not streamed."""
        return self.first_token - self.intended

    @property
    def token_gap(self) -> NDArray[np.float64]:
        """Mean time between the tokens of a streamed answer, seconds; NaN with fewer than two."""
        gaps = np.full(len(self), np.nan)
        several = (self.tokens > 1) & np.isfinite(self.first_token) & (self.outcome == Outcome.OK)
        gaps[several] = (self.end - self.first_token)[several] / (self.tokens[several] - 1)
        return gaps

    def where(self, mask: NDArray[np.bool_]) -> RequestLog:
        """The rows of a mask."""
        kept = {f.name: getattr(self, f.name)[mask] for f in fields(self) if f.name not in ("traffics", "pools")}
        return RequestLog(**kept, traffics=self.traffics, pools=self.pools)

    def of_traffic(self, name: str) -> RequestLog:
        """The rows of one traffic."""
        index = self.traffics.index(name) if name in self.traffics else -1
        return self.where(self.traffic == index)

    def write_csv(self, path: Path, t0_unix: float, step_names: Sequence[str]) -> None:
        """One line per request; times in seconds since the run began, whose unix time is in the column t0_unix."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["t0_unix", *_CSV])
            for i in range(len(self)):
                times = (self.intended[i], self.start[i], self.first_token[i], self.end[i])
                writer.writerow(
                    [f"{t0_unix:.6f}", step_names[self.step[i]], self.traffics[self.traffic[i]],
                     *("" if np.isnan(t) else f"{t:.6f}" for t in times), int(self.status[i]),
                     Outcome(int(self.outcome[i])).name.lower(), self.pools[self.pool[i]], int(self.tokens[i])]
                )  # fmt: skip


_CSV = ("step", "traffic", "intended_s", "start_s", "first_token_s", "end_s", "status", "outcome", "pool", "tokens")
