"""`tierserve up | status | down`: a service on this machine."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from tierserve.api import ValidationFailed, hints
from tierserve.cli.errors import UserError, invalid
from tierserve.cli.files import STDIN, Service, finite, parsed
from tierserve.cli.output import TableOrData, emit
from tierserve.cli.services import OnlyService, ServiceName, documents, names
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
    name: ServiceName = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh every second until Ctrl-C")] = False,
    output: TableOrData = "table",
) -> None:
    """Show tiers, replicas, arrival rate (lambda), utilisation (rho), predicted and observed p95 of local services.

    Examples: tierserve status; tierserve status assistant --watch; tierserve status -o json
    """
    if output != "table":
        emit(documents(name), output)
    elif watch:
        with Live(_view(name), console=console, refresh_per_second=2) as live:
            while True:
                time.sleep(1.0)
                live.update(_view(name))
    else:
        console.print(_view(name))


def down(
    name: OnlyService = None,
) -> None:
    """Stop a service and all of its processes.

    Example: tierserve down assistant
    """
    found = names(name)
    if not found:
        console.print("no service is running")
        return
    if len(found) > 1:
        raise UserError(f"NAME: is required, several services are running ({', '.join(found)})", "tierserve down NAME")
    from tierserve.runtime.local.service import LocalService

    began = time.monotonic()
    try:
        LocalService.named(found[0]).down()
    except TimeoutError as error:
        raise UserError(f"{found[0]}: {error}", "try again, or kill these process IDs", code=1) from error
    console.print(f"{found[0]} stopped after {time.monotonic() - began:.0f} s; no process is left")


def _view(name: str | None) -> Group | Text:
    found = documents(name)
    if not found:
        return Text("no service is running; start one with tierserve up FILE")
    return Group(*(part for document in found for part in service_view(document)))
