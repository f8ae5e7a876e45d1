"""Requests and answers of OpenAI's API: what is read, what is written, and nothing taken on trust.

Read: a request body becomes a `Generation` or an `ApiError` that names the field. Fields that are not known are passed
over, as OpenAI's clients expect of compatible services; fields that would change the answer's shape and are not served
(`n`, `logprobs`, tools) are refused in clear words rather than ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tierserve_serving.engines.base import Chunk, FinishReason, Generation, Message
from tierserve_serving.errors import ApiError, bad_json, invalid

Kind = Literal["chat", "text"]
_MAX_STOPS, _MAX_STOP_CHARS = 4, 256


class StreamOptions(BaseModel):
    """`stream_options`."""

    model_config = ConfigDict(extra="ignore")

    include_usage: bool | None = None


class Common(BaseModel):
    """Fields of both calls. Strict: "5" is no integer and 5.0 neither."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    model: str
    max_tokens: int | None = Field(default=None, ge=1, le=10_000_000)
    temperature: float | None = Field(default=None, ge=0.0, le=2.0)
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    n: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None


class ChatRequest(Common):
    """`POST /v1/chat/completions`."""

    max_completion_tokens: int | None = Field(default=None, ge=1, le=10_000_000)


class TextRequest(Common):
    """`POST /v1/completions`."""


@dataclass(frozen=True, slots=True)
class Call:
    """A validated request."""

    kind: Kind
    model: str
    stream: bool
    include_usage: bool
    generation: Generation


def parse_call(kind: Kind, body: bytes) -> Call:
    """Return the request in `body`. Raises `ApiError` (400) that names the field."""
    document = _document(body)
    fields = _fields(ChatRequest if kind == "chat" else TextRequest, document)
    _refuse_unsupported(document, fields)
    stream = bool(fields.stream)
    generation = Generation(
        prompt=_messages(document.get("messages")) if kind == "chat" else _prompt(document.get("prompt")),
        max_tokens=_max_tokens(fields),
        temperature=fields.temperature,
        top_p=fields.top_p,
        seed=fields.seed,
        stop=_stop(document.get("stop")),
        streamed=stream,
    )
    return Call(
        kind, fields.model, stream, bool(fields.stream_options and fields.stream_options.include_usage), generation
    )


def _document(body: bytes) -> dict[str, Any]:
    if not body:
        raise bad_json("it is empty")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_json(str(error)) from None
    if not isinstance(document, dict):
        raise bad_json("an object is wanted")
    return document


def _fields(model: type[Common], document: dict[str, Any]) -> Common:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        param = ".".join(str(part) for part in first["loc"])
        raise invalid(f"{param}: {first['msg']}", param, "invalid_value") from None


def _max_tokens(fields: Common) -> int | None:
    newer = fields.max_completion_tokens if isinstance(fields, ChatRequest) else None
    return fields.max_tokens if newer is None else newer


def _refuse_unsupported(document: Mapping[str, Any], fields: Common) -> None:
    if fields.n not in (None, 1):
        raise invalid(
            f"n is {fields.n}: only one answer per request is supported; send n requests", "n", "unsupported_value"
        )
    for name in ("logprobs", "top_logprobs", "tools", "functions", "suffix", "echo"):
        if document.get(name):
            raise invalid(f"{name} is not supported here; leave it out", name, "unsupported_parameter")
    if document.get("best_of") not in (None, 1):
        raise invalid("best_of is not supported here; leave it out", "best_of", "unsupported_parameter")
    wanted = document.get("response_format")
    if wanted is not None and not (isinstance(wanted, dict) and wanted.get("type") == "text"):
        raise invalid("response_format: only text is supported", "response_format", "unsupported_value")


def _messages(value: object) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise invalid("messages: a list with at least one message is wanted", "messages", "invalid_value")
    return tuple(_message(position, item) for position, item in enumerate(value))


def _message(position: int, item: object) -> Message:
    where = f"messages.{position}"
    if not isinstance(item, dict):
        raise invalid(f"{where}: an object with role and content is wanted", where, "invalid_value")
    role = item.get("role")
    if role not in ("system", "developer", "user", "assistant"):
        raise invalid(f"{where}.role: system, developer, user or assistant is wanted", f"{where}.role", "invalid_value")
    return Message("system" if role == "developer" else role, _content(f"{where}.content", item.get("content"), role))


def _content(where: str, value: object, role: str) -> str:
    if isinstance(value, str):
        return value
    if value is None and role == "assistant":
        return ""
    if isinstance(value, list) and value:
        return "".join(_part(f"{where}.{position}", part) for position, part in enumerate(value))
    raise invalid(f"{where}: a string or a list of text parts is wanted", where, "invalid_value")


def _part(where: str, part: object) -> str:
    text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
    if not isinstance(text, str):
        raise invalid(
            f'{where}: only parts {{"type": "text", "text": "..."}} are supported', where, "unsupported_value"
        )
    return text


def _prompt(value: object) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        return value
    raise invalid("prompt: one string is wanted", "prompt", "invalid_value")


def _stop(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > _MAX_STOPS:
        raise invalid(f"stop: a string or a list of at most {_MAX_STOPS} is wanted", "stop", "invalid_value")
    if not all(isinstance(stop, str) and 0 < len(stop) <= _MAX_STOP_CHARS for stop in stops):
        raise invalid(f"stop: strings of 1 to {_MAX_STOP_CHARS} characters are wanted", "stop", "invalid_value")
    return tuple(stops)


def usage(input_tokens: int, output_tokens: int) -> dict[str, int]:
    """Return OpenAI's `usage`."""
    return {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes the answers of one call."""

    kind: Kind
    id: str
    model: str
    created: int

    def whole(self, text: str, finish: FinishReason, input_tokens: int, output_tokens: int) -> bytes:
        """Return the body of an answer that is not streamed."""
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "logprobs": None}
        if self.kind == "chat":
            choice["message"] = {"role": "assistant", "content": text, "refusal": None}
        else:
            choice["text"] = text
        name = "chat.completion" if self.kind == "chat" else "text_completion"
        return orjson.dumps(self._head(name, [choice]) | {"usage": usage(input_tokens, output_tokens)})

    def opening(self) -> bytes:
        """Return the first event: the role for a chat, nothing for a completion."""
        return self._event({"role": "assistant", "content": ""}, None) if self.kind == "chat" else b""

    def piece(self, chunk: Chunk) -> bytes:
        """Return the event of one chunk, and the closing one after the last."""
        text = {"content": chunk.text} if self.kind == "chat" else chunk.text
        event = self._event(text, None) if chunk.text else b""
        if chunk.finish is not None:
            event += self._event({} if self.kind == "chat" else "", chunk.finish)
        return event

    def usage_event(self, input_tokens: int, output_tokens: int) -> bytes:
        """Return the event asked for by `stream_options.include_usage`."""
        document = self._head(self._chunk_name(), []) | {"usage": usage(input_tokens, output_tokens)}
        return _sse(document)

    def _event(self, piece: dict[str, str] | str, finish: FinishReason | None) -> bytes:
        key = "delta" if self.kind == "chat" else "text"
        choice = {"index": 0, key: piece, "logprobs": None, "finish_reason": finish}
        return _sse(self._head(self._chunk_name(), [choice]))

    def _chunk_name(self) -> str:
        return "chat.completion.chunk" if self.kind == "chat" else "text_completion"

    def _head(self, name: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "object": name, "created": self.created, "model": self.model, "choices": choices}


DONE = b"data: [DONE]\n\n"


def _sse(document: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(document) + b"\n\n"


def error_event(error: ApiError) -> bytes:
    """Return an error that comes when the stream has begun and the status is long sent."""
    return b"data: " + error.body() + b"\n\n"


def model_card(name: str, created: int, pool: str) -> dict[str, Any]:
    """Return one entry of `/v1/models`."""
    return {"id": name, "object": "model", "created": created, "owned_by": f"tierserve:{pool}"}
