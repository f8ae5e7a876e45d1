"""`report`: observes a running service for some time and writes one HTML page and its data as JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from tierserve.cli.cluster import Context, Namespace, OneName
from tierserve.cli.errors import UserError
from tierserve.cli.explain import blocks, explained
from tierserve.cli.files import check_writable, finite
from tierserve.cli.output import TextOrData, emit
from tierserve.cli.services import OnlyService

if TYPE_CHECKING:
    from tierserve.plan.placement import Placement
    from tierserve.report.record import PoolPoint
    from tierserve.report.service import ServiceRecord

PAGE_COLUMNS = 120
Duration = Annotated[
    float, typer.Option("--for", min=0, max=86_400, callback=finite, help="Seconds to observe; Ctrl-C ends it earlier")
]
Out = Annotated[Path | None, typer.Option(help="Folder of the files \\[out/report-NAME]")]
Read = Callable[[], tuple[dict[str, Any], Mapping[str, "Placement"]]]
"""Returns the status document of a service and its pools."""


def report(
    name: OnlyService = None,
    seconds: Duration = 60.0,
    interval: Annotated[float, typer.Option(min=0.2, max=3600, callback=finite, help="Seconds between samples")] = 1.0,
    out: Out = None,
    output: TextOrData = "text",
) -> None:
    """Observe a local service and write a page: conditions, replicas, arrivals, p95 over time, decisions explained.

    The page is one file, charts included; beside it are the figures as JSON.

    [bold]Examples[/bold]

      tierserve report assistant

      tierserve report assistant --for 600 --out out/monday

      tierserve report --for 0 -o json
    """
    from tierserve.cli import services

    chosen = _only(services.names(name)) if name is None else name

    def read() -> tuple[dict[str, Any], Mapping[str, Placement]]:
        (document,) = services.documents(chosen)
        return document, services.placements(document)

    _report(read, chosen, seconds=seconds, interval=interval, out=out, output=output)


def report_of_cluster(
    name: OneName,
    namespace: Namespace = None,
    context: Context = None,
    *,
    seconds: Duration = 60.0,
    interval: Annotated[float, typer.Option(min=0.5, max=3600, callback=finite, help="Seconds between samples")] = 2.0,
    out: Out = None,
    output: TextOrData = "text",
) -> None:
    """Observe a GenAIDeployment and write a page: conditions, replicas, arrivals, p95 over time, decisions explained.

    [bold]Examples[/bold]

      kubectl tierserve report assistant -n chat --for 600

      kubectl tierserve report assistant --for 0 --out out/now -o json
    """
    from tierserve.cli import cluster

    where = cluster.flags(namespace, context)

    def read() -> tuple[dict[str, Any], Mapping[str, Placement]]:
        (found,) = cluster.services(name, where)
        return cluster.document(found), cluster.placements(found)

    _report(read, name, seconds=seconds, interval=interval, out=out, output=output)


def _only(names: list[str]) -> str:
    if not names:
        raise UserError("no service is running", "start one with tierserve up FILE", code=1)
    if len(names) > 1:
        raise UserError(f"NAME: is required, several services run ({', '.join(names)})", "tierserve report NAME")
    return names[0]


def _report(read: Read, name: str, *, seconds: float, interval: float, out: Path | None, output: str) -> None:
    from tierserve.report.service import write_service_report

    folder = out if out is not None else Path("out") / f"report-{name}"
    check_writable("--out", folder / "index.html")
    page, data = write_service_report(observe(read, seconds, interval), folder)
    if output == "text":
        typer.echo(f"  page  {page}\n  data  {data}")
    else:
        emit({"name": name, "page": str(page), "data": str(data)}, output)


def observe(read: Read, seconds: float, interval_s: float) -> ServiceRecord:
    """Return what is observed of a service for so many seconds, at least once; an interrupt ends it earlier.

    Args:
        read: returns the status document and the pools.
        seconds, interval_s: how long, and how often.
    """
    from tierserve.report.record import pool_point
    from tierserve.report.service import ServiceRecord

    began, now, notes = time.time(), time.time(), ["Times are those of the gateway, without the network to it."]
    document, placements = read()
    points: dict[str, list[PoolPoint]] = {}
    stamps: set[float] = set()
    started = time.monotonic()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"observing {document['name']}", total=max(seconds, 1e-9))
        try:
            while True:
                now = float(document.get("time", time.time()))
                began = now if not stamps else began
                # The supervisor writes a status each second: one that is read twice is one sample.
                for pool in (document.get("status") or {}).get("pools", ()) if now not in stamps else ():
                    point = pool_point(pool, max(now - began, 0.0), float(pool["targetSeconds"]))
                    if point is not None:
                        points.setdefault(pool["pool"], []).append(point)
                stamps.add(now)
                elapsed = time.monotonic() - started
                progress.update(task, completed=elapsed)
                if elapsed >= seconds:
                    break
                time.sleep(min(interval_s, max(seconds - elapsed, 0.0)))
                document, placements = read()
        except KeyboardInterrupt:
            notes.append(f"Ended by an interrupt before {seconds:.0f} s were over.")
    status, arithmetic = document.get("status") or {}, explained(document, placements, None)
    return ServiceRecord(
        name=str(document["name"]),
        endpoint=str(status.get("endpoint") or ""),
        target=str(document.get("target") or "unknown"),
        began=datetime.fromtimestamp(began, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        seconds=max(now - began, 0.0),
        pools={pool: tuple(found) for pool, found in points.items()},
        targets={pool["pool"]: float(pool["targetSeconds"]) for pool in status.get("pools", ())},
        conditions=status.get("conditions") or (),
        explanations=arithmetic,
        texts=blocks(arithmetic, PAGE_COLUMNS),
        notes=notes,
    )
