"""One request and its answer, at the least CPU that still tells the first token, the tokens and a broken stream."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from tierserve.loadgen.errors import LoadError
from tierserve.loadgen.samples import Outcome
from tierserve.loadgen.scenario import Traffic

MODEL_RETRY_S = 0.5
POOL_HEADER = "X-TierServe-Pool"
CLASS_HEADER = "X-TierServe-Class"

# A content event is told by this pattern instead of by parsing its JSON: ten times less CPU, and exact for the
# compact and the spaced form of OpenAI's chunks. An empty string (the role event) is no token.
_CONTENT = re.compile(rb'"(?:content|text)":\s?"(?!")')
_ERROR = re.compile(rb'^data: \{"error"', re.MULTILINE)
_DONE = b"data: [DONE]"
_FILLER = "word"  # with its blank about one token in most vocabularies


@dataclass(slots=True)
class Answer:
    """What came back; `first_token` in seconds of the caller's clock, NaN where it never came."""

    outcome: Outcome
    status: int = 0
    pool: str = ""
    first_token: float = float("nan")
    tokens: int = 0
    text: str = ""


@dataclass(slots=True)
class _Stream:
    """Server-sent events, event by event and not chunk by chunk, since a chunk may end anywhere."""

    clock: Callable[[], float]
    keep: bool
    first: float = float("nan")
    tokens: int = 0
    done: bool = False
    failed: bool = False
    rest: bytes = b""
    kept: list[bytes] = field(default_factory=list)

    def feed(self, chunk: bytes) -> None:
        events, separator, self.rest = (self.rest + chunk).rpartition(b"\n\n")
        if not separator:
            return
        found = len(_CONTENT.findall(events))
        if found and not self.tokens:
            self.first = self.clock()
        self.tokens += found
        self.done = self.done or _DONE in events
        self.failed = self.failed or _ERROR.search(events) is not None
        if self.keep:
            self.kept.append(events)

    def text(self) -> str:
        events = b"\n\n".join(self.kept).split(b"\n\n")
        return "".join(_text(event[6:]) for event in events if event.startswith(b"data: {"))


async def exchange(
    session: aiohttp.ClientSession,
    url: str,
    body: bytes,
    *,
    headers: dict[str, str],
    timeout_s: float,
    keep_text: bool = False,
) -> Answer:
    """Ask once, without retries. Never raises but for cancellation."""
    answer = Answer(Outcome.CONNECTION)
    try:
        async with asyncio.timeout(timeout_s), session.post(url, data=body, headers=headers) as response:
            answer.status = response.status
            answer.pool = response.headers.get(POOL_HEADER, "")
            if response.status == 200 and response.headers.get("Content-Type", "").startswith("text/event-stream"):
                await _read_stream(response, answer, keep_text)
            else:
                await _read_whole(response, answer, keep_text)
    except TimeoutError:
        answer.outcome = Outcome.TIMEOUT
    except (aiohttp.ClientError, OSError, ValueError):
        answer.outcome = Outcome.CONNECTION
    return answer


async def _read_whole(response: aiohttp.ClientResponse, answer: Answer, keep_text: bool) -> None:
    payload = await response.read()
    if response.status >= 400:
        answer.outcome = Outcome.HTTP_ERROR
        return
    answer.outcome = Outcome.OK
    document = orjson.loads(payload)
    answer.tokens = int((document.get("usage") or {}).get("completion_tokens", 0))
    if keep_text:
        answer.text = _text(payload)


async def _read_stream(response: aiohttp.ClientResponse, answer: Answer, keep_text: bool) -> None:
    stream = _Stream(asyncio.get_running_loop().time, keep_text)
    try:
        async for chunk in response.content.iter_any():
            stream.feed(chunk)
    finally:
        answer.first_token, answer.tokens = stream.first, stream.tokens
    if stream.failed:
        answer.outcome = Outcome.HTTP_ERROR
    else:
        answer.outcome = Outcome.OK if stream.done or _DONE in stream.rest else Outcome.TRUNCATED
    if keep_text:
        answer.text = stream.text()


def _text(payload: bytes) -> str:
    choice: dict[str, Any] = (orjson.loads(payload).get("choices") or [{}])[0]
    part = choice.get("delta") or choice.get("message") or choice
    return str(part.get("content") or part.get("text") or "")


def chat_body(model: str, traffic: Traffic, prompt: str, max_tokens: int | None) -> bytes:
    """Body of a chat completion."""
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    if traffic.streamed:
        body["stream"] = True
    return orjson.dumps(body)


def asked(body: bytes) -> str:
    """The prompt in a body of `chat_body`."""
    return str(orjson.loads(body)["messages"][0]["content"])


def filler(tokens: int) -> str:
    """A prompt of about so many tokens."""
    return " ".join([_FILLER] * max(1, tokens))


def chat_url(url: str) -> str:
    """Address of chat completions below a base address, with or without its /v1."""
    base = url.rstrip("/")
    if base.endswith("/completions"):
        return base
    return f"{base}/chat/completions" if base.endswith("/v1") else f"{base}/v1/chat/completions"


def request_headers(traffic: Traffic, common: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Headers of every request of a traffic."""
    headers = {"Content-Type": "application/json", **dict(common), **dict(traffic.headers)}
    return headers | ({CLASS_HEADER: traffic.klass} if traffic.klass else {})


async def first_model(session: aiohttp.ClientSession, url: str, patience_s: float = 15.0) -> str:
    """The first model the service lists; asked again while the service cannot tell, as one that just starts.

    Raises:
        LoadError: none was told in time. A guess would only turn every request of the load into a 404.
    """
    address = chat_url(url).replace("/chat/completions", "/models")
    cause = f"no answer within {patience_s:g} s"
    try:
        async with asyncio.timeout(patience_s):
            while True:
                try:
                    return await _listed_model(session, address)
                except (aiohttp.ClientError, OSError, ValueError, LookupError, TypeError) as error:
                    cause = str(error) or type(error).__name__
                await asyncio.sleep(MODEL_RETRY_S)
    except TimeoutError:
        raise LoadError(
            f"{address} names no model: {cause}", "check the URL, or give the model's name (--model)"
        ) from None


async def _listed_model(session: aiohttp.ClientSession, address: str) -> str:
    async with session.get(address) as response:
        response.raise_for_status()
        listed = await response.json(content_type=None)
        return str(listed["data"][0]["id"])
