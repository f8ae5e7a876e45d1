"""The plugin `kubectl tierserve`: services in a cluster, read through kubectl (its credentials, context and flags)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import yaml
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from tierserve.api.v1alpha1.deployment import GROUP, PLURAL
from tierserve.cli.errors import UserError, run
from tierserve.cli.view import service_view

RESOURCE = f"{PLURAL}.{GROUP}"
INSTALL = "install the CRD: kubectl apply -f crds/genaideployments.yaml"
console = Console()
app = typer.Typer(
    name="kubectl tierserve",
    help="Tiered generative-AI serving in a cluster: status, scaling decisions, capacity plans.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
Name = Annotated[str | None, typer.Argument(help="Name of a GenAIDeployment \\[all of the namespace]")]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Namespace \\[of the context]")]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig \\[the current context]")]


@app.command()
def status(
    name: Name = None,
    *,
    namespace: Namespace = None,
    context: Context = None,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="All namespaces")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh every two seconds until Ctrl-C")] = False,
    output: Annotated[Literal["table", "json"], typer.Option("--output", "-o", help="Output format")] = "table",
) -> None:
    """Show tiers, replicas, arrival rate (lambda), utilisation (rho), predicted and observed p95, and scaling reasons.

    Examples: kubectl tierserve status; kubectl tierserve status assistant -n chat --watch
    """
    flags = [*_flags(None if all_namespaces else namespace, context), *(["--all-namespaces"] if all_namespaces else ())]
    if output == "json":
        print(json.dumps([one.get("status") or {} for one in _services(name, flags)], indent=2))
    elif watch:
        with Live(_view(_services(name, flags)), console=console, refresh_per_second=2) as live:
            while True:
                time.sleep(2.0)
                live.update(_view(_services(name, flags)))
    else:
        console.print(_view(_services(name, flags)))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def plan(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of a GenAIDeployment")],
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Plan the capacity of a GenAIDeployment of the cluster for a load; takes the options of `tierserve plan`.

    Example: kubectl tierserve plan assistant --connections 5000
    """
    from tierserve.cli.main import app as whole

    (found,) = _services(name, _flags(namespace, context))
    kept = {"name": found["metadata"]["name"]}
    document = {"apiVersion": found["apiVersion"], "kind": found["kind"], "metadata": kept, "spec": found["spec"]}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{kept['name']}.yaml"
        file.write_text(yaml.safe_dump(document, sort_keys=False))
        whole(["plan", str(file), *ctx.args], standalone_mode=False)


@app.command()
def events(
    name: Annotated[str, typer.Argument(help="Name of a GenAIDeployment")],
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Show the events of a GenAIDeployment: ready, degraded, objective missed.

    Example: kubectl tierserve events assistant
    """
    (service,) = _services(name, flags := _flags(namespace, context))
    selector = f"involvedObject.uid={service['metadata']['uid']}"  # by uid: no events of a deleted namesake
    columns = "custom-columns=TIME:.lastTimestamp,TYPE:.type,REASON:.reason,MESSAGE:.message"
    form = ("--field-selector", selector, "--sort-by=.lastTimestamp", "-o", columns)
    sys.stdout.write(_kubectl("get", "events", *form, *flags))


def _flags(namespace: str | None, context: str | None) -> list[str]:
    return [*(("--namespace", namespace) if namespace else ()), *(("--context", context) if context else ())]


def _services(name: str | None, flags: list[str]) -> list[dict[str, Any]]:
    found = json.loads(_kubectl("get", RESOURCE, *((name,) if name else ()), "-o", "json", *flags))
    return list(found["items"]) if found["kind"].endswith("List") else [found]


def _view(services: list[dict[str, Any]]) -> Group | Text:
    if not services:
        return Text("no GenAIDeployment found; create one with kubectl apply -f FILE")
    return Group(*(part for one in services for part in service_view(_document(one))))


def _document(service: dict[str, Any]) -> dict[str, Any]:
    """Return a resource in the form of `tierserve status`."""
    objective = service["spec"]["objective"]["responseTime"]
    return {
        "name": service["metadata"]["name"],
        "status": service.get("status") or {},
        "target": f"p{objective['percentile']:g} {objective['target']}",
    }


def _kubectl(*arguments: str) -> str:
    """Return the output of kubectl; UserError with its message when it fails."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        hint = "install kubectl; for services on this machine: tierserve status"
        raise UserError("kubectl is not on PATH", hint, code=1)
    done = subprocess.run([kubectl, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        words = done.stderr.strip() or f"kubectl failed with exit code {done.returncode}"
        missing = "the server doesn't have a resource type" in words
        raise UserError(words, INSTALL if missing else "see kubectl get gaid -A", code=1)
    return done.stdout


def main() -> None:
    """Run the plugin."""
    run(app, "kubectl tierserve")


if __name__ == "__main__":
    main()
