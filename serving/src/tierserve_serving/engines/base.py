"""What the ingress needs of an engine, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal, Protocol

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
    """One turn of a chat; parts of text are already joined."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Generation:
    """One request, validated.

    Attributes:
        prompt: the chat's messages, or the plain text to go on with.
        max_tokens: bound asked for, None if the client left it to the service.
        temperature, top_p, seed: sampling, None for the engine's own.
        stop: texts at which the answer ends; they are not part of it.
        streamed: whether the client sees every piece as it comes; else one chunk at the end is enough.
    """

    prompt: str | tuple[Message, ...]
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    streamed: bool = False

    @property
    def text(self) -> str:
        """The prompt's text without any template."""
        return self.prompt if isinstance(self.prompt, str) else "\n".join(m.content for m in self.prompt)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of the answer.

    Attributes:
        text: may be empty in the last chunk.
        tokens: tokens in this chunk.
        finish: why the answer ended; set in the last chunk and only there.
        input_tokens: length of the prompt, at the latest in the last chunk.
    """

    text: str
    tokens: int
    finish: FinishReason | None = None
    input_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Which request fields the engine acts on; the others are taken and have no effect."""

    temperature: bool
    top_p: bool
    seed: bool


class Engine(Protocol):
    """A generator of text. One per replica; at most `slots` generations at once, which the caller sees to."""

    capabilities: Capabilities

    def load(self) -> None:
        """Make ready, blocking. Raises `ValueError` that names the field if the configuration cannot work."""

    def check(self, generation: Generation) -> None:
        """Raise `PromptError` if the request cannot be served, before it waits for a slot."""

    def generate(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        """Yield the answer. Closing or cancelling the generator stops the work at once, without awaiting."""

    def check_health(self) -> None:
        """Raise if the engine can serve no more."""

    def close(self) -> None:
        """Stop all work and free the memory."""
