"""GenAIDeployments of a cluster, read through kubectl: with its credentials, context and flags."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from tierserve.api import ValidationFailed
from tierserve.api.loading import load_text
from tierserve.api.v1alpha1.deployment import GROUP, PLURAL
from tierserve.cli.errors import UserError
from tierserve.cli.services import placed

if TYPE_CHECKING:
    from tierserve.plan.placement import Placement

RESOURCE = f"{PLURAL}.{GROUP}"
INSTALL = "install the CRD: kubectl apply -f crds/genaideployments.yaml"


def _complete(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the names of GenAIDeployments that begin so, for the completion of the shell."""
    where = flags(ctx.params.get("namespace"), ctx.params.get("context"))
    try:
        listed = run_kubectl("get", RESOURCE, "-o", "name", "--request-timeout=5s", *where).stdout.split()
    except UserError:  # nothing to complete; the command itself reports why
        return []
    return [name for one in listed if (name := one.rpartition("/")[2]).startswith(incomplete)]


Name = Annotated[
    str | None, typer.Argument(help="Name of a GenAIDeployment \\[all of the namespace]", autocompletion=_complete)
]
OneName = Annotated[str, typer.Argument(help="Name of a GenAIDeployment", autocompletion=_complete)]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Namespace \\[of the context]")]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig \\[the current context]")]
AllNamespaces = Annotated[bool, typer.Option("--all-namespaces", "-A", help="All namespaces")]


def flags(namespace: str | None, context: str | None, *, all_namespaces: bool = False) -> list[str]:
    """Return the flags of kubectl for a namespace and a context."""
    where = ["--all-namespaces"] if all_namespaces else ["--namespace", namespace] if namespace else []
    return [*where, *(("--context", context) if context else ())]


def services(name: str | None, to_kubectl: list[str]) -> list[dict[str, Any]]:
    """Return the GenAIDeployment of this name, or all of the namespace.

    Args:
        name: of one; None: all.
        to_kubectl: `flags`.

    Raises:
        UserError: kubectl fails, or there is none of this name.
    """
    found = json.loads(kubectl("get", RESOURCE, *((name,) if name else ()), "-o", "json", *to_kubectl))
    return list(found["items"]) if found["kind"].endswith("List") else [found]


def document(service: Mapping[str, Any]) -> dict[str, Any]:
    """Return a resource in the form of `tierserve status`."""
    objective = service["spec"]["objective"]["responseTime"]
    return {
        "name": service["metadata"]["name"],
        "status": service.get("status") or {},
        "target": f"p{objective['percentile']:g} {objective['target']}",
    }


def manifest(service: Mapping[str, Any]) -> str:
    """Return the file from which a resource could have been applied, as YAML."""
    kept = {"name": service["metadata"]["name"]}
    whole = {"apiVersion": service["apiVersion"], "kind": service["kind"], "metadata": kept, "spec": service["spec"]}
    return yaml.safe_dump(whole, sort_keys=False)


def placements(service: Mapping[str, Any]) -> dict[str, Placement]:
    """Return the pools of a resource by name; empty if this version of the planner cannot place it."""
    try:
        return placed(load_text(manifest(service)))
    except ValidationFailed:
        return {}


def kubectl(*arguments: str) -> str:
    """Return the output of kubectl; UserError with its message when it fails."""
    done = run_kubectl(*arguments)
    if done.returncode:
        words = done.stderr.strip() or f"kubectl failed with exit code {done.returncode}"
        missing = "the server doesn't have a resource type" in words
        raise UserError(words, INSTALL if missing else "see kubectl get gaid -A", code=1)
    return done.stdout


def run_kubectl(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run kubectl; UserError where it is not installed."""
    binary = shutil.which("kubectl")
    if binary is None:
        hint = "install kubectl; for services on this machine: tierserve status"
        raise UserError("kubectl is not on PATH", hint, code=1)
    return subprocess.run([binary, *arguments], capture_output=True, text=True, check=False)
