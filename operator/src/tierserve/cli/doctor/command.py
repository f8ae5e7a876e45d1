"""`doctor`: what is missing on this machine, or in a cluster, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tierserve.cli.cluster import Context
from tierserve.cli.doctor.checks import Check, as_data, is_complete, show
from tierserve.cli.output import TextOrData, emit, text_width


def doctor(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="File with a GenAIDeployment to check the machine for \\[any]"),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the endpoint \\[first free port from 8080]")
    ] = None,
    output: TextOrData = "text",
) -> None:
    """Check this machine: Python, packages, engines, HAProxy, ports, memory, folders, model cache, services left over.

    Exit code 1 if something that is required is missing; each line that is not ok has a hint.

    [bold]Examples[/bold]

      tierserve doctor

      tierserve doctor examples/assistant.yaml --port 8080

      tierserve doctor -o json
    """
    from tierserve.cli.doctor.local import checks
    from tierserve.cli.files import read

    _end(checks(None if file is None else read(file), port), output)


def doctor_of_cluster(
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Namespace whose services are checked for nodes \\[all]")
    ] = None,
    context: Context = None,
    output: TextOrData = "text",
) -> None:
    """Check a cluster: CRD, operator, KubeRay, Prometheus operator, permissions, nodes and accelerators of each pool.

    Exit code 1 if something that is required is missing; each line that is not ok has a hint.

    [bold]Examples[/bold]

      kubectl tierserve doctor

      kubectl tierserve doctor -n chat --context production -o json
    """
    from tierserve.cli.doctor.cluster import checks

    _end(checks(namespace, context), output)


def _end(checks: Sequence[Check], output: str) -> None:
    if output == "text":
        show(Console(highlight=False), checks, text_width())
    else:
        emit(as_data(checks), output)
    if not is_complete(checks):
        raise typer.Exit(1)
