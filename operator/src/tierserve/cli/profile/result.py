"""What `tierserve profile` has found, for its table, JSON and plot."""

from __future__ import annotations

from dataclasses import dataclass

from tierserve.loadgen.profiling import Measured, OpenRun
from tierserve.queueing.batching.fitting import Cell, Fit
from tierserve.queueing.batching.profile import BatchProfile
from tierserve_serving.engines.model_sizes import ModelSizes

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
_LEAST_S = 1e-13
"""Below it a coefficient is 0: a thousand tokens would add a tenth of a nanosecond."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Profile that the planner estimates for an accelerator (roofline)."""

    tier: str
    accelerator: str
    profile: BatchProfile


@dataclass(frozen=True, slots=True)
class Check:
    """Mean response of an open loop, predicted and measured, in seconds.

    Attributes:
        load: arrival rate over the rate of a full replica.
    """

    load: float
    predicted_s: float
    run: OpenRun

    @property
    def error(self) -> float:
        """(predicted - measured) / measured."""
        return self.predicted_s / self.run.mean_s - 1.0


@dataclass(frozen=True, slots=True)
class Profiled:
    """Measurement and fit of one replica.

    Attributes:
        target, model: what was measured.
        cells, fit: the measurement, and the profile.
        middle: prompt length for which throughput is shown.
        slots: requests that the replica serves at once; None if unknown.
        useful: batch from which on larger ones do not raise the throughput.
        refused: prompt lengths that the server refused, with its error.
        startup_s: seconds of each part of the start-up; None for a server that ran already.
        estimate: None without a file.
        sizes: of the model, by its files; None if they cannot be read here.
        checks: of --verify.
    """

    target: str
    model: str
    cells: tuple[Measured, ...]
    fit: Fit
    middle: int
    slots: int | None
    useful: int
    refused: dict[int, str]
    startup_s: dict[str, float] | None = None
    estimate: Estimate | None = None
    sizes: ModelSizes | None = None
    checks: tuple[Check, ...] = ()

    @property
    def largest(self) -> Cell:
        """Cell of the largest batch with the middle prompt and the short output."""
        top = max(one.cell.batch for one in self.cells)
        full = [one.cell for one in self.cells if one.cell.batch == top]
        return min(full, key=lambda cell: (abs(cell.input - self.middle), cell.output))

    @property
    def block(self) -> str:
        """`profile` of the model in YAML, in one line."""
        profile = self.fit.profile
        texts = (duration(profile.alpha), duration(profile.beta), duration(profile.gamma))
        return "profile: {{alpha: {}, beta: {}, gamma: {}}}".format(*texts)


def duration(seconds: float) -> str:
    """Return seconds as a duration of the resource, with four digits: 12.34ms, 1.2us."""
    if seconds < _LEAST_S:
        return "0s"
    scale, unit = next((one for one in _UNITS if seconds >= one[0]), _UNITS[-1])
    value = seconds / scale
    digits = 4 if value < 1e-3 else 3 if value < 10 else 2 if value < 100 else 1
    return f"{value:.{digits}f}".rstrip("0").rstrip(".") + unit
