"""`tierserve up | status | down`: a service on this machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from tierserve.api import ValidationFailed, hints, load
from tierserve.cli.errors import UserError, invalid
from tierserve.cli.view import service_view

console = Console()


def up(
    file: Annotated[Path, typer.Argument(help="A GenAIDeployment, the same file that kubectl apply takes.")],
    port: Annotated[int | None, typer.Option(help="Port of the endpoint; the first free one from 8080 up.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait until every tier serves.")] = 300.0,
) -> None:
    """Start a service on this machine, and keep it as the file says: edit the file, and it follows.

    Example: tierserve up examples/assistant.yaml
    """
    from tierserve.runtime.local.preflight import PreflightError
    from tierserve.runtime.local.service import LocalService, StartError

    began = time.monotonic()

    def progress(message: str) -> None:
        console.print(f"  [dim]{time.monotonic() - began:5.1f} s[/]  {message}", highlight=False)

    try:
        service = LocalService.up(file, port=port, on_progress=progress, timeout_s=timeout)
    except ValidationFailed as error:
        raise invalid(file, error.problems) from error
    except FileNotFoundError as error:
        raise UserError(f"{file}: no such file", "give the path of a GenAIDeployment") from error
    except PreflightError as error:
        raise UserError(error.message, error.hint) from error
    except StartError as error:
        raise UserError(
            str(error), f"look into {LocalService.named(_name(file)).paths.logs}, then: tierserve down"
        ) from error
    name = service.paths.name
    for warning in hints(load(file)):
        console.print(f"[yellow]warning[/]  {warning.format()}", highlight=False)
    console.print(f"[bold green]{name} serves at {service.endpoint}/v1[/] after {time.monotonic() - began:.0f} s")
    console.print(
        f"  try     curl {service.endpoint}/v1/chat/completions -H 'Content-Type: application/json' "
        f"""-d '{{"model": "{name}", "messages": [{{"role": "user", "content": "Hello"}}]}}'\n"""
        f"  watch   tierserve status {name} --watch\n"
        f"  load    tierserve load {service.endpoint} --connections 1,2,4,8\n"
        f"  end     tierserve down {name}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def status(
    name: Annotated[str | None, typer.Argument(help="Service; all of this user when left out.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh every second until Ctrl-C.")] = False,
    output: Annotated[str, typer.Option("--output", "-o", help="table or json.")] = "table",
) -> None:
    """Show tiers, replicas, lambda, rho, predicted and observed p95 of the services on this machine.

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
    name: Annotated[str | None, typer.Argument(help="Service; the only one when left out.")] = None,
) -> None:
    """End a service and every process it started; nothing is left behind.

    Example: tierserve down assistant
    """
    from tierserve.runtime.local.paths import known_services
    from tierserve.runtime.local.service import LocalService

    names = [name] if name else known_services()
    if not names:
        console.print("nothing is up")
        return
    if len(names) > 1:
        raise UserError(f"several services are up: {', '.join(names)}", "name one: tierserve down NAME")
    began = time.monotonic()
    LocalService.named(names[0]).down()
    console.print(f"{names[0]} is down after {time.monotonic() - began:.0f} s; nothing is left running")


def _name(file: Path) -> str:
    return load(file).name


def _documents(name: str | None) -> list[dict[str, Any]]:
    from tierserve.runtime.local.paths import known_services
    from tierserve.runtime.local.service import LocalService

    names = known_services() if name is None else [name]
    documents = [LocalService.named(n).status() for n in names]
    if name is not None and not documents[0]:
        raise UserError(f"no service {name} is up", "start one: tierserve up FILE")
    return [_with_target(d) for d in documents if d]


def _with_target(document: dict[str, Any]) -> dict[str, Any]:
    objective = document.get("objective")
    if not objective:
        return document
    return {**document, "target": f"p{objective['percentile']:g} {objective['target_s'] * 1e3:.0f} ms"}


def _view(name: str | None) -> Group | Text:
    documents = _documents(name)
    if not documents:
        return Text("nothing is up; start a service: tierserve up FILE")
    return Group(*(part for document in documents for part in service_view(document)))
