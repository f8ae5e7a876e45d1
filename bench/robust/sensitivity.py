"""The constants of the decision at half and at twice their value, on some of the loads to develop on.

    python -m bench.robust.sensitivity                  docs/benchmarks/sensitivity.md (ten minutes of one core)
    python -m bench.robust.sensitivity --quick          three loads, printed only

A constant that was tuned to its loads is best at its value and bad beside it; one that has a reason is not.
"""

from __future__ import annotations

import argparse
import ast
import os
import pkgutil
import platform
import statistics
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from bench.autoscaling.measure import ROOT
from bench.robust.judge import Row, judge
from bench.robust.loads import Load
from bench.robust.page import OURS
from bench.robust.summary import geometric_mean, load_named
from tierserve.simulate.policies.ours import Ours

PACKAGE = "tierserve.autoscale"
PAGE = ROOT / "docs" / "benchmarks" / "sensitivity.md"
LOADS = ("azure-code-x3", "closed-11", "mooncake-conversation-x3", "spikes-79", "growth-29", "batches-92")
"""Loads that take a second or two, each of another kind, some of which miss their objective or nearly do: all are run
twice for each constant."""
QUICK = ("azure-code-x3", "closed-11", "mooncake-conversation-x3")
FACTORS = (0.5, 2.0)
NOTABLE = 1.05
"""Change of the GPU-hours that is printed in bold, as is each change of the loads that met."""
Value = float | tuple[float, ...]


@dataclass(frozen=True)
class Constant:
    """A constant of the decision.

    Attributes:
        module, name: in `tierserve.autoscale`.
        reason: what it is and why it has its value, in a few words.
        around: 1 for a factor near 1, of which the distance from 1 is halved and doubled.
    """

    module: str
    name: str
    reason: str
    around: float = 0.0

    @property
    def owner(self) -> ModuleType:
        """The module that defines it."""
        return import_module(f"{PACKAGE}.{self.module}")

    @property
    def value(self) -> Value:
        """As shipped."""
        found: Value = getattr(self.owner, self.name)
        return found

    def times(self, factor: float) -> Value:
        """Return the value at a factor; a whole number stays one."""
        value = self.value
        if isinstance(value, tuple):
            return tuple(factor * one for one in value)
        changed = self.around + factor * (value - self.around)
        return int(changed) if isinstance(value, int) else round(changed, 12)


CONSTANTS = (
    Constant("rate", "WINDOWS", "windows, in horizons: a quarter is the least in which a replica starts; doubled"),
    Constant("rate", "_BEYOND_CHANCE", "standard errors for a trend: one in twenty by chance"),
    Constant("rate", "_EACH_QUARTER", "of a rise, in each quarter of the window, so that a step is no trend"),
    Constant("rate", "_MOST_GROWTH", "largest growth forecast in a start-up time: two doublings"),
    Constant("rate", "_PARTS", "counts kept per horizon: ten in the shortest window"),
    Constant("rate", "_HALF_LIFE", "of the errors, in horizons: some forecasts, not one"),
    Constant("rate", "_ADVANTAGE", "error from which another forecast replaces the one in use", around=1.0),
    Constant("rate", "_AROUND", "of a horizon, over which a forecast is compared with what came"),
    Constant("rate", "_SURE", "mean errors (five standard errors) from which a step is believed at once"),
    Constant("budget", "HALF_LIFE_BLOCKS", "of the counts, in blocks: several bursts that come once in some blocks"),
    Constant("budget", "_PRIOR", "responses assumed, so that a handful says little"),
    Constant("budget", "_UP", "caution in a block over the budget: twice it in two blocks", around=1.0),
    Constant("budget", "_DOWN", "caution in a calm block: slower than up", around=1.0),
    Constant("budget", "MOST", "largest caution"),
    Constant("budget", "_CALM", "share of the budget under which caution falls"),
    Constant("budget", "_ERRORS", "standard errors of the responses counted that are left to chance"),
    Constant("budget", "MOST_MARGIN", "largest margin: service times twice the configured ones", around=1.0),
    Constant("stabilization", "HORIZONS", "window, in horizons: what a wrong removal costs, several times"),
    Constant("stabilization", "REGRET", "factor on the window after a removal that was regretted"),
    Constant("stabilization", "STANDS", "factor on the window after one that stood"),
    Constant("stabilization", "LONGEST_S", "longest window by regret: an hour, as load changes by the hour"),
    Constant("stabilization", "_BLOCKS", "blocks in a window: one for each start-up time"),
    Constant("decide", "TRUST", "of the late share allowed, that the replay may have: it does not see all lateness"),
    Constant("decide", "LEARNED", "start-up times of which the median is taken: outlives one slow image pull"),
    Constant("sizing", "WAITS", "of a service time: least wait that counts as late"),
    Constant("demand", "_LEVEL_WINDOW_S", "least time over which the requests in the system are seen to be constant"),
    Constant("demand", "_LEVEL_SERVICES", "the same in service times: any stream is constant within a few"),
    Constant("demand", "_LEVEL_VARIANCE", "variance to mean, to be constant: Poisson arrivals have 1"),
    Constant("history", "KEEP_S", "how long the history is: regimes and service times need minutes"),
    Constant("load", "IMPLAUSIBLE", "standard errors of a change of the load: one in 150,000 by chance"),
    Constant("load", "_MODEL_ERROR", "relative error of a rate that is no change"),
    Constant("load", "_Z_QUANTILE", "each side of the confidence interval of the peakedness"),
    Constant("load", "_CLOSED", "peakedness of a closed loop: Poisson arrivals have 1, a closed loop nearly 0"),
    Constant("load", "_SERVICE_WINDOW_S", "finished requests for the service time: some minutes"),
    Constant("load", "_SERVICE_ERRORS", "standard errors from which the service time moves"),
    Constant("load", "_SERVICE_TOLERANCE", "relative error from which it moves"),
    Constant("load", "_SPREAD_TOLERANCE", "relative error from which its deviation moves"),
    Constant("load", "_UNKNOWN_CV", "coefficient of variation until it is known"),
    Constant("load", "_WELL_KNOWN", "finished requests from which it is known"),
)
NOT_VARIED = (
    ("of the calibration, which these loads do not need: the profile is right ([calibration](calibration.md))", (
        "calibration.FOLLOWED", "calibration.REQUESTS", "calibration.LONGEST_S", "calibration.PRIOR_SD",
        "calibration.NOISE", "calibration.MEMORY", "calibration.RECENT", "calibration.OUTLIER", "calibration.ENOUGH",
        "calibration.MAX_RELATIVE_STD", "calibration.STILL",
    )),
    ("limits against invalid data", (
        "calibration._LARGEST", "calibration._FURTHEST", "history._LARGEST", "load._LONGEST_S", "load._WIDEST_CV",
        "snapshot._EARLIEST_S", "snapshot._MOST_BYTES", "snapshot.OLDEST_S",
    )),
    ("bounds of the peakedness, beyond which its estimate is noise", (
        "load._Z_MIN", "load._Z_MAX",
    )),
    ("for pools without a gateway, or replicas that stop reporting, which these loads do not have", (
        "demand._SMOOTH_S", "history._FORGET_REPLICA_S", "history._HIDDEN_WINDOW_S", "history._HIDDEN_RATE_WINDOW_S",
    )),
    ("for replicas that start within three seconds, which these loads do not have", ("stabilization.LEAST_S",)),
    ("resolution of the replay, against the time of a decision", ("replay._EXACT", "replay._STEP", "replay._LARGEST")),
    ("shown, not decided by", ("decide._BATCH_WINDOW_S",)),
    ("mathematics, sizes and indices", (
        "calibration._V", "rate.FORECASTS", "rate._FIRST", "rate._MAE", "replay.GRID_SIZE", "replica_metrics.TIME",
        "replica_metrics.STARTUP", "replica_metrics._NAN", "snapshot.FORMAT",
    )),
)  # fmt: skip
"""The other numbers of the package: why they are not varied, and module and name."""


def modules() -> list[ModuleType]:
    """Return the modules of the decision."""
    package = import_module(PACKAGE)
    return [import_module(f"{PACKAGE}.{one.name}") for one in pkgutil.iter_modules(package.__path__)]


def numbers() -> list[str]:
    """Return module and name of all numbers, and tuples of numbers, that modules of the decision define."""
    return [f"{one.__name__.rsplit('.', 1)[1]}.{name}" for one in modules() for name in _assigned(one)]


def _assigned(module: ModuleType) -> Iterator[str]:
    spec = find_spec(module.__name__)
    assert spec is not None and spec.origin is not None
    for node in ast.parse(Path(spec.origin).read_text()).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for name in (inner.id for one in targets for inner in ast.walk(one) if isinstance(inner, ast.Name)):
            if _is_number(getattr(module, name, None)):
                yield name


def _is_number(value: object) -> bool:
    if isinstance(value, tuple):
        return bool(value) and all(_is_number(one) for one in value)
    return isinstance(value, int | float) and not isinstance(value, bool)


@contextmanager
def changed(constant: Constant, value: Value) -> Iterator[list[ModuleType]]:
    """Give a constant another value in all modules that have it, until the end of the block; yield these."""
    shipped = constant.value
    # another module may have a constant of its own by this name, but not the same object
    bound = [one for one in modules() if getattr(one, constant.name, None) is shipped]
    try:
        for one in bound:
            setattr(one, constant.name, value)
        yield bound
    finally:
        for one in bound:
            setattr(one, constant.name, shipped)


@cache
def _load(name: str) -> Load:
    return load_named("develop", name)


Task = tuple[Constant | None, float, tuple[str, ...]]
"""A constant (None: as shipped), the factor on it, and names of loads."""


def run(task: Task) -> list[Row]:
    """Return the rows of TierServe's rule."""
    constant, factor, names = task
    if constant is None:
        return [judge(_load(name), Ours(_load(name).pool), OURS) for name in names]
    with changed(constant, constant.times(factor)):
        return run((None, 1.0, names))


def run_tasks(tasks: Sequence[Task], jobs: int) -> Iterator[list[Row]]:
    """Yield the rows of each task, in order."""
    if jobs == 1:
        yield from map(run, tasks)
        return
    with ProcessPoolExecutor(jobs) as workers:
        yield from workers.map(run, tasks)


@dataclass(frozen=True)
class Effect:
    """The loads at another value, against those as shipped.

    Attributes:
        met: on how many the objective was met.
        hours: GPU-hours over those as shipped, geometric mean.
        turns: changes of direction per hour, median.
        same: whether all figures of all loads are as shipped.
    """

    met: int
    hours: float
    turns: float
    same: bool

    @classmethod
    def of(cls, rows: Sequence[Row], shipped: Sequence[Row]) -> Effect:
        """Return the effect."""
        hours = geometric_mean([a.gpu_hours / b.gpu_hours for a, b in zip(rows, shipped, strict=True)])
        same = [_figures(one) for one in rows] == [_figures(one) for one in shipped]
        return cls(sum(one.met for one in rows), hours, statistics.median(one.reversals for one in rows), same)

    def cells(self, met: int) -> list[str]:
        """Return them as cells, in bold where they differ by much."""
        if self.same:
            return ["same", "", ""]
        notable = not 1.0 / NOTABLE < self.hours < NOTABLE
        return [
            f"**{self.met}**" if self.met != met else str(self.met),
            f"**{self.hours:.3f}**" if notable else f"{self.hours:.3f}",
            f"{self.turns:.2f}",
        ]


def _figures(row: Row) -> tuple[float, float, float]:
    return row.share, row.gpu_hours, row.reversals


def shown(value: Value) -> str:
    """Return a value as in the table."""
    return ", ".join(f"{one:g}" for one in value) if isinstance(value, tuple) else f"{value:g}"


def line(constant: Constant, effects: Sequence[Effect], met: int) -> str:
    """Return the row of a constant."""
    cells = [f"`{constant.module}.{constant.name}`", shown(constant.value), constant.reason]
    for factor, effect in zip(FACTORS, effects, strict=True):
        cells += [shown(constant.times(factor)), *effect.cells(met)]
    return f"| {' | '.join(cells)} |"


HEAD = (
    "| constant | value | what, and why | half | met | hours | turns/h | twice | met | hours | turns/h |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|"
)


def shipped_line(shipped: Sequence[Row]) -> str:
    """Return the first row of the table."""
    one = Effect.of(shipped, shipped)
    return f"| as shipped | | | | {one.met} | 1.000 | {one.turns:.2f} | | {one.met} | 1.000 | {one.turns:.2f} |"


def page(names: Sequence[str], shipped: Sequence[Row], found: dict[Constant, list[Effect]], cpu_s: float) -> str:
    """Return docs/benchmarks/sensitivity.md."""
    met = sum(row.met for row in shipped)
    without = [f"`{one.module}.{one.name}`" for one, effects in found.items() if all(e.same for e in effects)]
    loads = "\n".join(
        f"- {row.load}: {row.share:.1%} of {_load(row.load).pool.objective.percentile:g}%, {row.gpu_hours:.2f} "
        f"GPU-hours, {row.reversals:.1f} turns per hour; {_load(row.load).about}"
        for row in shipped
    )
    others = "\n".join(
        f"- {reason}: {', '.join(f'`{name}`' for name in names_there)}" for reason, names_there in NOT_VARIED
    )
    table = "\n".join([HEAD, shipped_line(shipped), *(line(one, effects, met) for one, effects in found.items())])
    return f"""# The constants of the decision, at half and at twice their value

Made by `python -m bench.robust.sensitivity` ({os.cpu_count()} cores, Python {platform.python_version()};
{cpu_s / 60.0:.0f} minutes of one core). All figures but this time are the same on any machine.

TierServe's rule on {len(names)} of the loads that it was developed on (`bench/robust/loads.py`), each constant of
`operator/src/tierserve/autoscale/` changed alone. A constant that was tuned to the loads is best at its value and bad
beside it. The loads, and the rule as shipped:

{loads}

Columns:

- *half*, *twice*: the value; of a factor near 1, half and twice its distance from 1. Whole numbers are rounded down.
- *met*: loads on which the objective was met, of {len(names)}. Bold: another number than as shipped.
- *hours*: GPU-hours over those as shipped, geometric mean. Bold: 5% or more.
- *turns/h*: changes of direction of the target per hour, median
- *same*: all figures of all loads are as shipped

A single load that is met or not is little: some are within a percent of their objective.

{table}

On these loads {len(without)} of the {len(found)} change no figure, at half or at twice:
{", ".join(without) or "none"}.

## Not varied

{others}

`tests/unit/bench/test_robust_sensitivity.py` fails when a number is in neither list.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--quick", action="store_true", help="three loads; writes nothing")
    arguments = parser.parse_args()
    names = QUICK if arguments.quick else LOADS
    tasks: list[Task] = [(None, 1.0, names), *((one, factor, names) for one in CONSTANTS for factor in FACTORS)]
    results = run_tasks(tasks, arguments.jobs)
    shipped = next(results)
    cpu_s, met = sum(row.cpu_s for row in shipped), sum(row.met for row in shipped)
    print(f"{HEAD}\n{shipped_line(shipped)}", flush=True)
    found: dict[Constant, list[Effect]] = {}
    for one in CONSTANTS:
        both = [next(results) for _ in FACTORS]
        found[one] = [Effect.of(rows, shipped) for rows in both]
        cpu_s += sum(row.cpu_s for rows in both for row in rows)
        print(line(one, found[one], met), flush=True)
    if not arguments.quick:
        PAGE.write_text(page(names, shipped, found, cpu_s))
        print(PAGE)


if __name__ == "__main__":
    main()
