"""The page and the picture of bench/prediction/measure.py."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from bench.prediction.cells import BATCHES, LONG_RUN, Cell, Measured, Trial
from bench.prediction.formulas import BATCH, FULL, HELD, NAMES, PAPER, PLANNER, SPLIT, SPREAD, forecasts
from tierserve.api import GenAIDeployment
from tierserve.report.figures import INK, STYLE

Runs = Mapping[str, tuple[Trial, Measured, list[Cell]]]
GOAL = 0.10
CLOSE = (HELD, SPREAD, BATCH, PLANNER)
COLOURS = {
    HELD: "#2563c9", BATCH: "#1f9d87", PLANNER: "#8f63c9", SPLIT: "#d98a1f", FULL: "#66758a", PAPER: "#d1495b",
}  # fmt: skip
WHAT = {
    HELD: "as the next; a request holds its slot on the path between gateway and replica too, "
    "r(n) = n / (T(n) + overhead)",
    SPREAD: "as the next; its wait times M/G/c over M/M/c (`mean_wait_general`), for the spread of the lengths",
    BATCH: "`batch_queue`: one queue, replicas that slow down as their batches fill",
    PLANNER: "`make_plan`, as `tierserve plan`: `batch_response`, given `output.spread`",
    SPLIT: "`batch_queue` of one replica with its part of the arrivals: a queue at each replica",
    FULL: "M/M/c with the service time of a full replica",
    PAPER: "M/M/c with the service time of an empty replica, as the paper has it",
}


def picture(runs: Runs, files: Mapping[str, GenAIDeployment], path: Path) -> None:
    """Mean response over the load, measured and predicted, one panel for each pool."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(14, 6.2), dpi=110, layout=ConstrainedLayoutEngine(w_pad=0.16, h_pad=0.14))
        panels: Any = figure.subplots(1, len(runs))
        for axes, (name, run) in zip(panels, runs.items(), strict=True):
            _panel(axes, *run, files[name])
            axes.set_title(name)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
        figure.savefig(path)


def _panel(axes: Any, trial: Trial, seen: Measured, found: list[Cell], gaid: GenAIDeployment) -> None:
    way_s, held_s = seen.way_s(trial.case), seen.held_s(trial.case)
    loads = np.linspace(0.05, 0.96, 40)
    said = [forecasts(trial.case, gaid, load * trial.case.capacity, held_s) for load in loads]
    for name, colour in COLOURS.items():
        axes.plot(loads, [one[name].mean + way_s for one in said], color=colour, lw=1.8, label=name)
    axes.errorbar(
        [cell.load for cell in found], [cell.mean for cell in found], [cell.half for cell in found], fmt="o", ms=6,
        color=INK, capsize=4, lw=1.4, zorder=5, label="measured, with its 95% interval",
    )  # fmt: skip
    axes.errorbar(
        [cell.load for cell in found], [cell.adjusted for cell in found], [cell.adjusted_half for cell in found],
        fmt="s", ms=5, mfc="white", color=INK, capsize=4, lw=1.0, zorder=6,
        label="measured, adjusted",
    )  # fmt: skip
    axes.set_ylim(0, 1.35 * max(cell.mean + cell.half for cell in found))
    axes.set_xlim(0, 1)
    axes.set_xlabel("load, of what all replicas can finish when full")
    axes.set_ylabel("mean response, s")


def page(runs: Runs, machine: str, image: str) -> str:
    """The Markdown page."""
    sections = "\n".join(_section(*run) for run in runs.values())
    some = next(iter(runs.values()))[0]
    case, profile = some.case, some.case.profile
    what = "\n".join(f"- **{name}**: {words}." for name, words in WHAT.items())
    return f"""# Predicted and measured response times

Made by `make bench-prediction` on {machine}, Python {platform.python_version()}, Ray {version("ray")}, seed
{some.seed}. *Machine busy* includes other work on the machine.

Real Ray Serve behind the gateway as `tierserve up` runs it, with the emulated engine: alpha {profile.alpha * 1e3:g} ms,
beta {profile.beta * 1e3:g} ms, gamma {profile.gamma * 1e6:g} us, prompts of {case.input_tokens} tokens; a request takes
{case.service_s(1):.2f} s alone and {case.service_s(case.slots):.2f} s in a full replica. The number of replicas is
fixed. Poisson arrivals, an open loop; response times are the client's, from the intended start, without a warm-up. A
prediction uses the profile, the mean length, the rate, and the overhead of the path (client, gateway, Ray Serve,
Python), measured with one request at a time before the load.

![Mean response over the load, measured and predicted]({image})

{summary(runs)}

{what}

p95 of a prediction: waits are exponential; service is in proportion to the response's length, in a batch as full as at
the arrival. The planner's is its own (`response_s`), for lengths that are lognormal with the declared spread.
{sections}
## What the columns mean

The interval is of the mean, by the means of {BATCHES} consecutive batches; near capacity busy and quiet periods last as
long as a batch, and it is too narrow. *Same arrivals* are the arrivals and lengths of the run in virtual time, in the
engine's own arithmetic (`engines/batch.py`) behind one queue: the run without the machine's overhead and noise. *Long
run* is {LONG_RUN:,} / (1 - load) requests of it: the reference of a formula. Measured, less same arrivals,
plus long run is the *adjusted* value, without the sampling error of the arrivals (a control variate). In all of these
a request holds its slot on the path between gateway and replica too.
"""


def summary(runs: Runs) -> str:
    """Worst error of each formula over all pools and loads, measured and adjusted."""
    found = [cell for _, _, mine in runs.values() for cell in mine]
    of = (Cell.error, Cell.adjusted_error, Cell.p95_error, Cell.adjusted_p95_error)
    rows = [(name, *(_worst([error(cell, name) for cell in found]) for error in of)) for name in NAMES]
    head = ("worst error of", "mean", "mean, adjusted", "p95", "p95, adjusted")
    real = max((cell.mean / cell.same_mean - 1.0 for cell in found), key=abs)
    return f"""{_table(head, rows)}

In brackets: pools and loads with an error of {GOAL:.0%} or less. *Adjusted* is explained below: near capacity a
run of minutes has a large sampling error. Means on real Ray Serve were off those of the same
arrivals in virtual time by {real:+.1%} at worst."""


def _worst(errors: list[float]) -> str:
    inside = sum(abs(error) <= GOAL for error in errors)
    return f"{max(errors, key=abs):+.1%} ({inside} of {len(errors)})"


def _section(trial: Trial, seen: Measured, found: list[Cell]) -> str:
    alone_s = trial.case.service_s(1)
    return f"""
## {trial.name}

One request alone took {seen.alone_s * 1e3:.1f} ms, of that {(seen.alone_s - alone_s) * 1e3:.1f} ms overhead; directly
to Ray Serve's proxy {(seen.serve_s - alone_s) * 1e3:.1f} ms. {seen.failed} of {len(seen.part) + seen.failed:,} requests
failed; the client's requests were at most {seen.lag_s * 1e3:.0f} ms late. Capacity: {trial.case.capacity:.1f}
requests/s.

| load | requests/s | requests | machine busy | measured mean, ms | measured p95, ms |
|---|---|---|---|---|---|
{_lines(found, _seen)}

Predicted mean in ms, and its error:

{_matrix(found, lambda cell, name: _both(cell.said[name].mean + cell.way_s, cell.error(name)))}

The same without the overhead:

{_matrix(found, lambda cell, name: _both(cell.said[name].mean, cell.error(name, way=False)))}

Predicted p95 in ms, and its error:

{_matrix(found, lambda cell, name: _both(cell.said[name].p95 + cell.way_s, cell.p95_error(name)))}

Adjusted means in ms, and their errors:

{_lucky(found, _luck)}

p95 likewise:

{_lucky(found, _luck_p95)}
"""


def _seen(cell: Cell) -> tuple[str, ...]:
    return (
        f"{cell.rate:.1f}", f"{cell.requests:,}", f"{cell.busy:.0%}",
        f"{cell.mean * 1e3:,.0f} ± {cell.half * 1e3:,.0f}", f"{cell.p95 * 1e3:,.0f}",
    )  # fmt: skip


def _luck(cell: Cell) -> tuple[str, ...]:
    return (
        *_draw(cell.mean, cell.same_mean, cell.long_mean),
        f"{cell.adjusted * 1e3:,.0f} ± {cell.adjusted_half * 1e3:,.0f}",
        *(f"{cell.adjusted_error(name):+.1%}" for name in CLOSE),
    )


def _luck_p95(cell: Cell) -> tuple[str, ...]:
    return (
        *_draw(cell.p95, cell.same_p95, cell.long_p95),
        f"{cell.adjusted_p95 * 1e3:,.0f}",
        *(f"{cell.adjusted_p95_error(name):+.1%}" for name in CLOSE),
    )


def _draw(measured: float, same: float, long: float) -> tuple[str, ...]:
    values = (f"{value * 1e3:,.0f}" for value in (measured, same, long))
    return (*values, f"{measured / same - 1.0:+.1%}")


def _lucky(found: list[Cell], row: Callable[[Cell], tuple[str, ...]]) -> str:
    head = ("load", "measured", "same arrivals", "long run", "measured over same arrivals", "adjusted", *CLOSE)
    return _table(head, [(f"{cell.load:g}", *row(cell)) for cell in found])


def _lines(found: list[Cell], row: Callable[[Cell], tuple[str, ...]]) -> str:
    return "\n".join(f"| {cell.load:g} | {' | '.join(row(cell))} |" for cell in found)


def _matrix(found: list[Cell], entry: Callable[[Cell, str], str]) -> str:
    rows = [(f"{cell.load:g}", *(entry(cell, name) for name in NAMES)) for cell in found]
    return _table(("load", *NAMES), rows)


def _both(value_s: float, error: float) -> str:
    return f"{value_s * 1e3:,.0f} ({error:+.1%})"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
