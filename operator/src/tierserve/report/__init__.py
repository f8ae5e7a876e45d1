"""Reports: one run in, one self-contained HTML page and one PNG out.

The way of the data: `record` (what was measured, as plain values, kept as JSON) -> `figures` (matplotlib) -> `page`.
"""

from tierserve.report.page import write_report
from tierserve.report.record import PoolPoint, RunRecord, StepRecord, from_load, headline

__all__ = ["PoolPoint", "RunRecord", "StepRecord", "from_load", "headline", "write_report"]
