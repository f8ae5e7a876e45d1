"""What the ingress needs of an engine, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from tierserve_serving.config import PoolConfig

FinishReason = Literal["stop", "length"]


class PromptError(ValueError):
    """The engine cannot take this prompt; the message goes to the client as a 400."""

    def __init__(self, message: str, *, param: str = "messages", code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class EngineError(RuntimeError):
    """The engine broke while it worked on a request that was fine."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat.

    Attributes:
        role: as the request has it; "developer" is "system".
        content: its text, parts already joined.
        extra: fields beyond these that chat templates read, such as `tool_calls`.
    """

    role: str
    content: str
    extra: Mapping[str, Any] = field(default_factory=dict)


Prompt = str | tuple[int, ...] | tuple[Message, ...]
"""A text to complete, its token ids, or the messages of a chat."""


def prompt_text(prompt: Prompt) -> str:
    """Return the prompt's text without any template; for token ids their numbers."""
    if isinstance(prompt, str):
        return prompt
    if prompt and isinstance(prompt[0], Message):
        return "\n".join(message.content for message in prompt if isinstance(message, Message))
    return " ".join(map(str, prompt))


@dataclass(frozen=True, slots=True)
class Generation:
    """One choice of a request, validated.

    Attributes:
        prompt: what to answer or to complete.
        max_tokens: bound in the request, None for the service's own; 0 counts as 1, for an engine makes one at least.
        temperature, top_p, seed: sampling, None for the engine's own.
        stop: texts at which the answer ends; they are not part of it.
        streamed: whether the client sees every piece as it comes; else one chunk at the end is enough.
        extra: fields of the request that the engine declares in `Capabilities.extra`, as they came.
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
        """Return the most tokens to make, from the bounds of request (else `default`) and service."""
        return min(default if self.max_tokens is None else max(self.max_tokens, 1), most)


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of one answer went in the engine; waits before it are not in it.

    Attributes:
        prefill_s: seconds until the first token could come; None if not known, or if part of the prompt was cached.
        prefill_batch: mean number of requests in the engine meanwhile, this one among them.
        decode_s: seconds of the `steps` steps that followed.
        decode_batch: as `prefill_batch`, in these.
    """

    prefill_s: float | None
    prefill_batch: float
    decode_s: float
    steps: int
    decode_batch: float


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of the answer.

    Attributes:
        text: may be empty in the last chunk.
        tokens: tokens in this chunk.
        finish: why the answer ended; set in the last chunk and only there.
        input_tokens: length of the prompt, at the latest in the last chunk.
        timing: in the last chunk, of engines that know it.
        index: which choice of the request it belongs to.
    """

    text: str
    tokens: int
    finish: FinishReason | None = None
    input_tokens: int = 0
    timing: Timing | None = None
    index: int = 0


class Concurrency:
    """How many requests are in an engine, integrated over time: what batch a request was in, at no cost per token.

    One thread changes it; any may read: what is read is one tuple.
    """

    def __init__(self) -> None:
        self._state = (0, 0.0, 0.0)  # requests, since when, request-seconds up to then

    def change(self, by: int, now: float) -> None:
        """Let `by` requests more in at `now` (seconds of a steady clock)."""
        self._state = (self._state[0] + by, now, self.area(now))

    def area(self, now: float) -> float:
        """Return the request-seconds up to `now`."""
        requests, since, area = self._state
        return area + requests * max(now - since, 0.0)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine acts on. Sampling fields that it does not act on are accepted and have no effect.

    Attributes:
        temperature, top_p, seed: whether the field has an effect.
        extra: further request fields that the engine reads itself, as they came.
    """

    temperature: bool
    top_p: bool
    seed: bool
    extra: frozenset[str] = frozenset()


class Engine(Protocol):
    """A generator of text. One per replica; at most `slots` generations at once, which the caller sees to."""

    capabilities: Capabilities

    def load(self) -> None:
        """Make ready, blocking. Raises `ValueError` that names the field if the configuration cannot work."""

    def reconfigure(self, config: PoolConfig) -> None:
        """Take up the live values of a configuration (`UserConfig`) while requests run, in their event loop."""

    def check(self, generation: Generation) -> None:
        """Raise `PromptError` if the request cannot be served, before it waits for a slot."""

    def generate(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        """Yield the answer. Closing or cancelling the generator stops the work at once, without awaiting."""

    def check_health(self) -> None:
        """Raise if the engine can serve no more."""

    def close(self) -> None:
        """Stop all work and free the memory."""
