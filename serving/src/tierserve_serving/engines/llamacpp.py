"""llama.cpp in the replica's process, through xllamacpp.

xllamacpp contains llama.cpp's own server with its continuous batching and its OpenAI API. Requests go to that server as
they are, on the loopback interface, and its answers back; closing the connection ends the generation. (The server's
handlers can be called from Python too, but a request that is not streamed cannot be stopped there.)
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
import orjson
from pydantic import TypeAdapter, ValidationError

from tierserve_serving.config import PoolConfig
from tierserve_serving.engines.base import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    ENDPOINTS,
    PROMPT_FIELDS,
    RESPONSES,
    Concurrency,
    EngineError,
    Part,
    RequestError,
    Timing,
    Usage,
    named_field,
    unsupported,
)
from tierserve_serving.engines.llamacpp_args import add_files, check_context, check_files, check_memory, params_of

_UNHEALTHY_AFTER = 3  # consecutive failures that are not errors of the request
_RANDOM_SEED = 0xFFFFFFFF  # llama.cpp reads this value as "choose a random seed"
_LIMITS = {  # names of the limit of output tokens, the one that llama.cpp reads first
    CHAT: ("max_tokens", "max_completion_tokens", "n_predict"),
    COMPLETIONS: ("max_tokens", "max_completion_tokens", "n_predict"),
    RESPONSES: ("max_output_tokens",),
}
_NO_EFFECT: tuple[object, ...] = (None, False, 0, "", "none", "auto", [], {})
_IGNORED = {  # fields that would change the answer and that llama.cpp reads past
    CHAT: ("audio", "prompt_logprobs", "function_call", "structured_outputs"),
    COMPLETIONS: ("echo", "suffix", "best_of", "prompt_logprobs", "structured_outputs"),
    EMBEDDINGS: ("dimensions",),
    RESPONSES: ("previous_response_id", "background", "conversation"),
}
_WHOLE_NUMBER: TypeAdapter[int | None] = TypeAdapter(int | None)
# What llama.cpp's server answers with status 500 though the request is at fault.
_REQUEST_AT_FAULT = re.compile(
    r"(image|audio|video) input is not supported|Failed to parse (messages|tools)|Jinja|template|too large to process"
)
# Fields of messages that do not name them.
_FIELD_OF_MESSAGE = (
    (re.compile(r"Failed to parse tools"), "tools"),
    (re.compile(r"failed to parse grammar"), "grammar"),
    (re.compile(r"JSON schema"), "response_format"),
    (re.compile(r"return the embeddings in"), "encoding_format"),
    (re.compile(r"messages|content\[\]|Jinja|template|(image|audio|video) input"), "messages"),
)


def cpus_of_this_process() -> int:
    """Return the CPUs that this process may use: its affinity and the limit of its cgroup, at least 1."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        count = min(count, round(int(quota) / int(period)))
    except (OSError, ValueError):
        pass  # no cgroup of version 2, or "max": no limit
    return max(1, count)


@dataclass(slots=True)
class _Meter:
    """Reads what an answer says about its tokens and times, as it passes."""

    rest: bytes = b""
    timings: list[Mapping[str, Any]] = field(default_factory=list)
    usage: Mapping[str, Any] = field(default_factory=dict)
    choices: int = 1

    def events(self, data: bytes) -> None:
        """Read server-sent events; only the last ones of a choice have figures."""
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            if b'"timings"' in line or b'"usage"' in line:
                self.document(orjson.loads(line.partition(b":")[2]))

    def document(self, document: Mapping[str, Any]) -> None:
        """Read a whole answer, or one event."""
        if document.get("timings"):
            self.timings.append(document["timings"])
        inner = document.get("response")
        self.usage = document.get("usage") or (inner.get("usage") if isinstance(inner, dict) else None) or self.usage
        self.choices = max(self.choices, len(document.get("choices") or ()))

    def total(self, n: int, concurrency: Concurrency, now: float) -> Usage:
        """Return tokens and times of the answer to a request of `n` choices per prompt."""
        timings = tuple(timing for given in self.timings if (timing := _timing(given, concurrency, now)))
        made = sum(int(given.get("predicted_n", 0)) for given in self.timings)
        read = sum(int(given.get("prompt_n", 0)) + int(given.get("cache_n", 0)) for given in self.timings)
        if len(self.timings) > 1:  # streamed: figures for every choice
            return Usage(read // n, made, timings)
        prompt = self.usage.get("prompt_tokens", self.usage.get("input_tokens", read))
        tokens = self.usage.get("completion_tokens", self.usage.get("output_tokens", made))
        # Of several choices in one document llama.cpp counts the first only.
        return Usage(int(prompt), int(tokens) * self.choices, timings)


def _timing(given: Mapping[str, Any], concurrency: Concurrency, now: float) -> Timing | None:
    """Times of one choice; the first token comes with the prefill, so it is not a decode step."""
    steps = int(given.get("predicted_n", 0)) - 1
    prefill_s, decode_s = float(given.get("prompt_ms", 0.0)) / 1e3, float(given.get("predicted_ms", 0.0)) / 1e3
    if steps < 1 or decode_s <= 0.0:
        return None
    first = now - decode_s
    return Timing(
        None if given.get("cache_n", 0) else prefill_s,
        max(concurrency.mean(first - prefill_s, first), 1.0),
        decode_s,
        steps,
        max(concurrency.mean(first, now), 1.0),
    )


class LlamaCppEngine:
    """llama.cpp with `slots` parallel sequences of `context_tokens` tokens each."""

    endpoints = frozenset(ENDPOINTS)

    def __init__(self, config: PoolConfig) -> None:
        self._config = config
        self._adapters = {name: number for number, name in enumerate(config.adapters)}
        self._server: Any = None
        self._http: aiohttp.ClientSession | None = None
        self._calls_tools = False
        self._failures = 0
        self._concurrency = Concurrency()

    @classmethod
    def of(cls, config: PoolConfig) -> Self:
        """Return the engine of a pool."""
        return cls(config)

    async def load(self) -> None:
        """Load the model. Raises `ValueError` that names the field if a file, an argument or the memory is at fault."""
        import xllamacpp

        params = params_of(self._config)
        add_files(params, self._config)
        path = Path(params.model.path)
        adapters = {
            name: Path(given.path) for name, given in zip(self._config.adapters, params.lora_adapters, strict=True)
        }
        check_files(path, adapters)
        check_context(path, self._config)
        check_memory(path, self._config)
        threads = self._config.threads or cpus_of_this_process()
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        # Any free port of the loopback interface, protected by a random key.
        key = secrets.token_hex(16)
        params.port, params.api_keys = 0, [key]
        try:
            self._server = xllamacpp.Server(params)
        except RuntimeError as error:
            raise ValueError(
                f"source: llama.cpp cannot load {path}: {error} (EngineRefused); hint: see the log of the replica; the "
                "architecture of the model may be newer than this llama.cpp"
            ) from error
        await self.connect(self._server.listening_address, key)

    async def connect(self, address: str, key: str = "") -> None:
        """Connect to a server of llama.cpp, and ask it what its chat template can express."""
        self._http = aiohttp.ClientSession(
            address,
            # A connection per request: closing it is how a request is cancelled.
            connector=aiohttp.TCPConnector(force_close=True, limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            headers={"Authorization": f"Bearer {key}"},
            json_serialize=lambda document: orjson.dumps(document).decode(),
            read_bufsize=2**20,
        )
        async with self._http.get("/props") as answer:
            template = (await answer.json()).get("chat_template_caps") or {}
        self._calls_tools = bool(template.get("supports_tools"))

    def reconfigure(self, config: PoolConfig) -> None:
        """Do nothing: all `UserConfig` fields are for emulation."""

    def gauges(self) -> dict[str, float]:
        """Return nothing."""
        return {}

    def check_health(self) -> None:
        """Raise `EngineError` if no model is loaded or the last requests all failed."""
        if self._http is None:
            raise EngineError("no model is loaded")
        if self._failures >= _UNHEALTHY_AFTER:
            raise EngineError(f"the last {self._failures} requests all failed")

    def close(self) -> None:
        """Free the model."""
        if self._http is not None:
            self._http.detach()  # closing it would have to be awaited; it keeps no connection
        self._http = self._server = None

    def respond(self, path: str, document: dict[str, Any]) -> AsyncGenerator[Part, None]:
        """Return the answer of llama.cpp's server."""
        self._refuse_ignored(path, document)
        return self._answer(path, self._request(path, document))

    def _refuse_ignored(self, path: str, document: Mapping[str, Any]) -> None:
        for name in _IGNORED[path]:
            alone = name == "best_of" and document.get(name) == (document.get("n") or 1)
            if document.get(name) not in _NO_EFFECT and not alone:
                raise unsupported(name, "llamacpp")
        if document.get("modalities") not in (None, [], ["text"]):
            raise unsupported("modalities", "llamacpp", "other than text")
        if not isinstance(document.get("response_format") or {}, dict):
            raise RequestError("'response_format': must be an object", param="response_format")
        tools = document.get("tools")
        if isinstance(tools, list) and any(isinstance(t, dict) and t.get("type") != "function" for t in tools):
            raise unsupported("tools", "llamacpp", "of a type other than function")
        form = document.get("text")
        if path == RESPONSES and isinstance(form, dict) and (form.get("format") or {}) not in ({}, {"type": "text"}):
            raise unsupported("text.format", "llamacpp", "other than text")
        if document.get("tool_choice") not in _NO_EFFECT:
            if not tools:
                raise RequestError("'tool_choice': requires 'tools'", param="tool_choice")
            if not self._calls_tools:
                raise unsupported("tool_choice", "llamacpp", "with a model whose chat template has no tools")

    def _request(self, path: str, document: Mapping[str, Any]) -> dict[str, Any]:
        """Return the document with the pool's limit, and with what llama.cpp would read differently."""
        request = dict(document)
        names = _LIMITS.get(path)
        if names is not None:
            given = [_token_limit(name, request.pop(name)) for name in names if request.get(name) is not None]
            asked = [limit for limit in given if limit is not None]
            request[names[0]] = min([self._config.max_output_tokens, *asked])
            # A prompt in the cache is evaluated in other batches, with other rounding: not used for requests that must
            # be reproducible (temperature 0, or a seed).
            request.setdefault("cache_prompt", request.get("temperature") != 0 and request.get("seed") is None)
        if (number := self._adapters.get(str(request.get("model")))) is not None:
            request["lora"] = [{"id": number, "scale": 1.0}]
        if isinstance(request.get("seed"), int):
            request["seed"] %= _RANDOM_SEED
        return {name: value for name, value in request.items() if value is not None}

    async def _answer(self, path: str, request: dict[str, Any]) -> AsyncGenerator[Part, None]:
        self._concurrency.change(1, time.perf_counter())
        try:
            async for part in self._exchange(path, request):
                yield part
            self._failures = 0
        except EngineError:
            self._failures += 1
            raise
        except (TimeoutError, aiohttp.ClientError, orjson.JSONDecodeError) as error:
            self._failures += 1
            raise EngineError(f"llama.cpp does not answer: {error}") from error
        finally:
            self._concurrency.change(-1, time.perf_counter())

    async def _exchange(self, path: str, request: dict[str, Any]) -> AsyncGenerator[Part, None]:
        if self._http is None:
            raise EngineError("no model is loaded")
        meter = _Meter()
        async with self._http.post(path, json=request) as answer:
            if answer.status != 200:
                raise _error(answer.status, await answer.read(), path, request)
            streamed = answer.content_type == "text/event-stream"
            if not streamed:
                body = await answer.read()
                meter.document(orjson.loads(body))
                yield Part(body, False, 1, self._usage(meter, request))
                return
            async for data in answer.content.iter_any():
                meter.events(data)
                yield Part(data, True, 1)
        yield Part(b"", True, 0, self._usage(meter, request))

    def _usage(self, meter: _Meter, request: Mapping[str, Any]) -> Usage:
        n = request.get("n")
        return meter.total(n if isinstance(n, int) and n > 0 else 1, self._concurrency, time.perf_counter())


def _token_limit(name: str, value: object) -> int | None:
    """Return a limit of the request, in pydantic's lax mode as in vLLM; -1 is no limit, and 0 counts as 1."""
    try:
        limit = _WHOLE_NUMBER.validate_python(value)
    except ValidationError as error:
        raise RequestError(f"'{name}': {error.errors()[0]['msg']}", param=name) from None
    if limit is not None and limit < -1:
        raise RequestError(f"'{name}': must be at least 0, or -1 for no limit", param=name)
    return None if limit is None or limit == -1 else max(limit, 1)


def _error(status: int, body: bytes, path: str, request: Mapping[str, Any]) -> Exception:
    """Return the error of a response of llama.cpp's server."""
    try:
        error = orjson.loads(body)["error"]
        message = str(error["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        error, message = {}, body[:200].decode("utf-8", "replace")
    if status >= 500 and status != 501 and not _REQUEST_AT_FAULT.search(message):
        return EngineError(message)
    if error.get("type") == "exceed_context_size_error" or "is too large to process" in message:
        return RequestError(f"llama.cpp: {message}", param=PROMPT_FIELDS[path], code="context_length_exceeded")
    named = next((field for pattern, field in _FIELD_OF_MESSAGE if pattern.search(message)), None)
    # llama.cpp reads what all endpoints are asked as a prompt, and says so of `input` too.
    if named is None and message.lower().startswith(('"prompt"', "prompt ")):
        named = PROMPT_FIELDS[path]
    return RequestError(f"llama.cpp: {message}", param=named or named_field(message, path, request))
