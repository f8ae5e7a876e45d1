"""Measurement of one replica for its batching profile: closed loops over a grid of sizes, and open loops as a check.

Prompts are random and no two are alike, so that no prefix cache answers a part of them. They are token ids where the
server takes these, which makes their length exact; the sizes in the result are those that the server's `usage` reports.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import orjson
from multidict import CIMultiDict

from tierserve.loadgen.errors import LoadError
from tierserve.loadgen.http import client_session, completions_url, exchange, first_model
from tierserve.loadgen.preflight import check_target
from tierserve.loadgen.samples import Outcome
from tierserve.queueing.batching.fitting import Cell
from tierserve.queueing.batching.profile import Sizes

LEAST_REQUESTS = 4
"""Of a cell in one pass: with a batch of 1 the rounds alone would be too few for a mean."""
PASSES = 2
"""Times that the grid is measured, forwards and backwards: a machine that slows down meanwhile slows all cells."""
WARMUP_SHARE = 0.2
"""Part of an open loop that is left out: it starts with an empty replica."""
BATCHES_OF_MEANS = 10
_T_QUANTILE = 2.262  # Student's t, 97.5% with BATCHES_OF_MEANS - 1 degrees of freedom
# Ids of ordinary tokens in every vocabulary of 10,000 or more: special tokens are at its beginning or end.
_FIRST_ID, _LAST_ID = 1000, 8999
_WORDS = ("time", "way", "work", "day", "part", "place", "point", "world", "house", "area", "number", "group", "fact")
_PROBE_TOKENS = 64

OnProgress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Server to measure.

    Args:
        url: base address; `/v1/completions` is added.
        model: model asked for; None takes the first that the server lists.
        timeout_s: bound of one request.
        headers, cacert, insecure, allow_remote: as in `LoadPlan`.
    """

    url: str
    model: str | None = None
    timeout_s: float = 600.0
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    cacert: Path | None = None
    insecure: bool = False
    allow_remote: bool = False


@dataclass(frozen=True, slots=True)
class Grid:
    """Sizes to measure: each batch with each input and `output`, and with the middle input and `long_output`."""

    batches: tuple[int, ...]
    inputs: tuple[int, ...]
    output: int = 32
    long_output: int = 96
    rounds: int = 4

    @property
    def middle(self) -> int:
        """Input of the cells with the long output."""
        return sorted(self.inputs)[len(self.inputs) // 2]

    def cells(self) -> tuple[tuple[int, int, int], ...]:
        """Return (batch, input, output) of each cell."""
        sizes = [(i, self.output) for i in self.inputs] + [(self.middle, self.long_output)]
        return tuple((n, i, o) for i, o in dict.fromkeys(sizes) for n in self.batches)


@dataclass(frozen=True, slots=True)
class Measured:
    """One cell: what the fit reads, and the mean time to first token in seconds (NaN if none was streamed)."""

    cell: Cell
    first_token_s: float


@dataclass(frozen=True, slots=True)
class OpenRun:
    """Steady part of an open loop.

    Attributes:
        rate: arrivals per second.
        requests, failed: complete responses, and those that failed.
        sizes: (share, input, output) of the complete ones.
        mean_s: mean time from the intended arrival to the last token.
        half_width_s: half of the 95% interval of the mean, by batch means; NaN with fewer than 20 responses.
    """

    rate: float
    requests: int
    failed: int
    sizes: Sizes
    mean_s: float
    half_width_s: float


@dataclass(frozen=True, slots=True)
class _Reply:
    input: int
    output: int
    begin: float
    first: float
    end: float


class Replica:
    """Client of a server that runs one model: `connect` makes one.

    Attributes:
        model: the model that is asked.
        slots: requests that the server serves at once; None if it does not report them.
        token_ids: whether prompts are token ids.
    """

    def __init__(self, endpoint: Endpoint, session: aiohttp.ClientSession, model: str, seed: int) -> None:
        self.model = model
        self.slots: int | None = None
        self.token_ids = True
        self._endpoint = endpoint
        self._session = session
        self._url = completions_url(endpoint.url)
        self._headers = CIMultiDict({"Content-Type": "application/json"})
        self._headers.update(endpoint.headers)
        self._random = random.Random(seed)
        self._words_per_token = 1.0

    async def prepare(self) -> None:
        """Find the form of prompts that the server takes, and its slots.

        Raises:
            LoadError: it answers neither token ids nor text.
        """
        self.slots = await self._slots()
        reply = await self._try(_PROBE_TOKENS, 1)
        if isinstance(reply, str):
            self.token_ids = False
            in_words = await self._ask(_PROBE_TOKENS, 1)
            self._words_per_token = _PROBE_TOKENS / in_words.input

    async def accepted(self, inputs: Sequence[int]) -> tuple[tuple[int, ...], dict[int, str]]:
        """Return the input sizes that the server takes, and its errors for the others."""
        errors = {i: reply for i in inputs if isinstance(reply := await self._try(i, 1), str)}
        return tuple(i for i in inputs if i not in errors), errors

    async def measure(self, grid: Grid, on_progress: OnProgress | None = None) -> tuple[Measured, ...]:
        """Return the cells of the grid, measured in closed loops.

        Raises:
            LoadError: a request failed.
        """
        cells = grid.cells()
        replies: dict[tuple[int, int, int], list[_Reply]] = {cell: [] for cell in cells}
        for k, cell in enumerate([*cells, *reversed(cells)]):
            n, i, o = cell
            if on_progress is not None:
                on_progress(k, PASSES * len(cells), f"batch {n}, {i} + {o} tokens")
            replies[cell] += await self.closed_loop(n, i, o, max(grid.rounds * n // PASSES, LEAST_REQUESTS))
        return tuple(_measured(n, replies[n, i, o]) for n, i, o in cells)

    async def closed_loop(self, n: int, i: int, o: int, requests: int) -> list[_Reply]:
        """Return `requests` replies from n connections that are never idle.

        The first response of each connection is not counted. Their lengths differ, so that later requests do not all
        start at once, as real ones do not.
        """
        replies: list[_Reply] = []
        complete: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def connection(k: int) -> None:
            try:
                await self._ask(i, max(1, round(o * (k + 1) / n)))
                while not complete.done():
                    replies.append(await self._ask(i, o))
                    if len(replies) >= requests and not complete.done():
                        complete.set_result(None)
            except Exception as error:
                if not complete.done():
                    complete.set_exception(error)

        connections = [asyncio.create_task(connection(k)) for k in range(n)]
        try:
            await complete
        finally:
            for task in connections:
                task.cancel()
            await asyncio.gather(*connections, return_exceptions=True)
        return replies[:requests]

    async def open_loop(self, sizes: Sizes, rate: float, duration_s: float, slots: int, seed: int = 1) -> OpenRun:
        """Return the steady part of Poisson arrivals, as many as the rate says, of requests of the mixture `sizes`.

        Requests wait here, first come first served, and at most `slots` are under way, as behind the gateway.
        """
        rng = np.random.default_rng(seed)
        count = max(1, round(rate * duration_s))
        # A Poisson process with a given number of arrivals has them at independent uniform times.
        times = np.sort(rng.random(count)) * duration_s
        kinds = rng.choice(len(sizes), size=count, p=[share for share, _, _ in sizes])
        free, loop = asyncio.Semaphore(slots), asyncio.get_running_loop()
        begin = loop.time()

        async def request(intended: float, kind: int) -> tuple[float, _Reply | None]:
            await asyncio.sleep(begin + intended - loop.time())
            async with free:
                _, i, o = sizes[kind]
                try:
                    return intended, await self._ask(max(1, round(i)), max(1, round(o)))
                except LoadError:
                    return intended, None

        tasks = [asyncio.create_task(request(float(t), int(kind))) for t, kind in zip(times, kinds, strict=True)]
        try:
            ended = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        steady = [(begin + t, reply) for t, reply in ended if t >= WARMUP_SHARE * duration_s]
        return _open_run(rate, steady)

    async def _slots(self) -> int | None:
        """Slots by TierServe's `/healthz` or llama.cpp's `/props`; vLLM reports none."""
        base = completions_url(self._endpoint.url).rpartition("/v1/")[0]
        for path, name in (("/healthz", "slots"), ("/props", "total_slots")):
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, ValueError, OSError):
                async with asyncio.timeout(10.0), self._session.get(base + path, headers=self._headers) as response:
                    document = await response.json(content_type=None)
                    if response.status == 200 and isinstance(document, dict) and name in document:
                        return max(1, int(document[name]))
        return None

    async def _ask(self, i: int, o: int) -> _Reply:
        reply = await self._try(i, o)
        if isinstance(reply, str):
            raise LoadError(f"{self._url}: {reply}", "the server must serve /v1/completions of the model")
        return reply

    async def _try(self, i: int, o: int) -> _Reply | str:
        """Return the reply, or what is wrong with it."""
        body = orjson.dumps(self._body(i, o))
        clock = asyncio.get_running_loop().time
        begin = clock()
        answer = await exchange(
            self._session, self._url, body, headers=self._headers, timeout_s=self._endpoint.timeout_s
        )
        if answer.outcome is Outcome.OK:
            return _Reply(answer.prompt_tokens or i, answer.tokens or o, begin, answer.first_token, clock())
        what = f"status {answer.status}" if answer.outcome is Outcome.HTTP_ERROR else answer.outcome.name.lower()
        return f"a request of {i} + {o} tokens failed: {what} {_message(answer.error)}".rstrip()

    def _body(self, i: int, o: int) -> dict[str, Any]:
        return {
            "model": self.model,
            "prompt": self._prompt(i),
            "max_tokens": o,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def _prompt(self, tokens: int) -> str | list[int]:
        if self.token_ids:
            return [self._random.randint(_FIRST_ID, _LAST_ID) for _ in range(tokens)]
        return " ".join(self._random.choices(_WORDS, k=max(1, round(tokens * self._words_per_token))))


@asynccontextmanager
async def connect(endpoint: Endpoint, *, seed: int = 1) -> AsyncIterator[Replica]:
    """Connect to a server and prepare to measure it.

    Raises:
        LoadError: the server is on another machine and this is not allowed, or it does not answer.
    """
    loopback = await check_target(endpoint.url, allow_remote=endpoint.allow_remote)
    async with client_session(loopback=loopback, cacert=endpoint.cacert, insecure=endpoint.insecure) as session:
        model = endpoint.model or await first_model(session, endpoint.url, headers=endpoint.headers)
        replica = Replica(endpoint, session, model, seed)
        await replica.prepare()
        yield replica


def doubling(largest: int) -> tuple[int, ...]:
    """Return 1, 2, 4, ... up to `largest`, which is the last."""
    return (*(2**k for k in range((largest - 1).bit_length())), largest)


def _measured(n: int, replies: Sequence[_Reply]) -> Measured:
    ended = sorted(replies, key=lambda reply: reply.end)
    cell = Cell(
        n,
        sum(reply.input for reply in ended) / len(ended),
        sum(reply.output for reply in ended) / len(ended),
        tuple(reply.end - reply.begin for reply in ended),
    )
    return Measured(cell, sum(reply.first - reply.begin for reply in ended) / len(ended))


def _open_run(rate: float, steady: Sequence[tuple[float, _Reply | None]]) -> OpenRun:
    good = [(intended, reply) for intended, reply in steady if reply is not None]
    if not good:
        raise LoadError("no response of the open loop is complete", "give a longer --verify-duration")
    responses = np.array([reply.end - intended for intended, reply in good])
    half_width_s = math.nan
    if len(good) >= 2 * BATCHES_OF_MEANS:
        means = [float(part.mean()) for part in np.array_split(responses, BATCHES_OF_MEANS)]
        half_width_s = _T_QUANTILE * float(np.std(means, ddof=1)) / math.sqrt(BATCHES_OF_MEANS)
    counts = Counter((reply.input, reply.output) for _, reply in good)
    sizes = tuple((count / len(good), float(i), float(o)) for (i, o), count in counts.items())
    return OpenRun(rate, len(good), len(steady) - len(good), sizes, float(responses.mean()), half_width_s)


def _message(document: str) -> str:
    """Return the message of an error document of OpenAI's form, else its first characters."""
    with contextlib.suppress(orjson.JSONDecodeError):
        content = orjson.loads(document)
        error = content.get("error") if isinstance(content, dict) else None
        if isinstance(error, dict) and error.get("message"):
            return f"({str(error['message'])[:200]})"
    return f"({document[:200]})" if document else ""
