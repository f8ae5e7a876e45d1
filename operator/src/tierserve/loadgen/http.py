"""One request and its answer, at the least CPU that still shows the first token, the tokens and a broken stream."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from multidict import CIMultiDict

from tierserve.loadgen.errors import LoadError, LoadUsageError
from tierserve.loadgen.samples import Outcome
from tierserve.loadgen.scenario import Traffic

MODEL_RETRY_S = 0.5
KEEPALIVE_S = 3.0  # less than servers use, so that a connection is not closed under a request just sent
POOL_HEADER = "X-TierServe-Pool"
CLASS_HEADER = "X-TierServe-Class"

# A token's event is found by this pattern instead of by parsing its JSON: ten times less CPU, and exact for OpenAI's
# chunks. An empty string (the role event) is no token. Tokens of a reasoning model's thoughts are tokens.
_TOKEN = re.compile(rb'"(?:content|text|reasoning_content|reasoning)"\s*:\s*"(?!")')
_MAX_ERROR = 2000  # bytes of an error document that are kept
_FILLER = "word"  # with its blank about one token in most vocabularies


@dataclass(slots=True)
class Answer:
    """What came back; `first_token` in seconds of the caller's clock, NaN where it never came.

    `tokens` are the completion tokens of the usage, or without one the content events of a stream; `prompt_tokens` are
    0 without a usage. `error` is the document of a failure, in part.
    """

    outcome: Outcome
    status: int = 0
    pool: str = ""
    first_token: float = float("nan")
    tokens: int = 0
    prompt_tokens: int = 0
    text: str = ""
    error: str = ""


@dataclass(slots=True)
class _Stream:
    """Server-sent events (WHATWG HTML 9.2), event by event and not chunk by chunk, since a chunk may end anywhere."""

    clock: Callable[[], float]
    keep: bool
    first: float = float("nan")
    tokens: int = 0
    done: bool = False
    failed: bool = False
    rest: bytes = b""
    kept: list[bytes] = field(default_factory=list)
    usage: tuple[int, int] = (0, 0)

    def feed(self, chunk: bytes) -> None:
        text = self.rest + chunk
        if b"\r" in text:  # lines end with LF, CR LF or CR; a CR at the end may be half of a CR LF
            held = b"\r" if text.endswith(b"\r") else b""
            text = text.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n") + held
        events, separator, self.rest = text.rpartition(b"\n\n")
        if separator:
            for event in events.split(b"\n\n"):
                self._take(event)

    def end(self) -> None:
        """Take the last event of a server that ends without an empty line."""
        self.feed(b"\n\n")

    def _take(self, event: bytes) -> None:
        if _TOKEN.search(event):
            if not self.tokens:
                self.first = self.clock()
            self.tokens += 1
        if b"[DONE]" in event:
            self.done = self.done or _data(event) == b"[DONE]"
        if b"error" in event:
            self.failed = self.failed or _is_error(event)
        if b'"prompt_tokens"' in event:
            self.usage = _usage(_json(_data(event)))
        if self.keep:
            self.kept.append(event)

    def text(self) -> str:
        return "".join(_text(_data(event)) for event in self.kept)


def _data(event: bytes) -> bytes:
    """Return the data of an event: its `data` lines, each without one leading blank, joined."""
    lines = (line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:"))
    return b"\n".join(lines)


def _is_error(event: bytes) -> bool:
    """Whether an event reports a failure: `{"error": ...}`, vLLM's `{"object": "error"}`, or the type `error`."""
    if any(line.partition(b":")[2].strip() == b"error" for line in event.split(b"\n") if line.startswith(b"event:")):
        return True
    return _is_error_document(_json(_data(event)))


def _is_error_document(document: dict[str, Any]) -> bool:
    return bool(document.get("error")) or document.get("object") == "error"


def _usage(document: dict[str, Any]) -> tuple[int, int]:
    """Return the prompt and completion tokens of a document, 0 where it has none."""
    usage = document.get("usage")
    numbers = [usage.get(name) if isinstance(usage, dict) else None for name in ("prompt_tokens", "completion_tokens")]
    prompt, completion = (int(number) if isinstance(number, int | float) else 0 for number in numbers)
    return prompt, completion


def _json(payload: bytes) -> dict[str, Any]:
    """Return the JSON object in `payload`, an empty one if it is none."""
    try:
        document = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


async def exchange(
    session: aiohttp.ClientSession,
    url: str,
    body: bytes,
    *,
    headers: CIMultiDict[str],
    timeout_s: float,
    keep_text: bool = False,
) -> Answer:
    """Ask once, without retries. Never raises but for cancellation."""
    answer = Answer(Outcome.CONNECTION)
    try:
        async with asyncio.timeout(timeout_s), session.post(url, data=body, headers=headers) as response:
            answer.status = response.status
            answer.pool = response.headers.get(POOL_HEADER, "")
            if response.status == 200 and response.content_type == "text/event-stream":
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
    document = _json(payload)
    if response.status >= 400 or _is_error_document(document):
        answer.outcome = Outcome.HTTP_ERROR
        answer.error = payload[:_MAX_ERROR].decode("utf-8", "replace")
        return
    if not document:
        raise ValueError("no JSON object")
    answer.outcome = Outcome.OK
    answer.prompt_tokens, answer.tokens = _usage(document)
    if keep_text:
        answer.text = _text(payload)


async def _read_stream(response: aiohttp.ClientResponse, answer: Answer, keep_text: bool) -> None:
    stream = _Stream(asyncio.get_running_loop().time, keep_text)
    try:
        async for chunk in response.content.iter_any():
            stream.feed(chunk)
        stream.end()
    finally:
        answer.first_token = stream.first
        answer.prompt_tokens, answer.tokens = stream.usage[0], stream.usage[1] or stream.tokens
    if stream.failed:
        answer.outcome = Outcome.HTTP_ERROR
    else:
        answer.outcome = Outcome.OK if stream.done else Outcome.TRUNCATED
    if keep_text:
        answer.text = stream.text()


def _text(payload: bytes) -> str:
    choices = _json(payload).get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        return ""
    part = choice.get("delta") or choice.get("message") or choice
    return str(part.get("content") or part.get("text") or "") if isinstance(part, dict) else ""


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


def completions_url(url: str) -> str:
    """Address of text completions below a base address, with or without its /v1."""
    return chat_url(url).replace("/chat/completions", "/completions")


def request_headers(traffic: Traffic, common: tuple[tuple[str, str], ...]) -> CIMultiDict[str]:
    """Headers of every request of a traffic; what the user gives replaces a default of the same name."""
    headers = CIMultiDict({"Content-Type": "application/json"})
    headers.update(common)
    headers.update(traffic.headers)
    if traffic.klass:
        headers[CLASS_HEADER] = traffic.klass
    return headers


def client_session(*, loopback: bool, cacert: Path | None, insecure: bool) -> aiohttp.ClientSession:
    """Return a session without bounds of its own. Call it in a running loop.

    Args:
        loopback: the target is this machine: proxies of the environment are for other hosts.
        cacert: certificates to trust instead of the system's (SSL_CERT_FILE).
        insecure: do not verify certificates.

    Raises:
        LoadUsageError: `cacert` holds no certificates.
    """
    verify: ssl.SSLContext | bool = not insecure
    if cacert is not None and not insecure:
        try:
            verify = ssl.create_default_context(cafile=str(cacert))
        except OSError as error:  # ssl.SSLError too
            reason = error.strerror or error
            raise LoadUsageError(f"--cacert {cacert}: {reason}", "give a file of certificates in PEM form") from error
    connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=None, keepalive_timeout=KEEPALIVE_S, ssl=verify)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(), trust_env=not loopback)


async def first_model(
    session: aiohttp.ClientSession, url: str, patience_s: float = 15.0, *, headers: tuple[tuple[str, str], ...] = ()
) -> str:
    """The first model the service lists; tried again while the service cannot answer, as one that just starts.

    Raises:
        LoadError: none was listed in time, or it never will be. A guess would only make every request of the load fail.
    """
    address = chat_url(url).replace("/chat/completions", "/models")
    cause = f"no answer within {patience_s:g} s"
    try:
        async with asyncio.timeout(patience_s):
            while True:
                try:
                    return await _listed_model(session, address, headers)
                except (aiohttp.ClientError, OSError, ValueError, LookupError, TypeError) as error:
                    _refuse_if_final(address, error)
                    cause = str(error) or type(error).__name__
                await asyncio.sleep(MODEL_RETRY_S)
    except TimeoutError:
        raise LoadError(f"{address}: no model is listed: {cause}", "check the URL, or give --model") from None


def _refuse_if_final(address: str, error: Exception) -> None:
    """Raise `LoadError` for errors that a retry does not fix: an untrusted certificate, a rejected key."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        hint = "give its CA by --cacert FILE or SSL_CERT_FILE, or --insecure to accept any certificate"
        raise LoadError(f"{address}: the certificate is not trusted or TLS fails: {error}", hint) from error
    if isinstance(error, aiohttp.ClientResponseError) and error.status in (401, 403):
        hint = "give a key by --api-key or OPENAI_API_KEY, or another header by --header"
        raise LoadError(f"{address}: {error.status} {error.message}", hint) from error


async def _listed_model(session: aiohttp.ClientSession, address: str, headers: tuple[tuple[str, str], ...]) -> str:
    async with session.get(address, headers=CIMultiDict(headers)) as response:
        response.raise_for_status()
        listed = await response.json(content_type=None)
        return str(listed["data"][0]["id"])
