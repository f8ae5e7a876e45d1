"""The picture of `tierserve plan --sweep`: response time, replicas and utilisation of each tier over connections."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from tierserve.api import GenAIDeployment
from tierserve.plan.capacity import refused_from
from tierserve.plan.sweep import Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # Okabe and Ito: told apart by all eyes
GREY = "#666666"


def draw(gaid: GenAIDeployment, sweep: Sweep, path: Path) -> None:
    """Draw the sweep into `path` (PNG, SVG or PDF by its ending)."""
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(9.5, 8.6), layout="constrained")
        top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(1.25, 1, 1))
        _response(top, sweep)
        _replicas(middle, sweep)
        _utilisation(bottom, sweep)
        for axes in (top, middle, bottom):
            _edges(axes, sweep)
            _no_room(axes, sweep, refused_from(gaid, sweep.limits.exhausted_at))
        _connections_axis(bottom, sweep)
        figure.align_ylabels((top, middle, bottom))
        figure.suptitle(f"{gaid.name}: response time, replicas and utilisation over connections", weight="bold")
        figure.savefig(path, dpi=150)


def _response(axes: Axes, sweep: Sweep) -> None:
    for colour, tier in zip(COLOURS * 3, sweep.tiers, strict=False):
        axes.plot(sweep.connections, [x * 1e3 for x in tier.response_s], color=colour, lw=2, label=tier.tier)
    axes.axhline(sweep.target_s * 1e3, color=GREY, ls="--", lw=1.2, zorder=5)
    label = f"target {sweep.target_s * 1e3:,.6g} ms"
    axes.text(sweep.connections[0], sweep.target_s * 1e3, label, color=GREY, va="bottom", fontsize=9, zorder=5)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.22)
    axes.set_ylabel(f"p{sweep.percentile:g} response (ms)")
    axes.legend(loc="upper right", frameon=False, ncols=min(6, len(sweep.tiers)))


def _replicas(axes: Axes, sweep: Sweep) -> None:
    for colour, tier in zip(COLOURS * 3, sweep.tiers, strict=False):
        axes.plot(sweep.connections, tier.replicas, color=colour, lw=2, drawstyle="steps-mid")
    if max(max(tier.replicas) for tier in sweep.tiers) > 20:
        whole = min(min(tier.replicas) for tier in sweep.tiers) > 0
        axes.set_yscale("log" if whole else "symlog", **({} if whole else {"linthresh": 1}))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.0f}"))
        axes.set_ylim(bottom=0.8 if whole else 0)
    else:
        axes.set_ylim(bottom=0)
    axes.set_ylabel("replicas")


def _utilisation(axes: Axes, sweep: Sweep) -> None:
    for colour, tier in zip(COLOURS * 3, sweep.tiers, strict=False):
        axes.plot(sweep.connections, tier.utilisation, color=colour, lw=2)
    axes.set_ylim(0, 1.05)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylabel("utilisation")


def _edges(axes: Axes, sweep: Sweep) -> None:
    """Mark where each tier is exhausted."""
    first, last = sweep.connections[0], sweep.connections[-1]
    for row, (colour, tier) in enumerate(zip(COLOURS * 3, sweep.tiers, strict=False)):
        at = sweep.limits.exhausted_at[tier.tier]
        if at is None or not first < at < last:
            continue
        axes.axvline(at, color=colour, ls=":", lw=1.5)
        if axes.get_subplotspec().is_first_row():  # type: ignore[union-attr]
            words, side = f" {tier.tier} exhausted at {at:,.0f} ", "right" if at**2 > first * last else "left"
            place, box = axes.get_xaxis_transform(), {"facecolor": "white", "edgecolor": "none", "pad": 1}
            height = 0.04 + 0.08 * row
            axes.text(at, height, words, color=colour, ha=side, fontsize=9, transform=place, bbox=box, zorder=4)
    axes.grid(visible=True, color="#e5e5e5", lw=0.8)
    axes.set_axisbelow(True)


def _no_room(axes: Axes, sweep: Sweep, refused: dict[str, float]) -> None:
    """Shade where classes find all their tiers full, darker with each class."""
    first, last = sweep.connections[0], sweep.connections[-1]
    for row, (name, at) in enumerate(sorted(refused.items(), key=lambda one: one[1])):
        if at >= last:
            continue
        axes.axvspan(max(first, at), last, color="#888888", alpha=0.4 / len(refused), lw=0, zorder=0)
        if axes.get_subplotspec().is_last_row():  # type: ignore[union-attr]
            words = f" no room for class {name} " if len(refused) > 1 else " no room "
            side = "right" if at > first * (last / first) ** 0.8 else "left"
            place, height = axes.get_xaxis_transform(), 0.05 + 0.1 * row
            axes.text(max(first, at), height, words, fontsize=9, ha=side, color="black", transform=place, zorder=5)


def _connections_axis(axes: Axes, sweep: Sweep) -> None:
    axes.set_xscale("log")
    axes.set_xlim(sweep.connections[0], sweep.connections[-1])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}" if x >= 1 else f"{x:g}"))
    axes.set_xlabel("connections")
