"""The status of a service for people: a headline, a row per pool, the reason of each, and what is wrong."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text


def service_view(document: dict[str, Any]) -> list[Table | Text]:
    """A service in words and one table.

    Args:
        document: `name`, `status` as `tierserve.status.build` makes it, `target` in words; of one on this machine also
            `supervised`, `file` and `fileProblem`.
    """
    body = document.get("status") or {}
    conditions = {c["type"]: c for c in body.get("conditions", [])}
    ready = conditions.get("Ready", {})
    pools = body.get("pools", [])
    parts: list[Table | Text] = [_headline(document, body, ready), pools_table(pools), *_reasons(pools)]
    for kind in ("Degraded", "SLOMet", "ScalingActive", "ProfileFits"):
        condition = conditions.get(kind, {})
        if condition.get("status") == ("True" if kind == "Degraded" else "False"):
            parts.append(Text(f"{kind}: {condition['reason']}: {condition['message']}", style="yellow"))
    if document.get("fileProblem"):
        parts.append(Text(document["fileProblem"], style="red"))
    if not document.get("supervised", True):
        parts.append(Text(f"the supervisor is dead: run `tierserve up {document['file']}` again", style="bold red"))
    return parts


def _headline(document: dict[str, Any], body: dict[str, Any], ready: dict[str, Any]) -> Text:
    good = ready.get("status") == "True"
    state = _ready_word(ready) if good else ready.get("message", "starting")
    words = f"{document['name']}  {state}  {body.get('endpoint', '')}"
    if document.get("target"):
        words += f"  target {document['target']}"
    return Text(words, style="bold green" if good else "bold yellow")


def _ready_word(ready: dict[str, Any]) -> str:
    return "Ready, scaled to zero" if ready.get("reason") == "ScaledToZero" else "Ready"


def pools_table(pools: list[dict[str, Any]]) -> Table:
    """One row per pool; a dash where nothing is known. Whole at 80 columns: only names are broken over lines."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    for column in ("tier", "model"):
        table.add_column(column, overflow="fold", vertical="top")
    for column in ("replicas", "lambda", "servers", "rho", "P(wait)", "p95\npred.", "p95\nobs.", "queue"):
        table.add_column(column, justify="right", no_wrap=True)
    for pool in pools:
        table.add_row(*_pool_row(pool))
    return table


def _pool_row(pool: dict[str, Any]) -> list[str]:
    decision, gateway = pool.get("decision") or {}, pool.get("gateway") or {}
    running, desired = pool.get("running"), pool.get("desired")
    replicas = "-" if running is None else f"{running}" if running == desired else f"{running} to {desired}"
    return [
        _short(pool),
        pool["model"],
        f"{replicas} of {pool['maxReplicas']}",
        _figure(decision.get("lambda"), "{:.2f}"),
        _figure(decision.get("servers"), "{:.0f}"),
        _figure(decision.get("rho"), "{:.2f}"),
        _figure(decision.get("p_wait"), "{:.3f}"),
        _figure(decision.get("predicted_p95_s"), "{:.2f} s"),
        _figure(gateway.get("p95_s"), "{:.2f} s"),
        _figure(gateway.get("queued"), "{:.0f}"),
    ]


def _reasons(pools: list[dict[str, Any]]) -> list[Text]:
    """Why each pool has what it has, one line per pool."""
    return [Text(f"{_short(pool)}: {_reason(pool)}", style="dim") for pool in pools]


def _reason(pool: dict[str, Any]) -> str:
    decision = pool.get("decision") or {}
    ratio = decision.get("offered_load_ratio") or 0.0
    if decision.get("reason") and ratio > 1.0:
        return f"{decision['reason']}; offered load ratio {ratio:.2f}"
    return decision.get("reason") or pool.get("message") or (pool.get("app") or "Ray Serve does not answer").lower()


def _short(pool: dict[str, Any]) -> str:
    return str(pool["pool"]).removesuffix("-default")


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
