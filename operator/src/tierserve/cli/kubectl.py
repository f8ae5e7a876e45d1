"""The plugin `kubectl tierserve`: services in a cluster, read through kubectl (its credentials, context and flags)."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from tierserve.cli.cluster import (
    AllNamespaces,
    Context,
    Name,
    Namespace,
    OneName,
    document,
    flags,
    kubectl,
    manifest,
    services,
)
from tierserve.cli.doctor.command import doctor_of_cluster
from tierserve.cli.errors import run
from tierserve.cli.explain import explain_in_cluster
from tierserve.cli.output import TableOrData, emit
from tierserve.cli.report import report_of_cluster
from tierserve.cli.top.command import top_of_cluster
from tierserve.cli.view import service_view

console = Console()
app = typer.Typer(
    name="kubectl tierserve",
    help="Tiered generative-AI serving in a cluster: status, scaling decisions, capacity plans.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

app.command("explain")(explain_in_cluster)
app.command("top")(top_of_cluster)
app.command("report")(report_of_cluster)
app.command("doctor")(doctor_of_cluster)


@app.command()
def status(
    name: Name = None,
    *,
    namespace: Namespace = None,
    context: Context = None,
    all_namespaces: AllNamespaces = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh every two seconds until Ctrl-C")] = False,
    output: TableOrData = "table",
) -> None:
    """Show tiers, replicas, arrival rate (lambda), utilisation (rho), predicted and observed p95, and scaling reasons.

    Examples: kubectl tierserve status; kubectl tierserve status assistant -n chat --watch
    """
    where = flags(namespace, context, all_namespaces=all_namespaces)
    if output != "table":
        emit([one.get("status") or {} for one in services(name, where)], output)
    elif watch:
        with Live(_view(services(name, where)), console=console, refresh_per_second=2) as live:
            while True:
                time.sleep(2.0)
                live.update(_view(services(name, where)))
    else:
        console.print(_view(services(name, where)))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def plan(
    ctx: typer.Context,
    name: OneName,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Plan the capacity of a GenAIDeployment of the cluster for a load; takes the options of `tierserve plan`.

    Example: kubectl tierserve plan assistant --connections 5000
    """
    from tierserve.cli.main import app as whole

    (found,) = services(name, flags(namespace, context))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{name}.yaml"
        file.write_text(manifest(found))
        whole(["plan", str(file), *ctx.args], standalone_mode=False)


@app.command()
def events(
    name: OneName,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Show the events of a GenAIDeployment: ready, degraded, objective missed.

    Example: kubectl tierserve events assistant
    """
    (service,) = services(name, where := flags(namespace, context))
    selector = f"involvedObject.uid={service['metadata']['uid']}"  # by uid: no events of a deleted namesake
    columns = "custom-columns=TIME:.lastTimestamp,TYPE:.type,REASON:.reason,MESSAGE:.message"
    form = ("--field-selector", selector, "--sort-by=.lastTimestamp", "-o", columns)
    sys.stdout.write(kubectl("get", "events", *form, *where))


def _view(found: list[dict[str, Any]]) -> Group | Text:
    if not found:
        return Text("no GenAIDeployment found; create one with kubectl apply -f FILE")
    return Group(*(part for one in found for part in service_view(document(one))))


def main() -> None:
    """Run the plugin."""
    run(app, "kubectl tierserve")


if __name__ == "__main__":
    main()
