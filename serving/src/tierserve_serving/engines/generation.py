"""One choice of a request and its answer, for an engine whose requests and responses `schema.py` reads and writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tierserve_serving.engines.base import Timing

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat: role ("developer" becomes "system") and text, its parts joined."""

    role: str
    content: str


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
        seed: decides the text.
        stop: stop sequences; they are not part of the answer.
        streamed: whether the response is streamed; else one chunk at the end is enough.
    """

    prompt: Prompt
    max_tokens: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    streamed: bool = False

    def output_limit(self, default: int, most: int) -> int:
        """Return the maximum of output tokens: the limit of the request, or `default`, but at most `most`."""
        return min(default if self.max_tokens is None else max(self.max_tokens, 1), most)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of the answer.

    Attributes:
        text: may be empty in the last chunk.
        tokens: number of tokens in this chunk.
        finish: finish reason; only in the last chunk.
        input_tokens: number of tokens of the prompt; at the latest in the last chunk.
        timing: in the last chunk.
        index: index of the choice.
    """

    text: str
    tokens: int
    finish: FinishReason | None = None
    input_tokens: int = 0
    timing: Timing | None = None
    index: int = 0
