"""`tierserve up | status | down`: a service on this machine."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

import orjson
import typer
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from tierserve.api import ValidationFailed, hints
from tierserve.cli.errors import UserError, invalid
from tierserve.cli.files import STDIN, Service, finite, parsed
from tierserve.cli.view import service_view

console = Console()


def up(
    file: Service,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port of the endpoint \\[first free port from 8080]"),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=1.0, callback=finite, help="Seconds to wait until every tier is ready")
    ] = 300.0,
) -> None:
    """Start a service on this machine and reconcile it with its file: edits of the file are applied.

    A file from standard input or a pipe is copied; run the command again to change it.

    Example: tierserve up examples/assistant.yaml
    """
    from tierserve.runtime.local.paths import LocalError
    from tierserve.runtime.local.service import LocalService, StartError

    began = time.monotonic()

    def progress(message: str) -> None:
        console.print(f"  [dim]{time.monotonic() - began:5.1f} s[/]  {escape(message)}", highlight=False)

    text, gaid = parsed(file)
    piped = None if file != STDIN and file.is_file() else text
    try:
        service = LocalService.up(file, text=piped, port=port, on_progress=progress, timeout_s=timeout)
    except ValidationFailed as error:
        raise invalid(file, error.problems) from error
    except LocalError as error:
        raise UserError(error.message, error.hint, code=1) from error
    except StartError as error:
        logs = LocalService.named(gaid.name).paths.logs
        raise UserError(str(error), f"see the logs in {logs}, then run: tierserve down {gaid.name}", code=1) from error
    name = service.paths.name
    for warning in hints(gaid):
        console.print(f"[yellow]warning[/]  {escape(warning.format())}", highlight=False)
    console.print(f"[bold green]{name} serves at {service.endpoint}/v1[/] after {time.monotonic() - began:.0f} s")
    console.print(
        f"  try     curl {service.endpoint}/v1/chat/completions -H 'Content-Type: application/json' "
        f"""-d '{{"model": "{name}", "messages": [{{"role": "user", "content": "Hello"}}]}}'\n"""
        f"  watch   tierserve status {name} --watch\n"
        f"  load    tierserve load {service.endpoint} --connections 1,2,4,8\n"
        f"  stop    tierserve down {name}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def status(
    name: Annotated[str | None, typer.Argument(help="Name of a service \\[all of this user]")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh every second until Ctrl-C")] = False,
    output: Annotated[Literal["table", "json"], typer.Option("--output", "-o", help="Output format")] = "table",
) -> None:
    """Show tiers, replicas, arrival rate (lambda), utilisation (rho), predicted and observed p95 of local services.

    Examples: tierserve status; tierserve status assistant --watch; tierserve status -o json
    """
    if output == "json":
        print(orjson.dumps(_documents(name), option=orjson.OPT_INDENT_2).decode())
    elif watch:
        with Live(_view(name), console=console, refresh_per_second=2) as live:
            while True:
                time.sleep(1.0)
                live.update(_view(name))
    else:
        console.print(_view(name))


def down(
    name: Annotated[str | None, typer.Argument(help="Name of a service \\[the only one that runs]")] = None,
) -> None:
    """Stop a service and all of its processes.

    Example: tierserve down assistant
    """
    names = _names(name)
    if not names:
        console.print("no service is running")
        return
    if len(names) > 1:
        raise UserError(f"NAME: is required, several services are running ({', '.join(names)})", "tierserve down NAME")
    from tierserve.runtime.local.service import LocalService

    began = time.monotonic()
    try:
        LocalService.named(names[0]).down()
    except TimeoutError as error:
        raise UserError(f"{names[0]}: {error}", "try again, or kill these process IDs", code=1) from error
    console.print(f"{names[0]} stopped after {time.monotonic() - began:.0f} s; no process is left")


def _names(name: str | None) -> list[str]:
    """The service of this name, or every one that is known; UserError when there can be none of this name."""
    from tierserve.runtime.local.paths import LocalError, ServicePaths, known_services

    try:
        if name is None:
            return known_services()
        ServicePaths.of(name)
    except LocalError as error:
        raise UserError(error.message, error.hint, code=1) from error
    return [name]


def _documents(name: str | None) -> list[dict[str, Any]]:
    names = _names(name)
    if not names:
        return []
    from tierserve.runtime.local.service import LocalService

    documents = [LocalService.named(n).status() for n in names]
    if name is not None and not documents[0]:
        raise UserError(f"NAME: no such service is running ({name})", "start one with tierserve up FILE", code=1)
    return [_with_target(d) for d in documents if d]


def _with_target(document: dict[str, Any]) -> dict[str, Any]:
    objective = document.get("objective")
    if not objective:
        return document
    return {**document, "target": f"p{objective['percentile']:g} {objective['target_s'] * 1e3:.0f} ms"}


def _view(name: str | None) -> Group | Text:
    documents = _documents(name)
    if not documents:
        return Text("no service is running; start one with tierserve up FILE")
    return Group(*(part for document in documents for part in service_view(document)))
