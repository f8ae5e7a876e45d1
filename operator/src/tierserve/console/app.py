"""The console's HTTP side: the page, its files, and a JSON API without a request that changes anything.

| request | answer |
|---|---|
| GET / and /static/... | the page |
| GET /api/services?text=&offset=&limit= | totals of all services, and a page of those that match |
| GET /api/services/NAMESPACE/NAME?since= | one service with its history after `since`, Unix seconds |
| POST /api/what-if | the plan of a service with another load, target or prices |
| GET /healthz | 200 |
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from tierserve.api import Problem, ValidationFailed
from tierserve.console.fleet import Fleet
from tierserve.console.planner import Planner, PlannerError
from tierserve.console.sources import SourceError
from tierserve.console.what_if import checked

STATIC = Path(__file__).parent / "static"
FLEET = web.AppKey("fleet", Fleet)
PLANNER = web.AppKey("planner", Planner)
_ALLOWED = web.AppKey("allowed_hosts", frozenset)
MOST_BODY = 64 * 1024
MOST_ROWS = 200
_LONGEST_TEXT = 200
_HEADERS = {
    # Everything of the page is served here; no other host, no inline script, no frame.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_LOOPBACK = frozenset({"localhost", ""})
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(fleet: Fleet, *, allowed_hosts: Iterable[str] = (), planner: Planner | None = None) -> web.Application:
    """The application.

    Args:
        fleet: what it shows; its source is closed with the application.
        allowed_hosts: names in the Host header that are answered, beside localhost and addresses.
        planner: the planner process.
    """
    app = web.Application(client_max_size=MOST_BODY, middlewares=[_with_headers, _only_known_hosts])
    app[FLEET], app[PLANNER] = fleet, planner or Planner()
    app[_ALLOWED] = frozenset(host.casefold() for host in allowed_hosts)
    app.router.add_get("/", _page)
    app.router.add_get("/healthz", _health)
    app.router.add_get("/api/services", _services)
    app.router.add_get("/api/services/{namespace}/{name}", _service)
    app.router.add_post("/api/what-if", _what_if)
    app.router.add_static("/static/", STATIC)
    app.cleanup_ctx.append(_sampling)
    return app


async def _sampling(app: web.Application) -> AsyncIterator[None]:
    fleet = app[FLEET]
    await fleet.sample()  # the first page has services
    task = asyncio.create_task(fleet.run())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await app[PLANNER].close()
    await fleet.source.close()


@web.middleware
async def _with_headers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Security headers on every response, and errors of the API as JSON."""
    try:
        response = await handler(request)
    except web.HTTPException as error:
        if error.status < 400 or not request.path.startswith("/api/"):
            error.headers.update(_HEADERS)
            raise
        hint = {
            404: "see GET /api/services",
            405: "the console is read only",
            413: f"send at most {MOST_BODY} bytes",
        }.get(error.status, "")
        response = _problems([Problem("", error.reason.lower(), hint)], status=error.status)
    response.headers.update(_HEADERS)
    # Validated each time: after an upgrade the page and its script must be of one version.
    response.headers.setdefault("Cache-Control", "no-cache")
    return response


@web.middleware
async def _only_known_hosts(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse other names in Host: a page elsewhere whose name resolves to this address (DNS rebinding) has one."""
    host = (request.host or "").casefold()
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    # An address cannot be rebound; probes of the kubelet use one.
    if name in _LOOPBACK or name in request.app[_ALLOWED] or _is_address(name):
        return await handler(request)
    problem = Problem("Host", "is not allowed", "use localhost or an address, or start with --allowed-host", name[:200])
    return _problems([problem], status=421)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _page(_: web.Request) -> web.StreamResponse:
    return web.FileResponse(STATIC / "index.html")


async def _health(_: web.Request) -> web.StreamResponse:
    return web.Response(text="ok\n")


async def _services(request: web.Request) -> web.StreamResponse:
    fleet = request.app[FLEET]
    etag = f"{fleet.identity}-{fleet.revision}-{zlib.crc32(request.query_string.encode()):x}"
    if any(tag.value == etag for tag in request.if_none_match or ()):
        return web.Response(status=304, headers={"ETag": f'"{etag}"'})
    try:
        offset = int(_number(request, "offset", 0, 0, 1e9))
        limit = int(_number(request, "limit", 50, 1, MOST_ROWS))
    except ValidationFailed as error:
        return _problems(error.problems)
    text = request.query.get("text", "")[:_LONGEST_TEXT]
    response = _json(fleet.listed(text, offset, limit))
    response.headers["ETag"] = f'"{etag}"'
    return response


async def _service(request: web.Request) -> web.StreamResponse:
    try:
        since = _number(request, "since", 0, 0, 1e12)
    except ValidationFailed as error:
        return _problems(error.problems)
    key = request.match_info["namespace"], request.match_info["name"]
    found = request.app[FLEET].of(key, since)
    if found is None:
        raise web.HTTPNotFound
    return _json(found)


async def _what_if(request: web.Request) -> web.StreamResponse:
    # A form of another site cannot send this type without a preflight request, which is not answered.
    if request.content_type != "application/json":
        problem = Problem("Content-Type", "must be application/json", "send JSON", request.content_type)
        return _problems([problem], status=415)
    fleet, planner = request.app[FLEET], request.app[PLANNER]
    try:
        change = checked(_parsed(await request.read()))
        key = change["namespace"], change["name"]
        document = await fleet.source.document(key)
        if document is None:
            raise web.HTTPNotFound
        if planner.busy:
            busy = _problems([Problem("", "another plan is being made", "try again")], status=503)
            busy.headers["Retry-After"] = "1"
            return busy
        return _json(await planner.ask(document, change, fleet.rate_of(key)))
    except ValidationFailed as error:
        return _problems(error.problems)
    except SourceError as error:
        return _problems([Problem("", str(error), "correct the file, or start the service again")], status=409)
    except PlannerError as error:
        return _problems([Problem("", str(error), "use tierserve plan for a service of this size")], status=504)


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except ValueError as error:
        raise ValidationFailed([Problem("", f"is not JSON: {error}", "send a JSON object")]) from error


def _number(request: web.Request, name: str, default: float, least: float, most: float) -> float:
    """A number of the query; raises ValidationFailed."""
    text = request.query.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        hint = f"give a number from {least:g} to {most:g}"
        raise ValidationFailed([Problem(name, "is not a number in range", hint, text[:80])])
    return value


def _problems(problems: Iterable[Problem], status: int = 400) -> web.Response:
    """Errors as JSON, each with field, message and hint."""
    named = [{"field": one.path, "message": one.message_with_value, "hint": one.hint} for one in problems]
    return _json({"errors": named}, status=status)


def _json(document: Any, status: int = 200) -> web.Response:
    response = web.Response(
        body=orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store" if status >= 400 else "no-cache"},
    )
    response.enable_compression()
    return response
