"""`tierserve up | status | down`: a service on this machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tierserve.api import ValidationFailed, load, unused_fields
from tierserve.cli.errors import UserError, invalid

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
        raise UserError(error.message, error.mend) from error
    except StartError as error:
        raise UserError(
            str(error), f"look into {LocalService.named(_name(file)).paths.logs}, then: tierserve down"
        ) from error
    name = service.paths.name
    for warning in unused_fields(load(file)):
        console.print(f"[yellow]warning[/]  {warning.told()}", highlight=False)
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
    return [d for d in documents if d]


def _view(name: str | None) -> Group | Text:
    documents = _documents(name)
    if not documents:
        return Text("nothing is up; start a service: tierserve up FILE")
    return Group(*(part for document in documents for part in _service_view(document)))


def _service_view(document: dict[str, Any]) -> list[Table | Text]:
    body = document.get("status") or {}
    conditions = {c["type"]: c for c in body.get("conditions", [])}
    ready = conditions.get("Ready", {})
    pools = body.get("pools", [])
    parts: list[Table | Text] = [_headline(document, body, ready), pools_table(pools), *_reasons(pools)]
    for kind in ("Degraded", "SloMet", "ScalingReady"):
        condition = conditions.get(kind, {})
        if condition.get("status") == ("True" if kind == "Degraded" else "False"):
            parts.append(Text(f"{kind}: {condition['reason']}: {condition['message']}", style="yellow"))
    if document.get("fileProblem"):
        parts.append(Text(document["fileProblem"], style="red"))
    if not document.get("supervised"):
        parts.append(Text(f"the supervisor is dead: run `tierserve up {document['file']}` again", style="bold red"))
    return parts


def _headline(document: dict[str, Any], body: dict[str, Any], ready: dict[str, Any]) -> Text:
    good = ready.get("status") == "True"
    target = document.get("objective", {})
    words = f"{document['name']}  {'Ready' if good else ready.get('message', 'starting')}  {body.get('endpoint', '')}"
    if target:
        words += f"  target p{target['percentile']:g} {target['target_s'] * 1e3:.0f} ms"
    return Text(words, style="bold green" if good else "bold yellow")


def pools_table(pools: list[dict[str, Any]]) -> Table:
    """One row per pool; a dash where nothing is known."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("tier")
    table.add_column("model")
    for column in ("replicas", "lambda", "servers", "rho", "P(wait)", "predicted", "observed", "queue"):
        table.add_column(column, justify="right")
    for pool in pools:
        table.add_row(*_pool_row(pool))
    return table


def _pool_row(pool: dict[str, Any]) -> list[str]:
    decision, gateway = pool.get("decision") or {}, pool.get("gateway") or {}
    running, wanted = pool.get("running"), pool.get("wanted")
    replicas = "-" if running is None else f"{running}" if running == wanted else f"{running} to {wanted}"
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
    return decision.get("reason") or pool.get("message") or (pool.get("app") or "Ray Serve does not answer").lower()


def _short(pool: dict[str, Any]) -> str:
    return str(pool["pool"]).removesuffix("-default")


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
