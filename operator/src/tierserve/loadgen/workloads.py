"""Recorded traces as the simulator takes them."""

from __future__ import annotations

import numpy as np

from tierserve.loadgen.traces import load_trace
from tierserve.simulate.types import Workload


def traced(name: str, *, seed: int = 0) -> Workload:
    """A trace by the name or path that `load_trace` takes, whole; an answer of no token counts as one of one.

    Raises:
        LoadError: unknown name, unreadable file or columns.
    """
    found = load_trace(name, seed=seed)
    outputs = np.maximum(found.output_tokens, 1)
    return Workload(found.times_s, found.input_tokens, outputs, found.length_s, found.name, found.source)
