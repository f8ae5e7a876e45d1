"""Requests and responses of OpenAI's API, for an engine that has no API of its own.

A request becomes a `Call`, or a `RequestError` that names the field. Values that vLLM, llama.cpp or OpenAI accept are
accepted, numbers in pydantic's lax mode as in vLLM; unknown fields are ignored as in vLLM. A field that would change
the answer and that the engine does not support is an error that names field and engine. See
docs/decisions/0019-request-bodies.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from tierserve_serving.engines.base import RequestError, unsupported
from tierserve_serving.engines.generation import Chunk, FinishReason, Generation, Message, Prompt, prompt_text

Kind = Literal["chat", "text"]
_MAX_CHOICES = 2048  # prompts x n of one request; OpenAI's own bound on the prompts of a batch
_TEXT_PARTS = {  # the text field of each part of a message's content that carries text, as vLLM reads them
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
    "thinking": "thinking",
}
_NO_EFFECT: tuple[object, ...] = (
    None,
    False,
    0,
    "",
    "none",
    "auto",
    [],
    {},
)  # values of the fields below that do not change the answer


def _no_limit(value: int | None) -> int | None:
    """Return None for -1, which means "no limit" to llama.cpp and its clients."""
    if value is not None and value < -1:
        raise ValueError("must be at least 0, or -1 for no limit")
    return None if value == -1 else value


MaxTokens = Annotated[int | None, AfterValidator(_no_limit)]


class StreamOptions(BaseModel):
    """`stream_options`."""

    model_config = ConfigDict(extra="ignore")

    include_usage: bool | None = None


class Fields(BaseModel):
    """Fields of chat and text completions, without messages and prompt. `seed` has 64 bits, signed (vLLM) or not."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    model: str | None = None
    max_tokens: MaxTokens = None
    max_completion_tokens: MaxTokens = None
    temperature: float | None = Field(default=None, ge=0.0)
    top_p: float | None = Field(default=None, ge=0.0, le=1.0)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**64)
    n: int | None = Field(default=None, ge=1, le=_MAX_CHOICES)
    best_of: int | None = None
    echo: bool | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A validated request.

    Attributes:
        kind: chat or text completion.
        stream, include_usage: form of the response.
        generations: one per choice, in the order of their index: n for the first prompt, then n for the next.
        n: choices per prompt.
        echo: for each choice the text to repeat before it; empty without `echo`.
    """

    kind: Kind
    stream: bool
    include_usage: bool
    generations: tuple[Generation, ...]
    n: int = 1
    echo: tuple[str, ...] = ()


def parse_call(kind: Kind, document: Mapping[str, Any], engine: str) -> Call:
    """Return the request in `document`.

    Args:
        kind: chat or text completion.
        document: the body of the request.
        engine: name of the engine, for errors.

    Raises:
        RequestError: names the field.
    """
    fields = _fields(document)
    _refuse_unsupported(document, fields, engine)
    if kind == "chat":
        prompts: tuple[Prompt, ...] = (_messages(document.get("messages"), engine),)
    else:
        prompts = _prompts(document.get("prompt"))
    n = fields.n or 1
    if n * len(prompts) > _MAX_CHOICES:
        raise _invalid(f"'n' times the number of prompts must be at most {_MAX_CHOICES} ({n * len(prompts)})", "n")
    common = Generation(
        prompt="",
        max_tokens=_max_tokens(fields),
        stop=_stop(fields.stop),
        streamed=bool(fields.stream),
    )
    return Call(
        kind,
        bool(fields.stream),
        bool(fields.stream_options and fields.stream_options.include_usage),
        tuple(
            replace(common, prompt=prompt, seed=_choice_seed(fields.seed, k)) for prompt in prompts for k in range(n)
        ),
        n,
        _echo(prompts, n, engine) if kind == "text" and fields.echo else (),
    )


def _invalid(message: str, param: str) -> RequestError:
    return RequestError(message, param=param)


def _fields(document: Mapping[str, Any]) -> Fields:
    try:
        return Fields.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        names = first["loc"]
        # For a union ("stop") pydantic appends the member that failed, which is not a field of the request.
        param = ".".join(map(str, names)) if names[0] == "stream_options" else str(names[0])
        raise _invalid(f"'{param}': {first['msg']}", param) from None


def _max_tokens(fields: Fields) -> int | None:
    newer = fields.max_completion_tokens
    return fields.max_tokens if newer is None else newer


def _choice_seed(seed: int | None, k: int) -> int | None:
    """Return the seed of the k-th choice of a prompt, seed + k as in vLLM: with the same seed all would be equal."""
    return None if seed is None else seed + k


def _refuse_unsupported(document: Mapping[str, Any], fields: Fields, engine: str) -> None:
    """Raise `RequestError` for unsupported fields that would change the answer. Optional tools would not."""
    for name in ("logprobs", "top_logprobs", "prompt_logprobs", "suffix", "function_call", "audio"):
        if document.get(name) not in _NO_EFFECT:
            raise unsupported(name, engine)
    if _forces_a_call(document.get("tool_choice")):
        raise unsupported("tool_choice", engine, "that forces a call")
    if fields.best_of not in (None, 1, fields.n):
        raise unsupported("best_of", engine, "above 'n'")
    if document.get("modalities") not in (None, [], ["text"]):
        raise unsupported("modalities", engine, "other than text")
    form = document.get("response_format")
    plain = form is None or (isinstance(form, dict) and form.get("type") in (None, "text"))
    if not plain:
        raise unsupported("response_format", engine, "other than text")


def _forces_a_call(tool_choice: object) -> bool:
    """Whether the model must call a tool; OpenAI's `allowed_tools` requires a call only if its mode is `required`."""
    allowed = tool_choice.get("allowed_tools") if isinstance(tool_choice, dict) else None
    return (allowed.get("mode") if isinstance(allowed, dict) else tool_choice) not in _NO_EFFECT


def _messages(value: object, engine: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise _invalid("'messages' must be a non-empty array", "messages")
    return tuple(_message(f"messages.{position}", item, engine) for position, item in enumerate(value))


def _message(where: str, item: object, engine: str) -> Message:
    if not isinstance(item, dict):
        raise _invalid(f"'{where}' must be an object with 'role' and 'content'", where)
    role = item.get("role")
    if not isinstance(role, str) or not role:
        raise _invalid(f"'{where}.role' must be a non-empty string", f"{where}.role")
    for name in ("name", "tool_call_id"):
        if not isinstance(item.get(name), str | None):
            raise _invalid(f"'{where}.{name}' must be a string", f"{where}.{name}")
    # Chat templates of open models have "system"; "developer" is the name of the same role in newer OpenAI models.
    content = _content(f"{where}.content", item.get("content"), engine)
    return Message("system" if role == "developer" else role, content)


def _content(where: str, value: object, engine: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_part(f"{where}.{position}", part, engine) for position, part in enumerate(value))
    raise _invalid(f"'{where}' must be a string or an array of parts", where)


def _part(where: str, part: object, engine: str) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise _invalid(f"'{where}' must be a part such as {{'type': 'text', 'text': '...'}}", where)
    kind = part.get("type", "text")
    if not isinstance(kind, str) or kind not in _TEXT_PARTS:
        raise unsupported(where, engine, f"of type {str(kind)[:40]!r}")
    text = part.get(_TEXT_PARTS[kind])
    if not isinstance(text, str):
        raise _invalid(f"'{where}.{_TEXT_PARTS[kind]}' must be a string", where)
    return text


def _prompts(value: object) -> tuple[Prompt, ...]:
    """Return the prompts of a string, of token ids, or of an array of strings or of arrays of token ids."""
    ids = _token_ids(value)
    if isinstance(value, str):
        return (value,)
    if ids is not None:
        return (ids,)
    many = [item if isinstance(item, str) else _token_ids(item) for item in value] if isinstance(value, list) else []
    prompts = tuple(prompt for prompt in many if prompt is not None)
    if not prompts or len(prompts) < len(many):
        raise _invalid(
            "'prompt' must be a string, an array of strings, or token ids (an array, or an array of arrays)",
            "prompt",
        )
    return prompts


def _token_ids(value: object) -> tuple[int, ...] | None:
    """Return `value` if it is a non-empty array of token ids, else None. No vocabulary has ids of 2^31 or more."""
    if not isinstance(value, list) or not value:
        return None
    if not all(type(item) in (int, float) and 0 <= item < 2**31 and item == int(item) for item in value):
        return None
    return tuple(map(int, value))


def _stop(value: str | list[str] | None) -> tuple[str, ...]:
    """Return the stop sequences. Empty ones are ignored, as in llama.cpp."""
    return tuple(stop for stop in ([value] if isinstance(value, str) else value or ()) if stop)


def _echo(prompts: Sequence[Prompt], n: int, engine: str) -> tuple[str, ...]:
    if not all(isinstance(prompt, str) for prompt in prompts):
        raise unsupported("echo", engine, "of token ids")
    return tuple(prompt_text(prompt) for prompt in prompts for _ in range(n))


def usage(input_tokens: int, output_tokens: int) -> dict[str, int]:
    """Return OpenAI's `usage`."""
    return {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }


@dataclass(frozen=True, slots=True)
class Writer:
    """Builds the response of one call."""

    kind: Kind
    id: str
    model: str
    created: int

    def whole(self, choices: Sequence[tuple[str, FinishReason]], input_tokens: int, output_tokens: int) -> bytes:
        """Return the body of a response that is not streamed, from text and finish reason of each choice."""
        name = "chat.completion" if self.kind == "chat" else "text_completion"
        items = [self._choice(index, text, finish) for index, (text, finish) in enumerate(choices)]
        return orjson.dumps(self._head(name, items) | {"usage": usage(input_tokens, output_tokens)})

    def _choice(self, index: int, text: str, finish: FinishReason) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, "finish_reason": finish, "logprobs": None}
        if self.kind == "chat":
            choice["message"] = {"role": "assistant", "content": text, "refusal": None}
        else:
            choice["text"] = text
        return choice

    def opening(self, index: int, echo: str = "") -> bytes:
        """Return the first event of a choice: the role for a chat, the text to repeat for a completion."""
        if self.kind == "chat":
            return self._event(index, {"role": "assistant", "content": ""}, None)
        return self._event(index, echo, None) if echo else b""

    def piece(self, chunk: Chunk) -> bytes:
        """Return the event of one chunk, and the final event after the last chunk of its choice."""
        text = {"content": chunk.text} if self.kind == "chat" else chunk.text
        event = self._event(chunk.index, text, None) if chunk.text else b""
        if chunk.finish is not None:
            event += self._event(chunk.index, {} if self.kind == "chat" else "", chunk.finish)
        return event

    def usage_event(self, input_tokens: int, output_tokens: int) -> bytes:
        """Return the usage event of `stream_options.include_usage`."""
        document = self._head(self._chunk_name(), []) | {"usage": usage(input_tokens, output_tokens)}
        return _sse(document)

    def _event(self, index: int, piece: dict[str, str] | str, finish: FinishReason | None) -> bytes:
        key = "delta" if self.kind == "chat" else "text"
        choice = {"index": index, key: piece, "logprobs": None, "finish_reason": finish}
        return _sse(self._head(self._chunk_name(), [choice]))

    def _chunk_name(self) -> str:
        return "chat.completion.chunk" if self.kind == "chat" else "text_completion"

    def _head(self, name: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "object": name, "created": self.created, "model": self.model, "choices": choices}


DONE = b"data: [DONE]\n\n"


def _sse(document: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(document) + b"\n\n"
