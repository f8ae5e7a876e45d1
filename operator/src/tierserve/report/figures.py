"""The charts of a run, each a function of a record that draws on given axes; light, legible, no host needed."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator, PercentFormatter

from tierserve.report.record import RunRecord, StepRecord

INK, MUTED, GRID, TARGET, MAIN = "#1c2733", "#66758a", "#e6ebf1", "#d1495b", "#2563c9"
_TIERS = {"device": "#8f63c9", "edge": "#1f9d87", "cloud": "#2563c9"}
_MORE = ("#d98a1f", "#5c7a29", "#a8467b", "#4b7f9e")

STYLE: Any = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 10.5,
    "axes.edgecolor": "#b7c2cf", "axes.labelcolor": MUTED, "axes.titlecolor": INK, "axes.titlesize": 12.5,
    "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlepad": 12, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "axes.grid.axis": "y", "axes.axisbelow": True, "grid.color": GRID,
    "xtick.color": MUTED, "ytick.color": MUTED, "text.color": INK, "legend.frameon": False, "legend.fontsize": 9.5,
    "svg.fonttype": "none", "svg.hashsalt": "tierserve", "figure.facecolor": "white", "lines.linewidth": 2,
}  # fmt: skip

Draw = Callable[[Axes, RunRecord], None]


def pool_colour(pool: str, pools: list[str]) -> str:
    """A tier keeps its colour in every chart."""
    tier = pool.split("-", maxsplit=1)[0]
    return _TIERS.get(tier) or _MORE[pools.index(pool) % len(_MORE)]


def pool_label(pool: str) -> str:
    """`edge-default` is shown as `edge`."""
    return pool.removesuffix("-default")


def response_over_connections(axes: Axes, record: RunRecord) -> None:
    """The line that has to be flat: p95 (and p50) of each step over its connections, against the target."""
    steps = [s for s in record.connection_steps if s.p95_s is not None]
    x = [s.connections or 0 for s in steps]
    p95, p50 = [s.p95_s or 0.0 for s in steps], [s.p50_s or 0.0 for s in steps]
    axes.set_title(f"Response time over connections, p{record.percentile:g} of every step")
    _target(axes, record)
    axes.plot(x, p50, color=MUTED, lw=1.4, marker="o", ms=3.5, label="p50")
    axes.plot(x, p95, color=MAIN, lw=2.6, marker="o", ms=6.5, label=f"p{record.percentile:g}")
    for xi, yi in zip(x, p95, strict=True):
        axes.annotate(f"{yi * 1e3:.0f}", (xi, yi), (0, 9), textcoords="offset points", ha="center", color=MAIN)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(x))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.set_ylim(0, 1.25 * max([record.target_s, *p95]))
    axes.yaxis.set_major_formatter(milliseconds())
    axes.set_xlabel("concurrent connections (log scale)")
    axes.set_ylabel("response time, ms")
    axes.legend(loc="lower right", ncols=3)


def replicas_over_time(axes: Axes, record: RunRecord) -> None:
    """Replicas that serve, per pool."""
    pools = list(record.pools)
    axes.set_title("Replicas over time", pad=22)
    for pool, points in record.pools.items():
        times = np.array([*(max(0.0, p.t) for p in points), record.end_s])
        counts = np.array([*(p.replicas for p in points), points[-1].replicas if points else 0])
        colour = pool_colour(pool, pools)
        axes.step(times, counts, where="post", color=colour, label=pool_label(pool))
        axes.fill_between(times, counts, step="post", color=colour, alpha=0.10, lw=0)
    axes.set_ylim(bottom=0)
    axes.margins(y=0.15)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("replicas")
    _time_axis(axes, record)
    axes.legend(loc="upper left", ncols=len(pools))


def responses_over_time(axes: Axes, record: RunRecord) -> None:
    """Every response as a dot, warm-up parts included."""
    axes.set_title("Every response", pad=22)
    samples = np.array(record.samples or [(np.nan, np.nan)])
    if len(samples) > 6000:  # enough to show the shape; the figures use all of them
        samples = samples[np.random.default_rng(0).choice(len(samples), 6000, replace=False)]
    axes.scatter(samples[:, 0], samples[:, 1], s=5, color=MAIN, alpha=0.30, lw=0, rasterized=True)
    _target(axes, record)
    axes.set_yscale("log")  # a few that waited for replicas to start must not flatten all others
    axes.yaxis.set_major_formatter(milliseconds())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("response time, ms (log scale)")
    _time_axis(axes, record)


def share_within(axes: Axes, record: RunRecord) -> None:
    """Share of requests within the objective, per step; failures are misses."""
    axes.set_title("Requests within the objective")
    shares = [s.within_slo if s.within_slo is not None else 0.0 for s in record.steps]
    wanted = record.percentile / 100
    colours = [_TIERS["edge"] if share >= wanted else TARGET for share in shares]
    axes.bar(range(len(shares)), shares, width=0.62, color=colours)
    for i, share in enumerate(shares):
        axes.annotate(f"{100 * share:.3g}", (i, share), (0, 3), textcoords="offset points", ha="center", fontsize=9)
    axes.axhline(wanted, color=TARGET, lw=1.3, ls=(0, (4, 3)))
    axes.set_ylim(0, 1.13)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    _step_axis(axes, record)


def prediction_against_observation(axes: Axes, record: RunRecord) -> None:
    """Per step and pool: p95 as the policy predicted it (ring) and as clients saw it (dot)."""
    axes.set_title(f"Prediction (ring) against observation (dot), p{record.percentile:g}")
    pools = list(record.pools)
    shown = [pool for pool in pools if any(pool in step.observed_p95_s for step in record.steps)]
    for offset, pool in enumerate(shown):
        shift = 0.22 * (offset - (len(shown) - 1) / 2)
        _pairs(axes, record, pool, shift, pool_colour(pool, pools))
    _target(axes, record)
    axes.margins(y=0.35)
    axes.set_ylim(0, None)
    axes.yaxis.set_major_formatter(milliseconds())
    axes.set_ylabel("response time, ms")
    _step_axis(axes, record)
    axes.legend(loc="best", ncols=len(shown) + 1)


def _pairs(axes: Axes, record: RunRecord, pool: str, shift: float, colour: str) -> None:
    """Dots, rings and the line between them, of one pool."""
    for i, step in enumerate(record.steps):
        observed, predicted = step.observed_p95_s.get(pool), step.predicted_p95_s.get(pool)
        if observed is None:
            continue
        axes.scatter(i + shift, observed, s=34, color=colour, zorder=3)
        if predicted is not None:
            axes.plot([i + shift] * 2, [observed, predicted], color=colour, lw=1.2)
            axes.scatter(i + shift, predicted, s=44, facecolor="white", edgecolor=colour, zorder=2.5)
    axes.scatter([], [], s=34, color=colour, label=pool_label(pool))


def replica_seconds(axes: Axes, record: RunRecord) -> None:
    """What the run cost, beside a fleet that stands at its peak all the time."""
    axes.set_title("Replica-seconds")
    pools = list(record.pools)[::-1]
    used = record.replica_seconds()
    peak = {p: max((point.replicas for point in record.pools[p]), default=0) * record.end_s for p in pools}
    axes.barh(pools, [peak[p] for p in pools], height=0.56, color="#edf1f6", label="if kept at its peak")
    axes.barh(pools, [used[p] for p in pools], height=0.56, color=[pool_colour(p, list(record.pools)) for p in pools])
    for pool in pools:
        axes.annotate(f"{used[pool]:,.0f}", (used[pool], pool), (6, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(pools)), [pool_label(p) for p in pools])
    axes.margins(x=0.12)
    axes.grid(visible=False)
    axes.set_xlabel("replicas x seconds over the run (grey: kept at its peak all the time)")


CHARTS: tuple[tuple[str, Draw, tuple[float, float]], ...] = (
    ("response", response_over_connections, (12.6, 4.2)),
    ("replicas", replicas_over_time, (12.6, 3.4)),
    ("responses", responses_over_time, (12.6, 3.4)),
    ("within", share_within, (6.2, 3.4)),
    ("prediction", prediction_against_observation, (6.2, 3.4)),
    ("seconds", replica_seconds, (12.6, 2.3)),
)


_MOSAIC = """space space
response response
replicas responses
within prediction
seconds seconds"""


def png(record: RunRecord, path: Path, sentence: str) -> None:
    """All charts in one picture."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(15, 13.2), dpi=110, layout=ConstrainedLayoutEngine(w_pad=0.18, h_pad=0.16))
        rows: Any = [row.split() for row in _MOSAIC.splitlines()]
        lines = textwrap.wrap(sentence, 160, break_on_hyphens=False)
        axes = figure.subplot_mosaic(rows, height_ratios=[0.15 + 0.085 * len(lines), 1.25, 1, 1, 0.62])
        _heading(axes.pop("space"), record.title, lines)
        for name, draw, _ in CHARTS:
            draw(axes[name], record)
        credit = "  ·  ".join(filter(None, (record.machine, *record.sources)))
        axes["seconds"].annotate(credit, (1, 0), (0, -46), xycoords="axes fraction", textcoords="offset points",
                                 ha="right", fontsize=8.5, color=MUTED)  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def _heading(axes: Axes, title: str, lines: list[str]) -> None:
    axes.axis("off")
    below: Any = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "top", "in_layout": False}
    axes.annotate(title, (0, 1), (0, 0), fontsize=20, fontweight="bold", **below)
    axes.annotate("\n".join(lines), (0, 1), (0, -30), fontsize=11.5, color="#3a4859", **below)


def svg(record: RunRecord, name: str) -> str:
    """One chart as an SVG element to be put inline."""
    draw, size = next((draw, size) for chart, draw, size in CHARTS if chart == name)
    return drawn(name, size, lambda axes: draw(axes, record))


def drawn(name: str, size: tuple[float, float], draw: Callable[[Axes], None]) -> str:
    """A chart as an SVG element to be put inline; `size` in inches, `name` unique on the page."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, dpi=110, layout="constrained")
        draw(figure.subplots())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(buffer.getvalue(), name)


def _inline(document: str, name: str) -> str:
    """Without prolog, metadata and fixed size, and with ids that no other chart on the page has."""
    opening, _, rest = document[document.index("<svg") :].partition(">")
    opening = re.sub(r' (width|height)="[^"]*"', "", opening)
    element = f'{opening} role="img" aria-label="{name}">' + re.sub(
        r"<metadata>.*?</metadata>", "", rest, flags=re.DOTALL
    )
    element = re.sub(r'\bid="', f'id="{name}-', element)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", element)


def _target(axes: Axes, record: RunRecord) -> None:
    label = f"target {record.target_s * 1e3:.0f} ms"
    axes.axhline(record.target_s, color=TARGET, lw=1.5, ls=(0, (5, 3)), label=label)


def _time_axis(axes: Axes, record: RunRecord) -> None:
    """Seconds, with the steps as bands named by their connections."""
    axes.set_xlim(0, record.end_s or 1)
    axes.set_xlabel("seconds (bands: connections of the step)")
    for i, step in enumerate(record.steps):
        if i % 2:
            axes.axvspan(step.start_s, step.end_s, color="#f5f8fb", lw=0, zorder=0)
        axes.annotate(_short(step), ((step.start_s + step.end_s) / 2, 1.0), (0, 3), xycoords=("data", "axes fraction"),
                      textcoords="offset points", ha="center", fontsize=8.5, color=MUTED)  # fmt: skip


def _step_axis(axes: Axes, record: RunRecord) -> None:
    axes.set_xticks(range(len(record.steps)), [_short(step) for step in record.steps])
    axes.set_xlabel("connections")


def _short(step: StepRecord) -> str:
    return f"{step.connections}" if step.connections is not None else "trace"


def milliseconds() -> FuncFormatter:
    """Labels in milliseconds of an axis in seconds."""
    return FuncFormatter(lambda value, _: f"{value * 1e3:,.0f}")
