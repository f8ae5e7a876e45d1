"""Exact percentiles over a sliding window, limited in time and in number of samples."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from tierserve_serving.gateway.access_log import RequestRecord

KEPT = 20_000
"""Maximum number of samples per pool; above KEPT / window requests per second the window gets shorter."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Summary of the window; percentiles in seconds over successful requests, None if there are none."""

    count: int
    errors: int
    aborted: int
    rate: float
    p50_s: float | None = None
    p95_s: float | None = None
    p99_s: float | None = None
    first_byte_p95_s: float | None = None
    queue_p95_s: float | None = None
    within_target: float | None = None


class Window:
    """Records of one pool with the time of their end."""

    def __init__(self, length_s: float) -> None:
        self.length_s = length_s
        self._records: deque[tuple[float, RequestRecord]] = deque(maxlen=KEPT)

    def add(self, now: float, record: RequestRecord) -> None:
        """`now` is a monotonic clock, in seconds."""
        self._records.append((now, record))

    def summary(self, now: float, target_s: float | None = None) -> Summary:
        """Summary of the last `length_s`; failed requests count as missing the target, aborted ones are not counted."""
        while self._records and self._records[0][0] < now - self.length_s:
            self._records.popleft()
        records = [r for _, r in self._records]
        answered = [r for r in records if r.code < 400 and not r.aborted]
        errors = sum(r.code >= 500 and not r.aborted for r in records)
        aborted = sum(r.aborted for r in records)
        rate = len(records) / self.length_s
        if not answered:
            return Summary(len(records), errors, aborted, rate, within_target=0.0 if errors and target_s else None)
        durations = np.array([r.duration_s for r in answered])
        p50, p95, p99 = (float(x) for x in np.percentile(durations, (50, 95, 99)))
        within = None
        if target_s is not None:
            within = float(np.count_nonzero(durations <= target_s)) / (len(answered) + errors)
        return Summary(
            count=len(records),
            errors=errors,
            aborted=aborted,
            rate=rate,
            p50_s=p50,
            p95_s=p95,
            p99_s=p99,
            first_byte_p95_s=_p95([r.first_byte_s for r in answered]),
            queue_p95_s=_p95([r.queue_s for r in answered]),
            within_target=within,
        )


def _p95(values: list[float | None]) -> float | None:
    measured = [v for v in values if v is not None]
    return float(np.percentile(measured, 95)) if measured else None
