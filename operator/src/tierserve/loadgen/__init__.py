"""Load: ask a service as many users would, and measure what each of them waited.

The way of the data: `plan` says what to ask and when -> `run` asks (asyncio, aiohttp) and keeps one row per
request -> `samples` holds the rows as columns -> `summary` makes percentiles and shares per step of them.

Open loops and traces send at their own times, whatever the service does, and count every latency from the *intended*
start, so a service that stalls cannot hide the requests it made wait (no coordinated omission). Closed loops hold a
number of users that wait for their answer, then think, then ask again.

The names below are looked up on first use: not every one needs numpy and aiohttp.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tierserve.loadgen.errors import LoadError
    from tierserve.loadgen.runner import Progress, run_load
    from tierserve.loadgen.samples import Outcome, RequestLog
    from tierserve.loadgen.scenario import (
        ClosedLoop,
        LoadPlan,
        OpenLoop,
        Replay,
        Step,
        Traffic,
        connection_steps,
        rate_steps,
        replay_step,
    )
    from tierserve.loadgen.summary import LoadResult, StepResult, Summary
    from tierserve.loadgen.traces import Trace, load_trace, trace_names

__all__ = [
    "ClosedLoop",
    "LoadError",
    "LoadPlan",
    "LoadResult",
    "OpenLoop",
    "Outcome",
    "Progress",
    "Replay",
    "RequestLog",
    "Step",
    "StepResult",
    "Summary",
    "Trace",
    "Traffic",
    "connection_steps",
    "load_trace",
    "rate_steps",
    "replay_step",
    "run_load",
    "trace_names",
]
_MODULES = {
    "LoadError": "errors",
    "Progress": "runner",
    "run_load": "runner",
    "Outcome": "samples",
    "RequestLog": "samples",
    "LoadResult": "summary",
    "StepResult": "summary",
    "Summary": "summary",
    "Trace": "traces",
    "load_trace": "traces",
    "trace_names": "traces",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'scenario')}"), name)
