"""The HTTP side of OpenAI's API as a plain ASGI application; documents are read and written by the engine's own API.

No framework: on two cores, together with the proxies in front, it serves hundreds of requests per second; routing,
dependency injection and response models would cost more CPU time than the rest (bench/serving/replica.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from importlib import metadata
from typing import Any
from urllib.parse import unquote

import orjson

from tierserve_serving.engines import EngineError, Part, RequestError
from tierserve_serving.engines.base import ENDPOINTS
from tierserve_serving.openai import errors
from tierserve_serving.openai.body import parse_body
from tierserve_serving.openai.errors import ApiError
from tierserve_serving.replica.slots import QueueFullError
from tierserve_serving.replica.worker import Worker

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

_SANE_ID = re.compile(rb"[A-Za-z0-9._:\-]{1,128}")
_REQUEST_START = re.compile(rb"(?:t=)?(\d{1,12}(?:\.\d{1,9})?)")
_JSON: Header = (b"content-type", b"application/json")
_SSE: tuple[Header, ...] = ((b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"))
_MAX_GATEWAY_WAIT_S = 3600.0  # a longer time means that a clock is wrong


class ClientGoneError(Exception):
    """The client has disconnected before the request was complete."""


class Ingress:
    """The ASGI application of one replica.

    Args:
        worker: the worker of the replica.
        sends_request_id: whether responses have `X-Request-ID`. Ray Serve adds it itself.
        keep_alive: whether a connection may serve another request. Ray's HAProxy (2.8.25) splices, and if a spliced
            connection is reused it does not pass on that the client has disconnected: the slot would be taken until
            the answer is complete. A new connection on the same host costs far less.
    """

    def __init__(self, worker: Worker, *, sends_request_id: bool = True, keep_alive: bool = True) -> None:
        self._worker = worker
        self._tells_request_id = sends_request_id
        self._created = int(time.time())
        pool: Header = (b"x-tierserve-pool", worker.config.pool.encode())
        self._headers: tuple[Header, ...] = (pool,) if keep_alive else (pool, (b"connection", b"close"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; lifespan events are acknowledged, websockets are closed."""
        if scope["type"] == "http":
            await Exchange(self, scope, receive, send).run()
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1003})

    @property
    def worker(self) -> Worker:
        """The worker of the replica."""
        return self._worker

    def headers(self, request_id: bytes) -> tuple[Header, ...]:
        """Return the headers of every response: pool and request id."""
        if self._tells_request_id:
            return (*self._headers, (b"x-request-id", request_id))
        return self._headers

    def health(self) -> dict[str, Any]:
        """Return the state of the replica. Raises `EngineError` if its engine is unhealthy."""
        self._worker.engine.check_health()
        config = self._worker.config
        names = {"pool": config.pool, "service": config.service, "model": config.model, "engine": config.engine}
        return {"status": "ok"} | names | self._worker.report() | {"user_config": config.user_config()}

    def models(self) -> dict[str, Any]:
        """Return the list of models."""
        config = self._worker.config
        cards = [self._card(name) for name in config.model_names]
        return {"object": "list", "data": cards}

    def model(self, name: str) -> dict[str, Any]:
        """Return one model. Raises `ApiError` (404)."""
        config = self._worker.config
        if name not in config.model_names:
            raise errors.model_not_found(name, config.model_names)
        return self._card(name)

    def _card(self, name: str) -> dict[str, Any]:
        owner = f"tierserve:{self._worker.config.pool}"
        return {"id": name, "object": "model", "created": self._created, "owned_by": owner}


class Exchange:
    """One request and its response."""

    def __init__(self, ingress: Ingress, scope: Scope, receive: Receive, send: Send) -> None:
        self._ingress = ingress
        self._worker = ingress.worker
        self._scope = scope
        self._receive = receive
        self._send = send
        self._begin = time.time()
        self._headers: dict[bytes, bytes] = {name.lower(): value for name, value in scope["headers"]}
        request_id = self._headers.get(b"x-request-id", b"")
        self._id = request_id if _SANE_ID.fullmatch(request_id) else uuid.uuid4().hex.encode()
        self._started = False

    async def run(self) -> None:
        """Send the response. Errors become error objects; only cancellation propagates."""
        try:
            await self._route()
        except ClientGoneError:
            return
        except ApiError as error:
            await self._fail(error)

    async def _route(self) -> None:
        path, method = _path(self._scope), self._scope["method"]
        if path in ENDPOINTS:
            _allow(method, "POST")
            await self._complete(path)
            return
        _allow(method, "GET", path)
        if path in ("/healthz", "/health"):  # the path usual in Kubernetes, and that of vLLM and llama.cpp
            await self._health()
        elif path == "/version":
            await self._reply(200, orjson.dumps({"version": metadata.version("tierserve")}))
        elif path == "/v1/models":
            await self._reply(200, orjson.dumps(self._ingress.models()))
        else:
            await self._reply(200, orjson.dumps(self._ingress.model(unquote(path.removeprefix("/v1/models/")))))

    async def _health(self) -> None:
        try:
            await self._reply(200, orjson.dumps(self._ingress.health()))
        except EngineError as error:
            raise ApiError(503, f"The engine is unhealthy: {error}", kind="server_error", code="unhealthy") from None

    async def _complete(self, path: str) -> None:
        document = await self._read()
        task = asyncio.current_task()
        assert task is not None
        watch = _Watch(self._receive, task)
        try:
            await self._answer(path, document)
        except asyncio.CancelledError:
            if watch.disconnected and task.uncancel() == 0:
                return  # cancelled only by the watch: the client has disconnected, so there is no response
            raise
        finally:
            watch.stop()

    async def _read(self) -> dict[str, Any]:
        """Return the document of the request, its model by the name that the engine knows."""
        content_type = self._headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
        if content_type != b"application/json" and not content_type.endswith(b"+json"):
            raise errors.wrong_content_type(content_type.decode("latin-1")[:100])
        config = self._worker.config
        document = parse_body(await self._body(config.max_body_bytes))
        model = document.get("model")
        if model is not None and not isinstance(model, str):
            raise errors.invalid("'model' must be a string", "model", "invalid_value")
        if model and model not in config.model_names:
            raise errors.model_not_found(model, config.model_names)
        document["model"] = config.served_name(model or "")
        return document

    async def _body(self, limit: int) -> bytes:
        declared = self._headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared[:20]) > limit:
            raise errors.body_too_large(limit)
        parts, size, more = [], 0, True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            part = message.get("body", b"")
            parts.append(part)
            size += len(part)
            if size > limit:
                raise errors.body_too_large(limit)
            more = message.get("more_body", False)
        return b"".join(parts)

    async def _answer(self, path: str, document: dict[str, Any]) -> None:
        engine = self._worker.engine
        if path not in engine.endpoints:
            raise errors.no_endpoint(path, self._worker.config.engine, engine.endpoints)
        try:
            answer = self._worker.serve(
                engine.respond(path, document), self._gateway_wait(), path, str(document["model"])
            )
            async with contextlib.aclosing(answer) as parts:
                async for part in parts:
                    await self._pass_on(part)
        except QueueFullError:
            raise errors.queue_full(self._worker.retry_after_s()) from None
        except RequestError as error:
            raise ApiError(error.status, str(error), kind=error.kind, param=error.param, code=error.code) from None
        except EngineError as error:
            raise errors.engine_failed(str(error)) from None

    async def _pass_on(self, part: Part) -> None:
        if not part.streamed:
            await self._reply(200, part.data)
            return
        # The status is sent with the first part, so that an error before it has its own status.
        if not self._started:
            await self._start(200, _SSE)
        await self._send({"type": "http.response.body", "body": part.data, "more_body": part.usage is None})

    async def _fail(self, error: ApiError) -> None:
        if self._started:
            await self._send({"type": "http.response.body", "body": b"data: " + error.body() + b"\n\n"})
            return
        await self._reply(error.status, error.body(), error.headers)

    async def _reply(self, status: int, body: bytes, extra: tuple[Header, ...] = ()) -> None:
        await self._start(status, (_JSON, (b"content-length", str(len(body)).encode()), *extra))
        await self._send({"type": "http.response.body", "body": body})

    async def _start(self, status: int, headers: tuple[Header, ...]) -> None:
        self._started = True
        every = self._ingress.headers(self._id)
        await self._send({"type": "http.response.start", "status": status, "headers": [*headers, *every]})

    def _gateway_wait(self) -> float:
        match = _REQUEST_START.fullmatch(self._headers.get(b"x-request-start", b""))
        wait_s = self._begin - float(match[1]) if match else 0.0
        return wait_s if 0.0 < wait_s < _MAX_GATEWAY_WAIT_S else 0.0


class _Watch:
    """Cancels a task when its client disconnects."""

    def __init__(self, receive: Receive, task: asyncio.Task[Any]) -> None:
        self.disconnected = False
        self._task = task
        self._watcher = asyncio.create_task(self._watch(receive))

    def stop(self) -> None:
        """Stop watching, after the response."""
        self._watcher.cancel()

    async def _watch(self, receive: Receive) -> None:
        with contextlib.suppress(Exception):  # Ray's proxy may raise its own error instead of a disconnect message
            while (await receive())["type"] != "http.disconnect":
                pass
        self.disconnected = True
        self._task.cancel()


def _path(scope: Scope) -> str:
    path, root = scope["path"], scope.get("root_path", "").rstrip("/")
    return str(path[len(root) :] if root and path.startswith(root + "/") else path)


def _allow(method: str, allowed: str, path: str | None = None) -> None:
    """Raise `ApiError`: 404 if the path is unknown, 405 if only the method is not allowed."""
    exists = path is None or path in ("/healthz", "/health", "/version", "/v1/models") or path.startswith("/v1/models/")
    if not exists:
        raise errors.unknown_path(path or "")
    if method != allowed:
        raise errors.method_not_allowed(method, allowed)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
