"""Interface between the ingress and the engines: requests, chunks, timings, and the protocol `Engine`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from tierserve_serving.config import PoolConfig

FinishReason = Literal["stop", "length"]


class PromptError(ValueError):
    """The engine does not accept the request; the client gets the message with status 400."""

    def __init__(self, message: str, *, param: str = "messages", code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class EngineError(RuntimeError):
    """The engine failed on a valid request."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat.

    Attributes:
        role: role in the request; "developer" becomes "system".
        content: text, its parts joined.
        extra: further fields that chat templates read, such as `tool_calls`.
    """

    role: str
    content: str
    extra: Mapping[str, Any] = field(default_factory=dict)


Prompt = str | tuple[int, ...] | tuple[Message, ...]
"""A text to complete, its token ids, or the messages of a chat."""


def prompt_text(prompt: Prompt) -> str:
    """Return the text of the prompt without chat template; for token ids their numbers."""
    if isinstance(prompt, str):
        return prompt
    if prompt and isinstance(prompt[0], Message):
        return "\n".join(message.content for message in prompt if isinstance(message, Message))
    return " ".join(map(str, prompt))


@dataclass(frozen=True, slots=True)
class Generation:
    """One choice of a request, validated.

    Attributes:
        prompt: text, token ids or messages.
        max_tokens: limit in the request, None for the default; 0 counts as 1, since engines generate at least one.
        temperature, top_p, seed: sampling parameters, None for the engine's defaults.
        stop: stop sequences; they are not part of the answer.
        streamed: whether the response is streamed; else one chunk at the end is enough.
        extra: fields of the request that the engine declares in `Capabilities.extra`, unchanged.
    """

    prompt: Prompt
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    streamed: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    def output_limit(self, default: int, most: int) -> int:
        """Return the maximum of output tokens: the limit of the request, or `default`, but at most `most`."""
        return min(default if self.max_tokens is None else max(self.max_tokens, 1), most)


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
class Chunk:
    """A part of the answer.

    Attributes:
        text: may be empty in the last chunk.
        tokens: number of tokens in this chunk.
        finish: finish reason; only in the last chunk.
        input_tokens: number of tokens of the prompt; at the latest in the last chunk.
        timing: in the last chunk, if the engine reports it.
        index: index of the choice.
    """

    text: str
    tokens: int
    finish: FinishReason | None = None
    input_tokens: int = 0
    timing: Timing | None = None
    index: int = 0


class Concurrency:
    """Number of requests in an engine, integrated over time; gives mean batch sizes at no cost per token.

    One thread writes, any thread may read: the state is one tuple, replaced atomically.
    """

    def __init__(self) -> None:
        self._state = (0, 0.0, 0.0)  # requests, since when, request-seconds up to then

    def change(self, by: int, now: float) -> None:
        """Add `by` requests (negative: remove) at `now`, in seconds of a monotonic clock."""
        self._state = (self._state[0] + by, now, self.area(now))

    def area(self, now: float) -> float:
        """Return the request-seconds up to `now`."""
        requests, since, area = self._state
        return area + requests * max(now - since, 0.0)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Request fields that an engine supports. Sampling fields that it does not support are accepted and ignored.

    Attributes:
        temperature, top_p, seed: whether the field has an effect.
        extra: further request fields that are passed to the engine unchanged.
    """

    temperature: bool
    top_p: bool
    seed: bool
    extra: frozenset[str] = frozenset()


class Engine(Protocol):
    """An inference engine. One per replica; the caller runs at most `slots` generations concurrently."""

    capabilities: Capabilities

    def load(self) -> None:
        """Load the model, blocking. Raises `ValueError` that names the field if the configuration is invalid."""

    def reconfigure(self, config: PoolConfig) -> None:
        """Apply the `UserConfig` fields of a configuration while requests run, in their event loop."""

    def check(self, generation: Generation) -> None:
        """Raise `PromptError` if the request cannot be served; called before it queues for a slot."""

    def generate(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        """Yield the answer. Closing or cancelling the generator stops the generation at once, without awaiting."""

    def check_health(self) -> None:
        """Raise if the engine is unhealthy."""

    def close(self) -> None:
        """Stop all generations and free the memory."""
