"""`tierserve console`: the web console on this machine or in a pod."""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from tierserve.cli.errors import UserError

if TYPE_CHECKING:  # they need an extra
    from aiohttp.web import Application

    from tierserve.console.sources import Source

PORT = 8090
ALL = "*"
_console = Console()


def console(
    *,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the page")] = PORT,
    host: Annotated[str, typer.Option(help="Address to listen on; * is all addresses of both families")] = "127.0.0.1",
    allow_remote: Annotated[
        bool,
        typer.Option(
            "--allow-remote", help="Allow an address that others can reach: the console itself asks for no password"
        ),
    ] = False,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="Host name by which browsers may call it, e.g. of an Ingress; repeatable \\[localhost]"),
    ] = None,
    kubernetes: Annotated[
        bool, typer.Option("--kubernetes", "-k", help="Services of a cluster instead of this machine")
    ] = False,
    namespace: Annotated[
        list[str] | None, typer.Option("--namespace", "-n", help="With -k: namespaces, repeatable \\[all]")
    ] = None,
    context: Annotated[
        str | None, typer.Option(help="With -k: context of the kubeconfig \\[the current context]")
    ] = None,
) -> None:
    """Serve a web page with the services, live and read only: tiers, replicas, p95 against the target, what-if.

    Without --kubernetes it shows the services that `tierserve up` started. In a cluster the chart installs it with
    console.enabled=true.

    Examples: tierserve console; tierserve console -k --context prod -n chat
    """
    _check_host(host, allow_remote=allow_remote)
    if not kubernetes and (namespace or context):
        raise UserError("--namespace, --context: require --kubernetes", "add --kubernetes, or leave them out")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    from aiohttp import web

    shown = "localhost" if host == ALL else f"[{host}]" if ":" in host else host
    make = _from_cluster(tuple(namespace or ()), context) if kubernetes else _from_this_machine()
    app = _made(make, tuple(allowed_host or ()))
    try:
        web.run_app(
            app,
            host=None if host == ALL else host,
            port=port,
            print=lambda *_: _console.print(
                f"console at http://{shown}:{port}/ (Ctrl-C ends it)", highlight=False, markup=False
            ),
        )
    except OSError as error:
        raise UserError(
            f"--port: {error.strerror or error} ({host}:{port})", "choose another --port", code=1
        ) from error


async def _made(source: Awaitable[Source], allowed_hosts: tuple[str, ...]) -> Application:
    from tierserve.console.app import make_app
    from tierserve.console.fleet import Fleet

    return make_app(Fleet(await source), allowed_hosts=allowed_hosts)


async def _from_this_machine() -> Source:
    from tierserve.console.local import LocalSource

    return LocalSource()


async def _from_cluster(namespaces: tuple[str, ...], context: str | None) -> Source:
    from tierserve.console.cluster import ClusterSource
    from tierserve.console.sources import SourceError

    try:
        return await ClusterSource.connected(namespaces, context)
    except SourceError as error:
        raise UserError(str(error), "see kubectl config get-contexts", code=1) from error


def _check_host(host: str, *, allow_remote: bool) -> None:
    """Raise UserError for a host that is no address of this machine's, or that others can reach without consent."""
    if host == ALL and allow_remote:
        return
    try:
        addresses = {
            info[4][0] for info in socket.getaddrinfo("::" if host == ALL else host, None, type=socket.SOCK_STREAM)
        }
    except OSError as error:
        raise UserError(
            f"--host: cannot be resolved ({host})", "use 127.0.0.1, or an address of this machine"
        ) from error
    if not allow_remote and not all(ipaddress.ip_address(str(one).partition("%")[0]).is_loopback for one in addresses):
        raise UserError(
            f"--host: others can reach this address, and the console asks for no password ({host})",
            "use 127.0.0.1 and an SSH or kubectl port-forward; behind a proxy that authenticates: --allow-remote",
        )
