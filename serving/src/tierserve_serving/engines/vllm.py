"""vLLM in the replica: its engine, and its own OpenAI server as an application that is called in this process.

vLLM's application is the one of `vllm serve`: the same endpoints, fields, errors and documents. Only its socket and its
access log are left out. The engine's core runs in a process of its own, as in `vllm serve`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import time
from argparse import Namespace
from collections.abc import AsyncGenerator, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import orjson

from tierserve_serving.config import PoolConfig
from tierserve_serving.engines import model_sizes
from tierserve_serving.engines.base import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    PROMPT_FIELDS,
    RESPONSES,
    Concurrency,
    EngineError,
    Part,
    RequestError,
    Timing,
    Usage,
    named_field,
)
from tierserve_serving.engines.vllm_args import ArgumentError, cache_memory, check_adapters, parse

logger = logging.getLogger("ray.serve")
_ENDPOINTS_OF_TASKS = {"generate": (CHAT, COMPLETIONS, RESPONSES), "embed": (EMBEDDINGS,)}
_TOO_LONG = re.compile(r"maximum (context|model) length")
# Messages about the prompt that do not name its field.
_OF_THE_PROMPT = re.compile(r"multimodal model|conversation|chat template|is not iterable|for ValidatorIterator")
_PYDANTIC = re.compile(r"""'msg': (['"])(.*?)\1, 'input'""")
_ENVIRONMENT = {  # unless set by the user
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",  # sources are files of this machine
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # binding to cores fails in a pod whose cores are shared
}


@dataclass(slots=True)
class _Account:
    """What vLLM reports about one request, as its outputs pass."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached: bool = False
    times: list[Any] = field(default_factory=list)
    error: Exception | None = None
    _shown: int = 0

    def see(self, output: Any) -> None:
        """Count an output of the engine; with the outputs that OpenAI's API asks for, tokens come once."""
        if isinstance(output.outputs, list):  # of an embedding it is the vector
            self.output_tokens += sum(len(choice.token_ids) for choice in output.outputs)
        if output.finished:
            self.input_tokens += len(output.prompt_token_ids or ())
            self.cached = self.cached or bool(getattr(output, "num_cached_tokens", 0))
            if getattr(output, "metrics", None) is not None:
                self.times.append(output.metrics)

    def fresh(self) -> int:
        """Return the tokens since the last call."""
        fresh, self._shown = self.output_tokens - self._shown, self.output_tokens
        return fresh

    async def watch(self, outputs: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
        """Yield the outputs of the engine, counted."""
        async with contextlib.aclosing(outputs):
            try:
                async for output in outputs:
                    self.see(output)
                    yield output
            except Exception as error:
                self.error = error
                raise

    def usage(self, concurrency: Concurrency) -> Usage:
        """Return tokens and times of the complete answer."""
        timings = (self._timing(times, concurrency) for times in self.times)
        return Usage(self.input_tokens, self.output_tokens, tuple(timing for timing in timings if timing))

    def _timing(self, times: Any, concurrency: Concurrency) -> Timing | None:
        """Times by the clock of the engine's core, the monotonic clock of this machine."""
        steps = int(times.num_generation_tokens) - 1
        begin, first, last = times.scheduled_ts, times.first_token_ts, times.last_token_ts
        if steps < 1 or not 0.0 < begin < first < last:
            return None
        return Timing(
            None if self.cached else first - begin,
            max(concurrency.mean(begin, first), 1.0),
            last - first,
            steps,
            max(concurrency.mean(first, last), 1.0),
        )


_account: ContextVar[_Account] = ContextVar("account")


def counting_engine(arguments: Namespace, gauges: dict[str, float]) -> Any:
    """Return vLLM's engine, which counts into the account of the request and keeps `gauges` up to date."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.metrics.loggers import StatLoggerBase

    class Engine(AsyncLLM):  # type: ignore[misc]
        def generate(self, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
            return _account.get(_Account()).watch(super().generate(*args, **kwargs))

        def encode(self, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
            return _account.get(_Account()).watch(super().encode(*args, **kwargs))

    class Gauges(StatLoggerBase):  # type: ignore[misc]
        def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
            gauges.setdefault("kv_cache_usage", 0.0)

        def record(self, scheduler_stats: Any, iteration_stats: Any, *args: Any, **kwargs: Any) -> None:
            if scheduler_stats is not None:
                gauges["kv_cache_usage"] = float(scheduler_stats.kv_cache_usage)
                gauges["engine_running"] = float(scheduler_stats.num_running_reqs)
                gauges["engine_waiting"] = float(scheduler_stats.num_waiting_reqs)

        def log_engine_initialized(self) -> None:
            """Do nothing: vLLM logs it itself."""

    try:
        configuration = AsyncEngineArgs.from_cli_args(arguments).create_engine_config(UsageContext.OPENAI_API_SERVER)
    except ValueError as error:
        raise ArgumentError(f"engineArgs: vLLM: {error}") from error
    return Engine.from_vllm_config(configuration, usage_context=UsageContext.OPENAI_API_SERVER, stat_loggers=[Gauges])


def _check_sizes(config: PoolConfig, arguments: Namespace) -> None:
    """Raise `ValueError` if the context does not fit the model or the memory; vLLM's own check ends its core only."""
    try:
        sizes = model_sizes.read(Path(arguments.model), config.engine_args)
    except (OSError, ValueError):
        return  # vLLM says what is wrong with it
    model_sizes.check_context(sizes, config.context_tokens, config.engine_args)
    model_sizes.check_cache(sizes, config, cache_memory(arguments, sizes.weights or 0))


class VllmEngine:
    """vLLM with at most `slots` requests in its batch."""

    def __init__(self, config: PoolConfig) -> None:
        self._config = config
        self._app: Any = None
        self._engine: Any = None
        self._endpoints: frozenset[str] = frozenset()
        self._concurrency = Concurrency()
        self._gauges: dict[str, float] = {}

    @classmethod
    def of(cls, config: PoolConfig) -> Self:
        """Return the engine of a pool."""
        return cls(config)

    @property
    def endpoints(self) -> frozenset[str]:
        """Those of the tasks that vLLM supports with this model."""
        return self._endpoints

    async def load(self) -> None:
        """Start vLLM and load model and adapters. Raises `ArgumentError` with vLLM's own message."""
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        arguments = parse(self._config)
        _check_sizes(self._config, arguments)
        check_adapters(arguments, self._config)
        # The limit of the pool, for requests without one and for those above it.
        arguments.override_generation_config = {
            **(arguments.override_generation_config or {}),
            "max_new_tokens": min(self._config.max_output_tokens, self._config.context_tokens),
        }
        from vllm.entrypoints.launchers.api_server.app_state import init_app_state
        from vllm.entrypoints.launchers.app import build_app

        self._engine = counting_engine(arguments, self._gauges)
        tasks = await self._engine.get_supported_tasks()
        app = build_app(arguments, tasks, self._engine.model_config)
        app.state.server = SimpleNamespace(should_exit=False)  # vLLM sets it when its engine has died
        await init_app_state(self._engine, app.state, arguments, tasks)
        self._check_cache(self._engine.vllm_config.cache_config)
        self._app = app
        self._endpoints = frozenset(path for task in tasks for path in _ENDPOINTS_OF_TASKS.get(task, ()))

    def _check_cache(self, cache: Any) -> None:
        """Warn if `slots` requests of `context_tokens` exceed vLLM's key-value cache, which it has sized by now.

        No error: the planner sizes slots for the mean request, and vLLM preempts requests where longer ones meet.
        """
        fit = cache.kv_cache_max_concurrency
        if fit is None:  # a model without such a cache
            return
        self._gauges["kv_cache_full_contexts"] = float(fit)
        if fit < self._config.slots:
            logger.warning("%s", cache_warning(self._config, fit, cache.kv_cache_size_tokens))

    def reconfigure(self, config: PoolConfig) -> None:
        """Do nothing: all `UserConfig` fields are for emulation."""

    def gauges(self) -> dict[str, float]:
        """Return the use of the key-value cache and the requests in vLLM's scheduler."""
        return self._gauges

    def check_health(self) -> None:
        """Raise `EngineError` if the engine is not loaded or its core has died."""
        if self._engine is None:
            raise EngineError("no model is loaded")
        if self._engine.errored:
            raise EngineError("vLLM's engine core has died")

    def close(self) -> None:
        """End the engine's processes."""
        if self._engine is not None:
            self._engine.shutdown()
        self._engine = self._app = None

    async def respond(self, path: str, document: dict[str, Any]) -> AsyncGenerator[Part, None]:
        """Yield the answer of vLLM's application. Closing it aborts the request in the engine."""
        if self._app is None:
            raise EngineError("no model is loaded")
        account = _Account()
        self._concurrency.change(1, time.monotonic())
        try:
            async with contextlib.aclosing(self._call(path, document, account)) as parts:
                async for part in parts:
                    yield part
        finally:
            self._concurrency.change(-1, time.monotonic())

    async def _call(self, path: str, document: dict[str, Any], account: _Account) -> AsyncGenerator[Part, None]:
        exchange = _Exchange(orjson.dumps(document))
        token = _account.set(account)  # the task inherits it
        task = asyncio.create_task(exchange.run(self._app, path))
        _account.reset(token)
        try:
            status = await exchange.head()
            if status != 200:
                raise _error(status, b"".join([data async for data in exchange.body()]), path, document)
            if not exchange.streamed:
                whole = b"".join([data async for data in exchange.body()])
                yield Part(whole, False, account.fresh(), account.usage(self._concurrency))
                return
            async for data in exchange.body():
                yield Part(data, True, account.fresh())
            if account.error is not None:  # vLLM has sent it as an event
                raise EngineError(str(account.error)) from account.error
            yield Part(b"", True, 0, account.usage(self._concurrency))
        finally:
            exchange.disconnect()
            if exchange.streamed:  # else vLLM cancels its own task for the request when it sees the disconnect
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task


def cache_warning(config: PoolConfig, fit: float, tokens: int) -> str:
    """Return the warning that the key-value cache holds only `fit` requests of the full context."""
    return (
        f"maxConcurrency: {config.slots} requests of contextTokens ({config.context_tokens}) exceed the key-value cache"
        f" of {tokens} tokens, which holds {fit:.1f}; above that vLLM preempts requests and computes them again; "
        "hint: lower maxConcurrency or contextTokens, or give more memory to the cache (engineArgs: "
        "gpu_memory_utilization, kv_cache_memory_bytes)"
    )


class _Exchange:
    """One request to an ASGI application in this process."""

    def __init__(self, body: bytes) -> None:
        self.streamed = False
        self._disconnected = asyncio.Event()
        self._request: list[MutableMapping[str, Any]] = [{"type": "http.request", "body": body}]
        self._length = str(len(body)).encode()
        self._messages: asyncio.Queue[MutableMapping[str, Any] | None] = asyncio.Queue()

    async def run(self, app: Any, path: str) -> None:
        """Call the application; its messages go to `head` and `body`."""
        headers = [(b"host", b"replica"), (b"content-type", b"application/json"), (b"content-length", self._length)]
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "method": "POST",
            "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
            "headers": headers, "client": ("127.0.0.1", 0), "server": ("127.0.0.1", 80),
        }  # fmt: skip
        try:
            await app(scope, self._receive, self._messages.put)
        finally:
            self._messages.put_nowait(None)

    async def _receive(self) -> MutableMapping[str, Any]:
        if self._request:
            return self._request.pop()
        await self._disconnected.wait()
        return {"type": "http.disconnect"}

    def disconnect(self) -> None:
        """Report to the application that the client has disconnected."""
        self._disconnected.set()

    async def head(self) -> int:
        """Return the status."""
        start = await self._messages.get()
        if start is None:
            raise EngineError("vLLM does not answer")
        self.streamed = dict(start["headers"]).get(b"content-type", b"").startswith(b"text/event-stream")
        return int(start["status"])

    async def body(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it comes. Raises `EngineError` if it ends early."""
        while (message := await self._messages.get()) is not None:
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body"):
                return
        raise EngineError("vLLM's answer ended early")


def _error(status: int, body: bytes, path: str, request: dict[str, Any]) -> Exception:
    """Return the error of a response of vLLM."""
    try:
        error = orjson.loads(body)["error"]
        message, param = str(error["message"]), _param(error.get("param") or "")
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return EngineError(body[:200].decode("utf-8", "replace"))
    if status >= 500 and status != 501:
        return EngineError(message)
    if _TOO_LONG.search(message):
        param, code = PROMPT_FIELDS[path], "context_length_exceeded"
    else:
        code = "invalid_value"
        param = param or (PROMPT_FIELDS[path] if _OF_THE_PROMPT.search(message) else None)
        param = param or named_field(message, path, request)
        if param == "logprobs" and path == CHAT and request.get("top_logprobs"):
            param = "top_logprobs"  # vLLM's own parameter has the name that the field has in completions
    # Errors of the document come as Python's text of pydantic's errors, with the whole input: their messages suffice.
    words = dict.fromkeys(quoted.removeprefix("Value error, ") for _, quoted in _PYDANTIC.findall(message))
    message = "; ".join(words) or message
    return RequestError(f"vLLM: {message}", param=param, code=code, status=400 if status == 501 else status)


def _param(location: str) -> str | None:
    """Return the path of a field from vLLM's, which has the names of pydantic's types of a union in it."""
    parts = [part for part in location.split(".") if part and not part[0].isupper()]
    return ".".join(parts[1:] if parts[:1] == ["body"] else parts) or None
