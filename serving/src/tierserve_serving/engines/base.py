"""Interface between the replica and the engines: requests, parts of answers, timings, and the protocol `Engine`."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from tierserve_serving.config import PoolConfig

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
RESPONSES = "/v1/responses"
ENDPOINTS = (CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES)
"""Paths that an engine may have; the gateway routes them by model."""
PROMPT_FIELDS = {CHAT: "messages", COMPLETIONS: "prompt", EMBEDDINGS: "input", RESPONSES: "input"}
"""The field of a request that has its prompt."""
_QUOTED = re.compile(r"[`'\"](\w+)[`'\"]")
_WORD = re.compile(r"\w+")


class RequestError(ValueError):
    """The engine does not accept the request; the client gets the message with status 400, or the engine's own."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = "invalid_value",
        status: int = 400,
        kind: str = "invalid_request_error",
    ) -> None:
        super().__init__(message)
        self.param = param
        self.code = code
        self.status = status
        self.kind = kind


def unsupported(field: str, engine: str, detail: str = "") -> RequestError:
    """Return the error of a field that the engine does not support and that would change the answer."""
    what = f"'{field}' {detail}".rstrip()
    message = f"{what} is not supported by the engine {engine}; remove it"
    return RequestError(message, param=field, code="unsupported_parameter")


def named_field(message: str, path: str, fields: Iterable[str]) -> str | None:
    """Return the field of the request that an engine's message is about, None if it names none.

    Args:
        message: of the engine, for people: the field is in quotes, is the first word, or has a name like no other word.
        path: of the endpoint.
        fields: names of the fields of the request.
    """
    names = {*fields, PROMPT_FIELDS[path]} - {"model"}
    quoted = [name for name in _QUOTED.findall(message) if name in names]
    words = _WORD.findall(message)
    # Names that are English words too, such as `input`, count at the start only.
    named = [word for number, word in enumerate(words) if word in names and ("_" in word or number == 0)]
    return next(iter(quoted + named), None)


class EngineError(RuntimeError):
    """The engine failed on a valid request."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Prefill and decode times of one answer in the engine, without queueing.

    Attributes:
        prefill_s: seconds of the prefill; None if not known, or if part of the prompt was cached.
        prefill_batch: mean number of requests in the engine during the prefill, including this one.
        decode_s: seconds of the decode steps.
        steps: number of decode steps.
        decode_batch: mean number of requests in the engine during the decode steps, including this one.
    """

    prefill_s: float | None
    prefill_batch: float
    decode_s: float
    steps: int
    decode_batch: float


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and times of a complete answer.

    Attributes:
        input_tokens, output_tokens: of all prompts and choices together.
        timings: of the choices whose times the engine reports.
    """

    input_tokens: int
    output_tokens: int
    timings: tuple[Timing, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the body of an answer, as the client gets it.

    Attributes:
        data: the whole JSON document, or one or more server-sent events.
        streamed: whether the parts are events.
        tokens: output tokens that arrived with this part, as far as known; the first is the first token.
        usage: in the last part only.
    """

    data: bytes
    streamed: bool = False
    tokens: int = 0
    usage: Usage | None = None


class Concurrency:
    """Number of requests in an engine, integrated over time; gives mean batch sizes at no cost per token."""

    def __init__(self) -> None:
        # (since when, requests, request-seconds up to then); the oldest are forgotten.
        self._states: deque[tuple[float, int, float]] = deque([(0.0, 0, 0.0)], maxlen=10_000)

    def change(self, by: int, now: float) -> None:
        """Add `by` requests (negative: remove) at `now`, in seconds of a monotonic clock."""
        self._states.append((now, self._states[-1][1] + by, self.area(now)))

    def area(self, at: float) -> float:
        """Return the request-seconds up to `at`, now or some time ago."""
        since, requests, area = next((state for state in reversed(self._states) if state[0] <= at), self._states[0])
        return area + requests * max(at - since, 0.0)

    def mean(self, begin: float, end: float) -> float:
        """Return the mean number of requests between two times."""
        return (self.area(end) - self.area(begin)) / max(end - begin, 1e-9)


class Engine(Protocol):
    """An inference engine with its OpenAI API. One per replica; at most `slots` requests run concurrently."""

    @property
    def endpoints(self) -> frozenset[str]:
        """Those of `ENDPOINTS` that the engine has with this model."""

    async def load(self) -> None:
        """Load the model. Raises `ValueError` that names the field if the configuration is invalid."""

    def reconfigure(self, config: PoolConfig) -> None:
        """Apply the `UserConfig` fields of a configuration while requests run, in their event loop."""

    def respond(self, path: str, document: dict[str, Any]) -> AsyncGenerator[Part, None]:
        """Return the answer to a request; it starts when it is first iterated, in a slot.

        Closing or cancelling it frees the sequence in the engine. What can be checked without the model is checked
        before this returns, and so before the request queues for a slot.

        Args:
            path: one of `endpoints`.
            document: the body of the request; `model` is a name that the engine was given.

        Raises:
            RequestError: the engine does not accept the request; here, or from the first iteration.
        """

    def gauges(self) -> dict[str, float]:
        """Return what the engine says of itself, such as `kv_cache_usage`, by name."""

    def check_health(self) -> None:
        """Raise if the engine is unhealthy."""

    def close(self) -> None:
        """Stop all requests and free the memory."""
