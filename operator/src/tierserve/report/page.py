"""The HTML page: one file, charts inline, nothing fetched from anywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from importlib import resources
from pathlib import Path

from tierserve.report.figures import png, pool_label, svg
from tierserve.report.record import FLAT_WITHIN, RunRecord, StepRecord, headline


def write_report(record: RunRecord, folder: Path, name: str = "demo") -> tuple[Path, Path]:
    """Write `index.html`, `<name>.png` and `run.json` to a folder; returns the paths of the first two."""
    folder.mkdir(parents=True, exist_ok=True)
    page, picture = folder / "index.html", folder / f"{name}.png"
    record.write(folder / "run.json")
    png(record, picture, " ".join((headline(record), *record.notes)))
    page.write_text(html(record), encoding="utf-8")
    return page, picture


def html(record: RunRecord) -> str:
    """The whole page."""
    parts = (
        f"<h1>{escape(record.title)}</h1><p class=lead>{escape(headline(record))}</p>",
        _tiles(record),
        _chart(
            record, "response", "A point is the steady part of a step; its users ask, wait for the answer, ask again."
        ),
        _chart(record, "replicas", "Replicas that serve, per tier. The bands are the steps."),
        _chart(record, "responses", "Each dot is one answer, warm-up parts included."),
        "<div class=pair>",
        _chart(record, "within", "Errors and refusals count as misses."),
        _chart(record, "prediction", "What the policy predicted when it decided, and what clients then saw."),
        "</div>",
        _chart(record, "seconds", "Coloured: what ran. Grey: the same tier kept at its peak from start to end."),
        _table(record),
        _beside(record),
        _footer(record),
    )
    return PAGE.format(title=escape(record.title), css=css(), body="".join(parts))


PAGE = """<!doctype html>
<html lang=en><head><meta charset=utf-8><meta name=viewport content="width=device-width, initial-scale=1">
<link rel=icon href="data:,"><title>{title}</title><style>{css}</style></head>
<body><main>{body}</main></body></html>
"""
"""Frame of a page: `title`, `css` and `body`, as HTML."""


def css() -> str:
    """The style sheet of all pages."""
    return resources.files("tierserve.report").joinpath("page.css").read_text(encoding="utf-8")


def _chart(record: RunRecord, name: str, caption: str) -> str:
    return f"<section class=card>{svg(record, name)}<p>{escape(caption)}</p></section>"


def _tiles(record: RunRecord) -> str:
    steps = record.connection_steps
    requests = sum(s.requests for s in steps)
    worst = max((s.p95_s or math.inf for s in steps), default=math.inf)
    spread, share = record.spread(), record.share_within()
    goal = f"highest p{record.percentile:g}; the target is {_ms(record.target_s)}"
    tiles = (
        (f"{steps[-1].connections if steps else 0}", "connections in the last step", ""),
        (_ms(worst), goal, _mark(worst <= record.target_s)),
        (
            f"±{spread:.0%}",
            f"around the median of the steps; the goal is {FLAT_WITHIN:.0%}",
            _mark(spread <= FLAT_WITHIN),
        ),
        (f"{share:.2%}", f"of {requests:,} requests within the target", _mark(share >= record.percentile / 100)),
        (f"{sum(record.replica_seconds().values()):,.0f}", "replica-seconds, all tiers", ""),
    )
    return f"<div class=tiles>{''.join(_tile(*tile) for tile in tiles)}</div>"


def _tile(value: str, text: str, mark: str) -> str:
    return f'<div class=tile><b class="{mark}">{escape(value)}</b><span>{escape(text)}</span></div>'


def _table(record: RunRecord) -> str:
    rows = [_row(record, step) for step in record.steps]
    head = "".join(f"<th>{escape(name)}</th>" for name in (rows[0] if rows else ()))
    body = "".join(f"<tr>{''.join(row.values())}</tr>" for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<section class=card><h2>The steady part of every step</h2><div class=scroll>{table}</div></section>"


def _row(record: RunRecord, step: StepRecord) -> dict[str, str]:
    """The cells of a step under the heads of their columns."""
    missed = step.p95_s is None or step.p95_s > record.target_s
    return {
        "step": _cell(escape(step.name)),
        "connections": _cell("-" if step.connections is None else f"{step.connections:,}"),
        "requests": _cell(f"{step.requests:,}"),
        "requests/s": _cell(f"{step.rate:.1f}"),
        "p50": _cell(_ms(step.p50_s)),
        f"p{record.percentile:g}": _cell(_ms(step.p95_s), "bad" if missed else ""),
        "p99": _cell(_ms(step.p99_s)),
        "within": _cell("-" if step.within_slo is None else f"{step.within_slo:.1%}"),
        "errors": _cell(f"{step.errors}"),
        **{f"{pool_label(pool)} replicas": _cell(_replicas(record, pool, step)) for pool in record.pools},
    }


def _cell(value: str, mark: str = "") -> str:
    return f'<td class="{mark}">{value}</td>' if mark else f"<td>{value}</td>"


def _replicas(record: RunRecord, pool: str, step: StepRecord) -> str:
    counts = [p.replicas for p in record.pools[pool] if step.steady_s <= p.t <= step.end_s]
    if not counts:
        return "-"
    return f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def _beside(record: RunRecord) -> str:
    if not record.texts and not record.beside:
        return ""
    figures = "".join(_beside_line(name, figures) for name, figures in record.beside.items())
    quotes = "".join(f"<blockquote><cite>{escape(q)}</cite>{escape(a)}</blockquote>" for q, a in record.texts)
    return f"<section class=card><h2>Beside it, at the same time</h2>{figures}{quotes}</section>"


def _beside_line(name: str, figures: Mapping[str, float | None]) -> str:
    count, errors = figures["requests"] or 0, figures["errors"] or 0
    times = f"p50 {_ms(figures['p50_s'])}, p95 {_ms(figures['p95_s'])}"
    return f"<p>{escape(name)}: {count:,.0f} requests, {times}, {errors:.0f} errors.</p>"


def _footer(record: RunRecord) -> str:
    lines = (*record.notes, record.machine, *record.sources)
    how = "Percentiles are nearest-rank over all samples; time counts from when a request was meant to start."
    return "<footer>" + "".join(f"<div>{escape(line)}</div>" for line in (*filter(None, lines), how)) + "</footer>"


def _ms(value_s: float | None) -> str:
    if value_s is None or value_s == math.inf:
        return "-"
    return f"{value_s * 1e3:,.0f} ms"


def _mark(good: bool) -> str:
    return "good" if good else "bad"
