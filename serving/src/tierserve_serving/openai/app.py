"""OpenAI's API as a plain ASGI application.

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

from tierserve_serving.engines import Chunk, EngineError, PromptError
from tierserve_serving.engines.base import FinishReason
from tierserve_serving.openai import errors
from tierserve_serving.openai.errors import ApiError
from tierserve_serving.openai.schema import DONE, Call, Kind, Writer, error_event, model_card, parse_call
from tierserve_serving.replica.slots import QueueFullError
from tierserve_serving.replica.worker import Worker

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

_SANE_ID = re.compile(rb"[A-Za-z0-9._:\-]{1,128}")
_REQUEST_START = re.compile(rb"(?:t=)?(\d{1,12}(?:\.\d{1,9})?)")
_CALLS: dict[str, Kind] = {"/v1/chat/completions": "chat", "/v1/completions": "text"}
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
        cards = [model_card(name, self._created, config.pool) for name in config.model_names]
        return {"object": "list", "data": cards}

    def model(self, name: str) -> dict[str, Any]:
        """Return one model. Raises `ApiError` (404)."""
        config = self._worker.config
        if name not in config.model_names:
            raise errors.model_not_found(name, config.model_names)
        return model_card(name, self._created, config.pool)


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
        kind = _CALLS.get(path)
        if kind is not None:
            _allow(method, "POST")
            await self._complete(kind)
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

    async def _complete(self, kind: Kind) -> None:
        call = await self._read_call(kind)
        task = asyncio.current_task()
        assert task is not None
        watch = _Watch(self._receive, task)
        try:
            await self._answer(call)
        except asyncio.CancelledError:
            if watch.disconnected and task.uncancel() == 0:
                return  # cancelled only by the watch: the client has disconnected, so there is no response
            raise
        finally:
            watch.stop()

    async def _read_call(self, kind: Kind) -> Call:
        content_type = self._headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
        if content_type != b"application/json" and not content_type.endswith(b"+json"):
            raise errors.wrong_content_type(content_type.decode("latin-1")[:100])
        config = self._worker.config
        body = await self._body(config.max_body_bytes)
        call = parse_call(kind, body, config.engine, self._worker.engine.capabilities)
        if call.model is not None and call.model not in config.model_names:
            raise errors.model_not_found(call.model, config.model_names)
        return call

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

    async def _answer(self, call: Call) -> None:
        writer = Writer(call.kind, self._completion_id(call.kind), self._worker.config.model, int(self._begin))
        try:
            for generation in call.generations:
                self._worker.engine.check(generation)
            await (self._stream(call, writer) if call.stream else self._whole(call, writer))
        except QueueFullError:
            raise errors.queue_full(self._worker.retry_after_s()) from None
        except PromptError as error:
            raise errors.invalid(str(error), "prompt" if call.kind == "text" else error.param, error.code) from None
        except EngineError as error:
            raise errors.engine_failed(str(error)) from None

    async def _whole(self, call: Call, writer: Writer) -> None:
        texts = list(call.echo) or [""] * len(call.generations)
        choices: list[tuple[str, FinishReason]] = []
        input_tokens = tokens = 0
        async with contextlib.aclosing(self._worker.serve(call.generations, self._gateway_wait())) as chunks:
            async for chunk in chunks:
                texts[chunk.index] += chunk.text
                tokens += chunk.tokens
                if chunk.finish is not None:
                    choices.append((texts[chunk.index], chunk.finish))
                    input_tokens += _prompt_tokens(call, chunk)
                if len(choices) == len(call.generations):
                    await self._reply(200, writer.whole(choices, input_tokens, tokens))

    async def _stream(self, call: Call, writer: Writer) -> None:
        input_tokens = tokens = opened = 0
        async with contextlib.aclosing(self._worker.serve(call.generations, self._gateway_wait())) as chunks:
            async for chunk in chunks:
                # The status is sent with the first token, so that an error before it has its own status.
                if not self._started:
                    await self._start(200, _SSE)
                event = b""
                if chunk.index == opened:
                    event, opened = writer.opening(chunk.index, call.echo[opened] if call.echo else ""), opened + 1
                tokens += chunk.tokens
                event += writer.piece(chunk)
                if chunk.finish is not None:
                    input_tokens += _prompt_tokens(call, chunk)
                if chunk.finish is None or opened < len(call.generations):
                    await self._send({"type": "http.response.body", "body": event, "more_body": True})
                    continue
                if call.include_usage:
                    event += writer.usage_event(input_tokens, tokens)
                await self._send({"type": "http.response.body", "body": event + DONE})

    async def _fail(self, error: ApiError) -> None:
        if self._started:
            await self._send({"type": "http.response.body", "body": error_event(error)})
            return
        await self._reply(error.status, error.body(), error.headers)

    async def _reply(self, status: int, body: bytes, extra: tuple[Header, ...] = ()) -> None:
        await self._start(status, (_JSON, (b"content-length", str(len(body)).encode()), *extra))
        await self._send({"type": "http.response.body", "body": body})

    async def _start(self, status: int, headers: tuple[Header, ...]) -> None:
        self._started = True
        every = self._ingress.headers(self._id)
        await self._send({"type": "http.response.start", "status": status, "headers": [*headers, *every]})

    def _completion_id(self, kind: Kind) -> str:
        return ("chatcmpl-" if kind == "chat" else "cmpl-") + uuid.uuid4().hex

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


def _prompt_tokens(call: Call, end: Chunk) -> int:
    """Return the prompt tokens that a choice adds to the usage: OpenAI counts a prompt once for its n choices."""
    return end.input_tokens if end.index % call.n == 0 else 0


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
