"""Worker of a replica: slots, engine, counters and the emulated network; no HTTP."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from tierserve_serving.config import PoolConfig
from tierserve_serving.engines import Chunk, Engine, EngineError, Generation, PromptError
from tierserve_serving.replica.slots import QueueFullError, Slots
from tierserve_serving.replica.stats import ReplicaStats


def _now() -> float:
    """Seconds by the clock of the event loop, which its timers use."""
    return asyncio.get_running_loop().time()


class Worker:
    """Runs generations in slots and counts them."""

    def __init__(self, config: PoolConfig, engine: Engine, stats: ReplicaStats | None = None) -> None:
        self.config = config
        self.engine = engine
        self.slots = Slots(config.slots, config.max_queue)
        self.stats = stats or ReplicaStats()

    def reconfigure(self, config: PoolConfig) -> None:
        """Apply the `UserConfig` fields of a configuration, in the event loop of the engine."""
        self.config = config
        self.engine.reconfigure(config)

    def report(self) -> dict[str, float]:
        """Return counters and gauges for the autoscaling policy."""
        return self.stats.report(running=self.slots.running, waiting=self.slots.waiting, slots=self.slots.slots)

    def retry_after_s(self) -> int:
        """Return the expected wait of a new request in seconds, 1 to 60, for Retry-After."""
        done = self.stats.completions_total
        service_s = self.stats.service_seconds_total / done if done else 1.0
        return max(1, min(60, math.ceil(service_s * (self.slots.waiting + 1) / self.slots.slots)))

    def serve(self, generations: Sequence[Generation], gateway_wait_s: float = 0.0) -> AsyncGenerator[Chunk, None]:
        """Yield the answer to a checked request, delayed by the emulated network.

        A request has one slot, as the gateway and the policy count it: its choices are generated one after another.

        Raises `QueueFullError` if the queue is full, `EngineError` if the engine fails. Close or cancel to stop it.
        """
        chunks = self._counted(generations, gateway_wait_s)
        return delayed(chunks, self.config.downlink_s) if self.config.downlink_s > 0.0 else chunks

    async def _counted(self, generations: Sequence[Generation], gateway_wait_s: float) -> AsyncGenerator[Chunk, None]:
        begin = _now()
        self.stats.arrived(gateway_wait_s)
        complete = False
        try:
            await self._enter()
            async with aclosing(self._run(generations, begin)) as chunks:
                async for chunk in chunks:
                    complete = chunk.finish is not None and chunk.index == len(generations) - 1
                    yield chunk
            if not complete:
                raise EngineError("the generation ended without a finish reason")
        except QueueFullError:
            self.stats.refused()
            raise
        except (asyncio.CancelledError, GeneratorExit):
            if not complete:
                self.stats.cancelled()
            raise
        except Exception as error:
            self.stats.failed()
            if isinstance(error, PromptError | EngineError):
                raise
            raise EngineError(f"{type(error).__name__}: {error}") from error

    async def _enter(self) -> None:
        if self.config.uplink_s > 0.0:
            await asyncio.sleep(self.config.uplink_s)
        begin = _now()
        await self.slots.acquire()
        self.stats.replica_wait_seconds_total += _now() - begin

    async def _run(self, generations: Sequence[Generation], begin: float) -> AsyncGenerator[Chunk, None]:
        """Yield from the engine. The slot is released before the last chunk is sent, since the client may be slow."""
        start = _now()
        tokens = 0
        ends: list[Chunk] = []
        try:
            async with aclosing(self._choices(generations)) as chunks:
                async for chunk in chunks:
                    if generations[0].streamed and not tokens and chunk.tokens:
                        self.stats.first_token(_now() - begin)
                    tokens += chunk.tokens
                    if chunk.finish is not None:
                        ends.append(chunk)
                    if len(ends) == len(generations):
                        break
                    yield chunk
        finally:
            self.slots.release()
        if len(ends) == len(generations):
            input_tokens = sum(end.input_tokens for end in ends)
            self.stats.completed(_now() - start, input_tokens, tokens, [end.timing for end in ends])
            yield ends[-1]

    async def _choices(self, generations: Sequence[Generation]) -> AsyncGenerator[Chunk, None]:
        """Yield the choices one after another, each chunk with the index of its choice."""
        for index, generation in enumerate(generations):
            async with aclosing(self.engine.generate(generation)) as chunks:
                async for chunk in chunks:
                    yield replace(chunk, index=index) if index else chunk
                    if chunk.finish is not None:
                        break


async def delayed(chunks: AsyncGenerator[Chunk, None], delay_s: float) -> AsyncGenerator[Chunk, None]:
    """Yield every chunk `delay_s` later. The source is not delayed, so that its slot is released when it is done."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[float, Chunk | Exception | None]] = asyncio.Queue()
    pump = loop.create_task(_pump(chunks, queue, delay_s))
    try:
        while True:
            due, item = await queue.get()
            await asyncio.sleep(due - loop.time())
            if item is None:
                return
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        pump.cancel()


async def _pump(
    chunks: AsyncGenerator[Chunk, None], queue: asyncio.Queue[tuple[float, Chunk | Exception | None]], delay_s: float
) -> None:
    clock = asyncio.get_running_loop().time
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                queue.put_nowait((clock() + delay_s, chunk))
        queue.put_nowait((clock(), None))
    except Exception as error:
        queue.put_nowait((clock() + delay_s, error))
