"""llama.cpp on a CPU, in the replica's process, through xllamacpp.

xllamacpp contains llama.cpp's own server with its continuous batching. Its handlers block without holding the GIL and
pass each chunk to a callback; a callback that returns True ends the generation. So each request has a thread that runs
in C++, and the event loop is notified only of chunks that the client needs: each one if streamed, else the last.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

from tierserve_serving.config import PoolConfig
from tierserve_serving.engines.base import (
    Capabilities,
    Chunk,
    Concurrency,
    EngineError,
    FinishReason,
    Generation,
    Message,
    PromptError,
    Timing,
)
from tierserve_serving.sources import model_path

_UNHEALTHY_AFTER = 3  # consecutive failures that are not errors of the request
_RANDOM_SEED = 0xFFFFFFFF  # llama.cpp reads this value as "choose a random seed"
_QUIET = -1
_REQUEST_ERRORS = (ValueError, TypeError)  # std::invalid_argument, and values that llama.cpp's JSON cannot represent
_EXTRA = frozenset(  # fields that llama.cpp's server reads itself
    {"response_format", "json_schema", "grammar", "logit_bias", "presence_penalty", "frequency_penalty"}
    | {"repeat_penalty", "top_k", "min_p", "typical_p", "ignore_eos", "chat_template_kwargs"}
)


@dataclass(slots=True, eq=False)
class _Work:
    """State of one request in its thread. The event loop sets `cancelled`; the thread reads it at every token."""

    loop: asyncio.AbstractEventLoop
    streamed: bool
    chunks: asyncio.Queue[Chunk | Exception] = field(default_factory=asyncio.Queue)
    cancelled: bool = False
    text: list[str] = field(default_factory=list)
    tokens: int = 0
    finish: FinishReason = "stop"
    usage: dict[str, int] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    concurrency: Concurrency = field(default_factory=Concurrency)
    entered: tuple[float, float] = (0.0, 0.0)  # time of the start, and the request-seconds of the engine up to then
    first: tuple[float, float] | None = None  # the same for the first token
    timings: dict[str, Any] = field(default_factory=dict)

    def on_piece(self, document: dict[str, Any]) -> bool:
        """Process one event of llama.cpp, in the request's thread; return whether to stop."""
        if "error" in document:
            self.error = document["error"]
            return True
        self.usage = document.get("usage") or self.usage
        self.timings = document.get("timings") or self.timings
        for choice in document.get("choices", ()):
            self.finish = _finish(choice.get("finish_reason")) or self.finish
            self._take(choice.get("text") or choice.get("delta", {}).get("content") or "")
        return self.cancelled

    def end(self) -> None:
        """Post the last chunk of a complete answer to the event loop."""
        made = int(self.usage.get("completion_tokens", self.tokens))
        rest = max(0, made - self.tokens) if self.streamed else made
        prompt = int(self.usage.get("prompt_tokens", 0))
        self.post(Chunk("".join(self.text), rest, self.finish, prompt, self._timing()))

    def _timing(self) -> Timing | None:
        """Times reported by llama.cpp; the first token comes with the prefill, so it is not a decode step."""
        steps = int(self.timings.get("predicted_n", 0)) - 1
        if self.first is None or steps < 1 or "predicted_ms" not in self.timings:
            return None
        now = time.perf_counter()
        (t0, area0), (t1, area1), area2 = self.entered, self.first, self.concurrency.area(now)
        cached = self.timings.get("cache_n", 0) > 0
        return Timing(
            None if cached else float(self.timings.get("prompt_ms", 0.0)) / 1e3,
            max((area1 - area0) / max(t1 - t0, 1e-9), 1.0),
            float(self.timings["predicted_ms"]) / 1e3,
            steps,
            max((area2 - area1) / max(now - t1, 1e-9), 1.0),
        )

    def post(self, item: Chunk | Exception) -> None:
        """Post an item to the event loop, from any thread."""
        if not self.cancelled:
            self.loop.call_soon_threadsafe(self.chunks.put_nowait, item)

    def _take(self, text: str) -> None:
        if not text:
            return
        if self.first is None:
            now = time.perf_counter()
            self.first = (now, self.concurrency.area(now))
        self.tokens += 1
        if self.streamed:
            self.post(Chunk(text, 1))
        else:
            self.text.append(text)


class LlamaCppEngine:
    """llama.cpp with `slots` parallel sequences of `context` tokens each."""

    capabilities = Capabilities(temperature=True, top_p=True, seed=True, extra=_EXTRA)

    def __init__(self, source: str, *, slots: int, threads: int, context: int, max_output_tokens: int) -> None:
        self._source = source
        self._slots = slots
        self._threads = threads
        self._context = context
        self._max_output = max_output_tokens
        self._server: Any = None
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix="llamacpp")
        self._failures = 0
        self._concurrency = Concurrency()

    @classmethod
    def of(cls, config: PoolConfig) -> Self:
        """Return the engine of a pool."""
        return cls(
            config.source or "",
            slots=config.slots,
            threads=config.threads,
            context=config.context_tokens,
            max_output_tokens=config.max_output_tokens,
        )

    def load(self) -> None:
        """Load the model. Raises `ValueError` that names the field if the file is missing or not a model."""
        import xllamacpp

        path = model_path(self._source)
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_parallel = self._slots
        params.n_ctx = self._context * self._slots
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = self._threads
        params.verbosity = _QUIET
        params.warmup = False
        # The server opens an HTTP port, which is not used: on loopback, any free port, protected by a random API key.
        params.port, params.ui, params.api_keys = 0, False, [secrets.token_hex(16)]
        try:
            self._server = xllamacpp.Server(params)
        except RuntimeError as error:
            raise ValueError(f"source: llama.cpp cannot load {path}: {error}; hint: it must be a GGUF file") from error

    def reconfigure(self, config: PoolConfig) -> None:
        """Do nothing: all `UserConfig` fields are for emulation."""

    def check(self, generation: Generation) -> None:
        """Do nothing: llama.cpp counts the tokens itself and rejects prompts that are too long."""

    def check_health(self) -> None:
        """Raise `EngineError` if no model is loaded or the last requests all failed."""
        if self._server is None:
            raise EngineError("no model is loaded")
        if self._failures >= _UNHEALTHY_AFTER:
            raise EngineError(f"the last {self._failures} requests all failed")

    def close(self) -> None:
        """Free the model."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._server = None

    async def generate(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        """Yield the answer, token by token if streamed. Closing it stops the generation at its next token."""
        work = _Work(asyncio.get_running_loop(), generation.streamed, concurrency=self._concurrency)
        now = time.perf_counter()
        work.entered = (now, self._concurrency.area(now))
        self._concurrency.change(1, now)
        future = self._pool.submit(self._run, self._request(generation), work)
        try:
            finish = None
            while finish is None:
                item = await work.chunks.get()
                if isinstance(item, Exception):
                    raise item
                finish = item.finish
                yield item
        finally:
            work.cancelled = True
            future.cancel()
            self._concurrency.change(-1, time.perf_counter())

    def _run(self, request: dict[str, Any], work: _Work) -> None:
        """Run the request in llama.cpp, in a thread of the pool."""
        chat = "messages" in request
        handle: Callable[..., None] = self._server.handle_chat_completions if chat else self._server.handle_completions
        try:
            handle(request, work.on_piece)
            outcome = None if work.error is None else _as_error(work.error)
        except Exception as error:
            outcome = _as_request_error(error) or EngineError(str(error))
        self._count(outcome)
        if outcome is None:
            work.end()
        else:
            work.post(outcome)

    def _count(self, outcome: Exception | None) -> None:
        """Count consecutive failures. A rejected request neither counts as a failure nor resets the count."""
        if isinstance(outcome, EngineError):
            self._failures += 1
        elif outcome is None:
            self._failures = 0

    def _request(self, generation: Generation) -> dict[str, Any]:
        request: dict[str, Any] = dict(generation.extra) | {
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": generation.output_limit(self._max_output, self._max_output),
            # A prompt in the cache is evaluated in other batches, with other rounding: not used for requests that must
            # be reproducible (temperature 0, or a seed).
            "cache_prompt": generation.temperature != 0.0 and generation.seed is None,
        }
        prompt = generation.prompt
        if not isinstance(prompt, str) and prompt and isinstance(prompt[0], Message):
            request["messages"] = [_message(message) for message in prompt if isinstance(message, Message)]
        else:
            request["prompt"] = prompt if isinstance(prompt, str) else list(prompt)
        if generation.stop:
            request["stop"] = list(generation.stop)
        return request | _sampling(generation)


def _message(message: Message) -> dict[str, Any]:
    return dict(message.extra) | {"role": message.role, "content": message.content}


def _sampling(generation: Generation) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    if generation.temperature is not None:
        parameters["temperature"] = generation.temperature
    if generation.top_p is not None:
        parameters["top_p"] = generation.top_p
    if generation.seed is not None:
        parameters["seed"] = generation.seed % _RANDOM_SEED
    return parameters


def _finish(reason: object) -> FinishReason | None:
    if reason is None:
        return None
    return "length" if reason == "length" else "stop"


def _as_error(error: dict[str, Any]) -> Exception:
    message = str(error.get("message", "unknown"))
    if int(error.get("code", 500)) < 500:
        code = "context_length_exceeded" if error.get("type") == "exceed_context_size_error" else "invalid_value"
        return PromptError(message, code=code)
    return EngineError(message)


def _as_request_error(error: Exception) -> PromptError | None:
    """Return the `PromptError` for an exception of llama.cpp, None if it is a failure of the engine."""
    # If the chat template rejects a message, that is a std::runtime_error too: only the text distinguishes it.
    if isinstance(error, _REQUEST_ERRORS) or str(error).startswith("Failed to parse messages"):
        return PromptError(str(error), code="invalid_value")
    return None
