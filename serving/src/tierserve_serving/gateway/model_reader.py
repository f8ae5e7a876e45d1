"""Reads the model of requests whose model HAProxy cannot read: the whole body, with a complete JSON parser.

HAProxy buffers the first 64 KiB of a body, and OpenAI's Python package puts the model after the messages. Such a
request is sent here. If no tier can serve it, the response is an error; else it is sent back to HAProxy with its model
in a header, and the response is forwarded as it arrives. See docs/decisions/0008-reading-the-model.md.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from tierserve_serving.engines.base import ENDPOINTS
from tierserve_serving.gateway.agent_config import AgentConfig
from tierserve_serving.openai import errors
from tierserve_serving.openai.errors import ApiError

MODEL_HEADER = "X-TierServe-Model"
MOST_HELD_BYTES = 128 * 2**20
"""Limit of all bodies in memory together, a quarter of the container's memory limit."""

_MOST_DRAINED_BYTES = 64 * 2**20
# The same paths as in the rendered configuration (`tierserve.render.haproxy`).
GET_PATHS = ("/health", "/healthz", "/readyz", "/version", "/v1/models")

# Hop-by-hop headers (RFC 9110, section 7.6.1), and those that each connection sets itself.
_OF_ONE_CONNECTION = frozenset({
    "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect", "host",
})  # fmt: skip


class ModelReader:
    """HTTP server on the Unix socket to which HAProxy sends requests whose model it cannot read.

    Args:
        config: names of the models, maximum body size, and HAProxy's sockets.
    """

    def __init__(self, config: AgentConfig) -> None:
        self._held_bytes = 0
        self._socket = Path(f"{config.admin_socket}.read")
        self._internal = f"{config.admin_socket}.internal"
        self.configure(config)

    def configure(self, config: AgentConfig) -> None:
        """Applies changed models and limits."""
        variants = (model for pool in config.pools for model in pool.models)
        self._models = tuple(dict.fromkeys((config.service, *variants)))
        self._max_body_bytes = config.max_body_bytes

    async def start(self) -> None:
        """Starts listening; only the same user may connect."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(self._internal, limit=0),
            timeout=aiohttp.ClientTimeout(total=None),  # HAProxy's timeouts apply on both sides
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
        )
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        # If the client disconnects, the handler is cancelled, and with it the request to the tier.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, auto_decompress=False)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self._socket)).start()
        self._socket.chmod(0o600)

    async def close(self) -> None:
        """Closes the server and all its connections."""
        await self._runner.cleanup()
        await self._session.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        try:
            # In memory until the response headers arrive: by then the replica has the body.
            with self._hold(request.content_length):
                body = await self._read(request.content)
                _check_head(request)
                model = find_model(body, self._models)
                answer = await self._forward(request, body, model)
        except ApiError as error:
            await _drain(request.content)
            headers = {name.decode(): value.decode() for name, value in error.headers}
            return web.Response(
                body=error.body(), status=error.status, headers=headers, content_type="application/json"
            )
        async with answer:
            return await _pass_on(request, answer)

    @contextmanager
    def _hold(self, length: int | None) -> Iterator[None]:
        size = self._max_body_bytes if length is None else length
        if size > self._max_body_bytes:
            raise errors.body_too_large(self._max_body_bytes)
        if self._held_bytes + size > MOST_HELD_BYTES:
            raise errors.queue_full(1)
        self._held_bytes += size
        try:
            yield
        finally:
            self._held_bytes -= size

    async def _read(self, content: aiohttp.StreamReader) -> bytes:
        parts, size = [], 0
        async for part in content.iter_any():
            parts.append(part)
            size += len(part)
            if size > self._max_body_bytes:
                raise errors.body_too_large(self._max_body_bytes)
        return b"".join(parts)

    async def _forward(self, request: web.Request, body: bytes, model: str) -> aiohttp.ClientResponse:
        headers = _of_message(request.headers)
        headers.popall("Content-Length", None)
        headers[MODEL_HEADER] = model
        url = URL(f"http://{request.host}{request.rel_url.raw_path_qs}", encoded=True)
        try:
            return await self._session.request(request.method, url, headers=headers, data=io.BytesIO(body))
        except aiohttp.ClientError as error:
            message = f"The gateway agent could not forward the request: {error}"
            raise ApiError(502, message, kind="server_error", code="bad_gateway") from error


def _check_head(request: web.Request) -> None:
    """Checks path, method and Content-Type; the same rules as HAProxy's for bodies that it can read."""
    if request.path in GET_PATHS or request.path.startswith("/v1/models/"):
        raise errors.method_not_allowed(request.method, "GET, HEAD")
    if request.path not in ENDPOINTS:
        raise errors.unknown_path(request.path)
    if request.method != "POST":
        raise errors.method_not_allowed(request.method, "POST")
    kind = request.content_type
    if "Content-Type" in request.headers and kind != "application/json" and not kind.endswith("+json"):
        raise errors.wrong_content_type(kind[:100])


async def _drain(content: aiohttp.StreamReader) -> None:
    """Reads the rest of the body: many clients lose a response that arrives while they are still sending."""
    left = _MOST_DRAINED_BYTES
    async for part in content.iter_any():
        left -= len(part)
        if left < 0:
            return


def find_model(body: bytes, models: tuple[str, ...]) -> str:
    """Field `model` of a request; the first of `models` (any model) if the request has none.

    Raises:
        ApiError: 400 or 404, no replica can serve the request.
    """
    document = _parse(body)
    if not isinstance(document, dict):
        raise errors.invalid("The body must be a JSON object")
    model = document.get("model")
    if model is None:
        return models[0]
    if not isinstance(model, str):
        raise errors.invalid("'model' must be a string", "model")
    if model not in models:
        raise errors.model_not_found(model, models)
    return model


def _parse(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        reason = str(error)
    try:
        return json.loads(body)  # accepts more, as replicas may: lone surrogates, NaN
    except (ValueError, RecursionError):
        raise errors.bad_json(reason) from None


def _of_message(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in _OF_ONE_CONNECTION)


async def _pass_on(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    out = web.StreamResponse(status=answer.status, reason=answer.reason, headers=_of_message(answer.headers))
    await out.prepare(request)
    try:
        async for part in answer.content.iter_any():
            await out.write(part)
        await out.write_eof()
    except (aiohttp.ClientError, ConnectionError):
        # One side closed early: abort the other, so that it does not take the response for complete.
        if request.transport is not None:
            request.transport.abort()
    return out
