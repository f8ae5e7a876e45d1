"""`top`: live on a terminal, with keys; once for scripts."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from tierserve.cli.cluster import AllNamespaces, Context, Namespace
from tierserve.cli.errors import UserError
from tierserve.cli.files import finite
from tierserve.cli.output import TableOrData, emit
from tierserve.cli.top.rows import Order, Row, following, ordered, rows_of, table

KEYS = "q quit   p pause   s sort"
Documents = Callable[[], Iterable[Mapping[str, Any]]]
Once = Annotated[bool, typer.Option("--once", help="Print the table once, without keys; -o json and yaml imply it")]
SortBy = Annotated[Order, typer.Option("--sort", help="First order; s changes it. p95: relative to the target")]
Interval = Annotated[float, typer.Option(min=0.2, max=3600, callback=finite, help="Seconds between refreshes")]


def top(
    once: Once = False,
    sort: SortBy = "service",
    interval: Interval = 1.0,
    output: TableOrData = "table",
) -> None:
    """Show the pools of all local services live: replicas, arrivals, queue, p95 against its target.

    Keys: q quits, p pauses, s sorts by service, arrivals, queue or p95 relative to the target.

    [bold]Examples[/bold]

      tierserve top

      tierserve top --sort p95 --interval 5

      tierserve top --once -o json
    """
    from tierserve.cli.services import documents

    _show(lambda: documents(None), once=once, sort=sort, interval=interval, output=output)


def top_of_cluster(
    namespace: Namespace = None,
    context: Context = None,
    *,
    all_namespaces: AllNamespaces = False,
    once: Once = False,
    sort: SortBy = "service",
    interval: Interval = 2.0,
    output: TableOrData = "table",
) -> None:
    """Show the pools of the GenAIDeployments of a namespace live: replicas, arrivals, queue, p95 against its target.

    Keys: q quits, p pauses, s sorts by service, arrivals, queue or p95 relative to the target.

    [bold]Examples[/bold]

      kubectl tierserve top -n chat

      kubectl tierserve top -A --sort p95

      kubectl tierserve top -A --once -o yaml
    """
    from tierserve.cli import cluster

    where = cluster.flags(namespace, context, all_namespaces=all_namespaces)

    def documents() -> list[dict[str, Any]]:
        found = cluster.services(None, where)
        return [cluster.document(one) | {"name": _full_name(one["metadata"], all_namespaces)} for one in found]

    _show(documents, once=once, sort=sort, interval=interval, output=output)


def _full_name(metadata: Mapping[str, Any], all_namespaces: bool) -> str:
    """Return the name of a resource, with its namespace where there are several: names are unique within one."""
    return f"{metadata['namespace']}/{metadata['name']}" if all_namespaces else str(metadata["name"])


def _show(documents: Documents, *, once: bool, sort: Order, interval: float, output: str) -> None:
    if output != "table":
        emit([asdict(row) for row in ordered(rows_of(documents()), sort)], output)
    elif once:
        Console(highlight=False).print(_body(ordered(rows_of(documents()), sort)))
    elif sys.stdin.isatty() and sys.stdout.isatty():
        _live(documents, sort, interval)
    else:
        raise UserError("standard input and output must be a terminal", "in scripts: --once, or -o json")


def _live(documents: Documents, order: Order, interval_s: float) -> None:
    """Show the table until q is pressed."""
    from tierserve.cli.top.keys import keyboard

    paused, problem, rows = False, "", rows_of(documents())
    console = Console(highlight=False)
    with keyboard() as next_key, Live(console=console, screen=True, auto_refresh=False) as live:
        due = time.monotonic() + interval_s
        while True:
            live.update(_screen(ordered(rows, order), order, problem or ("paused" if paused else "")), refresh=True)
            key = next_key(due - time.monotonic())
            if key == "q":
                return
            if key == "p":
                paused = not paused
            elif key == "s":
                order = following(order)
            if time.monotonic() < due:
                continue
            due = time.monotonic() + interval_s
            if paused:
                continue
            try:
                rows, problem = rows_of(documents()), ""
            except UserError as error:  # an API server may be away for a moment: the last rows stay
                problem = error.message.partition("\n")[0]


def _screen(rows: list[Row], order: Order, state: str) -> Group:
    head = Text(f"{time.strftime('%H:%M:%S')}   {len(rows)} pools   sorted by {order}   {state}", style="bold")
    return Group(head, Text(), _body(rows), Text(), Text(KEYS, style="dim"))


def _body(rows: list[Row]) -> Any:
    return table(rows) if rows else Text("no pools: no service is running")
