"""Rows of `top`: one per pool, in an order that can be chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

Order = Literal["service", "arrivals", "queue", "p95"]
ORDERS: tuple[Order, ...] = ("service", "arrivals", "queue", "p95")


@dataclass(frozen=True, slots=True)
class Row:
    """One pool; times in seconds; None is unknown.

    Attributes:
        service, pool, model: names.
        running, desired, most: replicas, and the maximum.
        arrivals: forecast of the arrival rate, requests per second: what replicas are decided by.
        queue: requests that wait at the gateway.
        p95_s, target_s: observed over the gateway's window, and what the objective leaves the pool without the network.
        set_by: what set the number of replicas.
        ready: whether the pool serves.
    """

    service: str
    pool: str
    model: str | None
    running: int | None
    desired: int | None
    most: int | None
    arrivals: float | None
    queue: float | None
    p95_s: float | None
    target_s: float | None
    set_by: str | None
    ready: bool | None

    @property
    def load(self) -> float:
        """Observed p95 over the target; above 1 the target is missed; -1 where it is unknown."""
        return self.p95_s / self.target_s if self.p95_s is not None and self.target_s else -1.0


_KEYS: Mapping[Order, Callable[[Row], tuple[Any, ...]]] = {
    "service": lambda row: (),
    "arrivals": lambda row: (-_or_least(row.arrivals),),
    "queue": lambda row: (-_or_least(row.queue),),
    "p95": lambda row: (-row.load,),
}


def _or_least(value: float | None) -> float:
    return -math.inf if value is None else value


def rows_of(documents: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Return a row for each pool of services, whose documents are as of `tierserve status`."""
    return [_row(str(one["name"]), pool) for one in documents for pool in (one.get("status") or {}).get("pools", ())]


def _row(service: str, pool: Mapping[str, Any]) -> Row:
    decision, gateway = pool.get("decision") or {}, pool.get("gateway") or {}
    return Row(
        service=service,
        pool=str(pool["pool"]).removesuffix("-default"),
        model=pool.get("model"),
        running=pool.get("running"),
        desired=pool.get("desired"),
        most=pool.get("maxReplicas"),
        arrivals=decision.get("lambda"),
        queue=gateway.get("queued"),
        p95_s=gateway.get("p95_s"),
        target_s=pool.get("targetSeconds"),
        set_by=decision.get("set_by"),
        ready=pool.get("ready"),
    )


def ordered(rows: Sequence[Row], order: Order) -> list[Row]:
    """Return the rows: by name, or the largest first."""
    return sorted(rows, key=lambda row: (*_KEYS[order](row), row.service, row.pool))


def following(order: Order) -> Order:
    """Return the order after this one."""
    return ORDERS[(ORDERS.index(order) + 1) % len(ORDERS)]


def table(rows: Sequence[Row]) -> Table:
    """Return the rows as a table; whole at 80 columns: only names are broken over lines."""
    made = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    for head in ("service", "pool"):
        made.add_column(head, overflow="fold")
    for head in ("replicas", "arrivals", "queue", "p95", "target"):
        made.add_column(head, justify="right", no_wrap=True)
    made.add_column("set by", no_wrap=True)
    for row in rows:
        made.add_row(
            row.service,
            Text(row.pool, style="" if row.ready else "yellow"),
            _replicas(row),
            _figure(row.arrivals, "{:.2f}/s"),
            _figure(row.queue, "{:.0f}"),
            Text(_figure(row.p95_s, "{:.2f} s"), style="bold red" if row.load > 1.0 else ""),
            _figure(row.target_s, "{:.2f} s"),
            row.set_by or "-",
        )
    return made


def _replicas(row: Row) -> str:
    if row.running is None:
        return "-"
    now = f"{row.running}" if row.running == row.desired else f"{row.running} to {row.desired}"
    return now if row.most is None else f"{now} of {row.most}"


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
