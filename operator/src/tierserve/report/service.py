"""A running service as it was observed for some time: as plain values, kept as JSON, and as one HTML page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import orjson
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from tierserve.report.figures import TARGET, drawn, milliseconds, pool_colour, pool_label
from tierserve.report.page import PAGE, css
from tierserve.report.record import PoolPoint

_SIZE = (12.6, 3.4)  # inches, of a chart as wide as the page
Value = Callable[[PoolPoint], float | None]


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """What was observed of a service.

    Attributes:
        name, endpoint, target: of the service, the target in words.
        began: RFC 3339 time of the first observation.
        seconds: from the first observation to the last.
        pools: points per pool, `t` in seconds since `began`, times without the network.
        targets: response-time target of each pool without the network, seconds.
        conditions: of the last observation, as in the status.
        explanations: the arithmetic of the last decision of each pool, as data and as text.
        notes: what a reader must know.
    """

    name: str
    endpoint: str
    target: str
    began: str
    seconds: float
    pools: Mapping[str, tuple[PoolPoint, ...]]
    targets: Mapping[str, float]
    conditions: Sequence[Mapping[str, Any]]
    explanations: Mapping[str, Any] = field(default_factory=dict)
    texts: Sequence[str] = ()
    notes: Sequence[str] = ()

    def to_json(self) -> bytes:
        """Return the record as JSON."""
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY)


def write_service_report(record: ServiceRecord, folder: Path) -> tuple[Path, Path]:
    """Write `index.html` and `service.json` to a folder; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    page, data = folder / "index.html", folder / "service.json"
    data.write_bytes(record.to_json())
    page.write_text(html(record), encoding="utf-8")
    return page, data


def html(record: ServiceRecord) -> str:
    """The whole page."""
    samples = max((len(points) for points in record.pools.values()), default=0)
    lead = f"Observed for {record.seconds:.0f} s from {record.began} ({samples} samples). Target {record.target}."
    body = (
        f"<h1>{escape(record.name)}</h1><p class=lead>{escape(lead)} {escape(record.endpoint)}</p>",
        _conditions(record),
        _table(record),
        _chart("replicas", _replicas, record, "Solid: replicas that serve. Dashed: desired."),
        _chart("arrivals", _arrivals, record, "Requests per second that each pool was sized for: the forecast."),
        _chart("p95", _p95, record, "Solid: observed over the gateway's window. Dotted: predicted. Line: target."),
        *(f"<section class=card><pre>{escape(text)}</pre></section>" for text in record.texts),
        "<footer>" + "".join(f"<div>{escape(note)}</div>" for note in record.notes) + "</footer>",
    )
    return PAGE.format(title=escape(record.name), css=css(), body="".join(body))


def _chart(name: str, draw: Callable[[Axes, ServiceRecord], None], record: ServiceRecord, caption: str) -> str:
    return (
        f"<section class=card>{drawn(name, _SIZE, lambda axes: draw(axes, record))}<p>{escape(caption)}</p></section>"
    )


def _replicas(axes: Axes, record: ServiceRecord) -> None:
    axes.set_title("Replicas")
    _lines(axes, record, lambda point: point.replicas, "-", steps=True)
    _lines(axes, record, lambda point: point.desired, "--", steps=True, named=False)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(axes, record)


def _arrivals(axes: Axes, record: ServiceRecord) -> None:
    axes.set_title("Arrivals per second")
    _lines(axes, record, lambda point: point.rate, "-")
    _finish(axes, record)


def _p95(axes: Axes, record: ServiceRecord) -> None:
    axes.set_title("p95 of the response time, ms")
    _lines(axes, record, lambda point: point.observed_p95_s, "-")
    _lines(axes, record, lambda point: point.predicted_p95_s, ":", named=False)
    for target_s in sorted(set(record.targets.values())):
        axes.axhline(target_s, color=TARGET, lw=1.2, ls=(0, (5, 3)))
    axes.yaxis.set_major_formatter(milliseconds())
    _finish(axes, record)


def _lines(
    axes: Axes, record: ServiceRecord, value: Value, style: str, *, steps: bool = False, named: bool = True
) -> None:
    """Draw a value of every pool over time; a gap where it is unknown."""
    names = list(record.pools)
    for pool, points in record.pools.items():
        times = [point.t for point in points]
        values = [float("nan") if (y := value(point)) is None else y for point in points]
        axes.plot(
            times, values, style, color=pool_colour(pool, names), label=pool_label(pool) if named else None,
            drawstyle="steps-post" if steps else "default", marker="." if len(times) == 1 else None,
        )  # fmt: skip


def _finish(axes: Axes, record: ServiceRecord) -> None:
    axes.margins(y=0.3)  # room for the legend
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, max(record.seconds, 1.0))
    axes.set_xlabel("seconds")
    if record.pools:
        axes.legend(loc="upper left", ncols=len(record.pools))


def _conditions(record: ServiceRecord) -> str:
    rows = "".join(
        f"<tr><td>{escape(str(c['type']))}</td><td>{escape(str(c['status']))}</td>"
        f"<td>{escape(str(c.get('reason', '')))}</td><td class=wide>{escape(str(c.get('message', '')))}</td></tr>"
        for c in record.conditions
    )
    head = "<tr><th>condition</th><th>status</th><th>reason</th><th class=wide>message</th></tr>"
    return f"<section class=card><div class=scroll><table>{head}{rows}</table></div></section>"


def _table(record: ServiceRecord) -> str:
    columns = ("pool", "replicas", "arrivals/s", "rho", "p95 predicted", "p95 observed", "target")
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    rows = "".join(_row(record, pool, points[-1]) for pool, points in record.pools.items() if points)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<section class=card><h2>At the end</h2><div class=scroll>{table}</div></section>"


def _row(record: ServiceRecord, pool: str, last: PoolPoint) -> str:
    target_s, observed_s = record.targets.get(pool), last.observed_p95_s
    is_missed = target_s is not None and observed_s is not None and observed_s > target_s
    cells = (
        escape(pool_label(pool)),
        f"{last.replicas}" if last.desired in (None, last.replicas) else f"{last.replicas} to {last.desired}",
        _figure(last.rate, "{:.2f}"),
        _figure(last.rho, "{:.2f}"),
        _ms(last.predicted_p95_s),
        _ms(observed_s),
        _ms(target_s),
    )
    marked = [f'<td class="bad">{c}</td>' if is_missed and k == 5 else f"<td>{c}</td>" for k, c in enumerate(cells)]
    return f"<tr>{''.join(marked)}</tr>"


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _ms(value_s: float | None) -> str:
    return "-" if value_s is None else f"{value_s * 1e3:,.0f} ms"
