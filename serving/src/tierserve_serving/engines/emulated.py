"""Emulated engine: the timing of a real engine without a model; the text depends only on prompt and seed.

For tests, demonstrations and planning without a GPU. `batch.Batch` computes the times; there is one timer for the whole
batch, and a request that is not streamed has one event, at its end.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from random import Random
from typing import Any, Self

from tierserve.queueing.batching.profile import BatchProfile
from tierserve_serving.config import PoolConfig
from tierserve_serving.engines.base import CHAT, COMPLETIONS, Part, RequestError, Timing, Usage
from tierserve_serving.engines.batch import Batch, Job, Progress
from tierserve_serving.engines.generation import Chunk, FinishReason, Generation, Prompt, prompt_text
from tierserve_serving.engines.schema import DONE, Call, Kind, Writer, parse_call

# Timers of uvloop have a resolution of 1 ms: an event this near is delivered now rather than up to 1 ms late.
_TICK_S = 0.0005
_CHARS_PER_TOKEN = 8  # for text without spaces
_KINDS: dict[str, Kind] = {CHAT: "chat", COMPLETIONS: "text"}

_WORDS = """
time way work day part place point world house area number group problem fact water room month book eye job
word line kind head service side friend father power hour game end member law car city name team minute idea
body level face door health person art war history party result change morning reason research moment air
force light tree step table voice paper plan river stone cloud edge queue slot token answer question model
wind field bridge
"""
_VOCABULARY = tuple(f" {word}" for word in _WORDS.split())


def count_tokens(text: str) -> int:
    """Return the number of tokens of a text: one per word, but at least one per eight characters."""
    return max(len(text.split()), len(text) // _CHARS_PER_TOKEN)


def prompt_tokens(prompt: Prompt) -> int:
    """Return the number of tokens of a prompt: of its text, or the number of its token ids."""
    if not isinstance(prompt, str) and prompt and isinstance(prompt[0], int):
        return len(prompt)
    return count_tokens(prompt_text(prompt))


def words(text: str, seed: int | None, count: int) -> list[str]:
    """Return `count` tokens that depend only on `text` and `seed`; all but the first start with a space."""
    digest = blake2b(f"{seed}\n{text}".encode("utf-8", "replace"), digest_size=16).digest()
    drawn = Random(digest).choices(_VOCABULARY, k=count)
    drawn[0] = drawn[0].strip().capitalize()
    return drawn


@dataclass(slots=True)
class _Answer:
    """The answer to one request, determined at its start: text and number of tokens."""

    drawn: list[str]
    text: str
    tokens: int
    finish: FinishReason
    sent: int = 0
    sent_chars: int = 0

    def chunk(self, progress: Progress) -> Chunk:
        """Return the tokens that are new since the last call."""
        tokens, job = progress.tokens, progress.job
        begin = self.sent_chars
        self.sent_chars += sum(map(len, self.drawn[self.sent : tokens]))
        fresh, self.sent = tokens - self.sent, tokens
        text = self.text[begin : self.sent_chars]
        if not progress.done:
            return Chunk(text, fresh, None, job.input_tokens)
        return Chunk(text, fresh, self.finish, job.input_tokens, job.timing())


@dataclass(slots=True, eq=False)
class _Request:
    """A job and its queue of events; `pending` are the events not yet consumed."""

    job: Job
    pending: deque[Progress] = field(default_factory=deque)
    waiter: asyncio.Future[None] | None = None

    def push(self, progress: Progress) -> None:
        self.pending.append(progress)
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def next(self) -> Progress:
        """Return the next event, waiting for one if there is none."""
        if not self.pending:
            self.waiter = asyncio.get_running_loop().create_future()
            await self.waiter
        return self.pending.popleft()


@dataclass(slots=True)
class _Total:
    """Tokens, finish reasons and times of the choices of a call, so far."""

    call: Call
    input_tokens: int = 0
    tokens: int = 0
    reasons: list[FinishReason] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)

    def add(self, chunk: Chunk) -> None:
        self.tokens += chunk.tokens
        if chunk.finish is None:
            return
        self.reasons.append(chunk.finish)
        if chunk.index % self.call.n == 0:  # OpenAI counts a prompt once for its n choices
            self.input_tokens += chunk.input_tokens
        if chunk.timing is not None:
            self.timings.append(chunk.timing)

    def usage(self) -> Usage:
        return Usage(self.input_tokens, self.tokens, tuple(self.timings))


class EmulatedEngine:
    """Continuous batching in real time with the rates r(n) of `tierserve.queueing.batching.profile`."""

    endpoints = frozenset(_KINDS)

    def __init__(
        self, profile: BatchProfile, *, output_tokens: float = 64, max_output_tokens: int = 4096, context: int = 8192
    ) -> None:
        self._batch = Batch(profile)
        self._default_output = max(1, round(output_tokens))
        self._max_output = max_output_tokens
        self._context = context
        self._requests: dict[Job, _Request] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    @classmethod
    def of(cls, config: PoolConfig) -> Self:
        """Return the engine of a pool."""
        return cls(
            config.profile.batch_profile(),
            output_tokens=config.output_tokens,
            max_output_tokens=config.max_output_tokens,
            context=config.context_tokens,
        )

    async def load(self) -> None:
        """Do nothing: there is no model."""

    def reconfigure(self, config: PoolConfig) -> None:
        """Apply the step times and the mean number of output tokens of `config`, from now on."""
        self._default_output = max(1, round(config.output_tokens))
        self._deliver(self._batch.change_profile(config.profile.batch_profile(), self._clock()))

    def respond(self, path: str, document: dict[str, Any]) -> AsyncGenerator[Part, None]:
        """Return the answer to a request, which is validated at once."""
        call = parse_call(_KINDS[path], document, "emulated")
        for generation in call.generations:
            self.check(generation, "prompt" if call.kind == "text" else "messages")
        prefix = "chatcmpl-" if call.kind == "chat" else "cmpl-"
        writer = Writer(call.kind, prefix + uuid.uuid4().hex, str(document.get("model")), int(time.time()))
        return self._stream(call, writer) if call.stream else self._whole(call, writer)

    def check(self, generation: Generation, param: str = "prompt") -> None:
        """Raise `RequestError` if the prompt leaves no token of the context for the answer."""
        tokens = prompt_tokens(generation.prompt)
        if tokens >= self._context:
            raise RequestError(
                f"This model's maximum context length is {self._context} tokens, including the answer; "
                f"the prompt has {tokens} tokens",
                param=param,
                code="context_length_exceeded",
            )

    async def _whole(self, call: Call, writer: Writer) -> AsyncGenerator[Part, None]:
        texts = list(call.echo) or [""] * len(call.generations)
        total = _Total(call)
        async with aclosing(self._choices(call)) as chunks:
            async for chunk in chunks:
                texts[chunk.index] += chunk.text
                total.add(chunk)
        choices = list(zip(texts, total.reasons, strict=True))
        yield Part(writer.whole(choices, total.input_tokens, total.tokens), tokens=total.tokens, usage=total.usage())

    async def _stream(self, call: Call, writer: Writer) -> AsyncGenerator[Part, None]:
        opened = 0
        total = _Total(call)
        async with aclosing(self._choices(call)) as chunks:
            async for chunk in chunks:
                event = b""
                if chunk.index == opened:
                    event, opened = writer.opening(chunk.index, call.echo[opened] if call.echo else ""), opened + 1
                event += writer.piece(chunk)
                total.add(chunk)
                if len(total.reasons) == len(call.generations):
                    if call.include_usage:
                        event += writer.usage_event(total.input_tokens, total.tokens)
                    yield Part(event + DONE, True, chunk.tokens, total.usage())
                else:
                    yield Part(event, True, chunk.tokens)

    async def _choices(self, call: Call) -> AsyncGenerator[Chunk, None]:
        """Yield the choices one after another, for a request has one slot, as the gateway and the policy count it."""
        for index, generation in enumerate(call.generations):
            async with aclosing(self.generate(generation)) as chunks:
                async for chunk in chunks:
                    yield replace(chunk, index=index) if index else chunk

    def gauges(self) -> dict[str, float]:
        """Return nothing."""
        return {}

    def check_health(self) -> None:
        """Do nothing: this engine is always healthy."""

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    async def generate(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        """Yield the tokens when they are due: one by one if streamed, else all at the end."""
        input_tokens = prompt_tokens(generation.prompt)
        answer = self._answer(generation, prompt_text(generation.prompt), input_tokens)
        request = self._join(Job(input_tokens, answer.tokens, streamed=generation.streamed))
        try:
            done = False
            while not done:
                progress = await request.next()
                done = progress.done
                yield answer.chunk(progress)
        finally:
            self._leave(request.job)

    def _answer(self, generation: Generation, prompt: str, input_tokens: int) -> _Answer:
        bound = min(self._max_output, max(1, self._context - input_tokens))
        count = generation.output_limit(self._default_output, bound)
        cut_short = generation.max_tokens is not None or count < self._default_output
        finish: FinishReason = "length" if cut_short else "stop"
        drawn = words(prompt, generation.seed, count)
        text = "".join(drawn)
        cut = min((at for at in map(text.find, generation.stop) if at >= 0), default=-1)
        if cut < 0:
            return _Answer(drawn, text, count, finish)
        return _Answer(drawn, text[:cut], _tokens_up_to(drawn, cut), "stop")

    def _join(self, job: Job) -> _Request:
        request = self._requests[job] = _Request(job)
        self._deliver(self._batch.join(job, self._clock()))
        return request

    def _leave(self, job: Job) -> None:
        if self._requests.pop(job, None) is not None and job in self._batch.jobs:
            self._deliver(self._batch.leave(job, self._clock()))

    def _clock(self) -> float:
        # Events may be delivered early, so the batch may be ahead of the loop's clock; its time never goes back.
        return max(asyncio.get_running_loop().time(), self._batch.now)

    def _deliver(self, events: Iterable[Progress]) -> None:
        for progress in events:
            request = self._requests.get(progress.job)
            if request is not None:
                request.push(progress)
        self._arm()

    def _arm(self) -> None:
        due = self._batch.next_event()
        if due == self._timer_at and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due
        loop = asyncio.get_running_loop()
        self._timer = None if due == math.inf else loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer, self._timer_at = None, math.inf
        due = self._batch.next_event()
        now = self._clock()
        self._deliver(self._batch.advance(due if now < due <= now + _TICK_S else now))


def _tokens_up_to(drawn: list[str], cut: int) -> int:
    """Return the number of tokens of the first `cut` characters; at least 1, since the stop sequence counts."""
    length = 0
    for number, word in enumerate(drawn, start=1):
        length += len(word)
        if length > cut:
            return number
    return len(drawn)
