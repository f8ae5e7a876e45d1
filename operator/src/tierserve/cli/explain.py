"""`explain`: the arithmetic of the last scaling decision of each pool, of a local service or of one in a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierserve.cli.cluster import Context, Namespace, OneName
from tierserve.cli.errors import UserError
from tierserve.cli.output import TextOrData, emit, text_width
from tierserve.cli.services import ServiceName

if TYPE_CHECKING:
    from tierserve.plan.placement import Placement

Tier = Annotated[str | None, typer.Option(help="Only pools of this tier \\[all]")]


def explain(
    name: ServiceName = None,
    tier: Tier = None,
    output: TextOrData = "text",
) -> None:
    """Explain why each pool has its replicas: arrivals, one replica, one fewer, as many, and when there will be fewer.

    Figures are those of the last decision, and what the same formulas give for other numbers of replicas.

    [bold]Examples[/bold]

      tierserve explain

      tierserve explain assistant --tier cloud

      tierserve explain assistant -o json
    """
    from tierserve.cli import services

    _show(((one, services.placements(one)) for one in services.documents(name)), tier, output)


def explain_in_cluster(
    name: OneName,
    tier: Tier = None,
    namespace: Namespace = None,
    context: Context = None,
    output: TextOrData = "text",
) -> None:
    """Explain why each pool has its replicas: arrivals, one replica, one fewer, as many, and when there will be fewer.

    [bold]Examples[/bold]

      kubectl tierserve explain assistant

      kubectl tierserve explain assistant -n chat --tier cloud -o yaml
    """
    from tierserve.cli import cluster

    found = cluster.services(name, cluster.flags(namespace, context))
    _show(((cluster.document(one), cluster.placements(one)) for one in found), tier, output)


def explained(document: Mapping[str, Any], placements: Mapping[str, Placement], tier: str | None) -> dict[str, Any]:
    """Return the explanations of a service as plain values; of a pool without a current decision its message.

    Raises:
        UserError: it has no such tier.
    """
    from tierserve.status.explanation import explain as of_pool

    pools = [pool for pool in (document.get("status") or {}).get("pools", []) if tier in (None, pool["tier"])]
    if tier is not None and not pools:
        raise UserError(f"--tier: {document['name']} has no tier {tier}", "see tierserve status for its tiers")
    parts = []
    for pool in pools:
        found = of_pool(pool, placements.get(pool["pool"]))
        parts.append({"pool": pool["pool"], "message": _unknown(pool)} if found is None else found.to_dict())
    return {"name": document["name"], "pools": parts}


def _unknown(pool: Mapping[str, Any]) -> str:
    return f"no current decision: {pool.get('message') or (pool.get('app') or 'Ray Serve does not answer').lower()}"


def _show(found: Iterable[tuple[Mapping[str, Any], Mapping[str, Placement]]], tier: str | None, output: str) -> None:
    services = [explained(document, placements, tier) for document, placements in found]
    if output != "text":
        emit(services, output)
        return
    texts = [text for service in services for text in blocks(service, text_width())]
    typer.echo("\n\n".join(texts) if texts else "no service is running; start one with tierserve up FILE")


def blocks(service: Mapping[str, Any], width: int) -> list[str]:
    """Return the explanations of a service (`explained`) as text of this width, one for each pool."""
    from tierserve.status.explanation import from_dict
    from tierserve.status.explanation_text import label_of, lines

    if not service["pools"]:
        return [f"{service['name']}: no status yet"]
    return [
        f"{service['name']} / {label_of(pool['pool'])}: {pool['message']}"
        if "message" in pool
        else "\n".join(lines(service["name"], from_dict(pool), width=width))
        for pool in service["pools"]
    ]
