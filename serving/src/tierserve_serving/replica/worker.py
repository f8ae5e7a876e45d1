"""Worker of a replica: slots, engine, counters and the emulated network; no HTTP."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing

from tierserve_serving.config import PoolConfig
from tierserve_serving.engines import Engine, EngineError, Part, RequestError
from tierserve_serving.replica.slots import QueueFullError, Slots
from tierserve_serving.replica.stats import ReplicaStats
from tierserve_serving.semconv import attributes


def _now() -> float:
    """Seconds by the clock of the event loop, which its timers use."""
    return asyncio.get_running_loop().time()


class Worker:
    """Runs requests in slots and counts them."""

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
        counters = self.stats.report(running=self.slots.running, waiting=self.slots.waiting, slots=self.slots.slots)
        report = counters | self.engine.gauges()
        if self.stats.metrics is not None:
            self.stats.metrics.show(report)
        return report

    def retry_after_s(self) -> int:
        """Return the expected wait of a new request in seconds, 1 to 60, for Retry-After."""
        done = self.stats.completions_total
        service_s = self.stats.service_seconds_total / done if done else 1.0
        return max(1, min(60, math.ceil(service_s * (self.slots.waiting + 1) / self.slots.slots)))

    def serve(
        self, answer: AsyncGenerator[Part, None], gateway_wait_s: float = 0.0, path: str = "", model: str = "-"
    ) -> AsyncGenerator[Part, None]:
        """Yield an answer of the engine (`Engine.respond`), in a slot and delayed by the emulated network.

        Path and model of the request are labels of its metrics.
        Raises `QueueFullError` if the queue is full, `EngineError` if the engine fails. Close or cancel to stop it.
        """
        parts = self._counted(answer, gateway_wait_s, attributes(path, model))
        return delayed(parts, self.config.downlink_s) if self.config.downlink_s > 0.0 else parts

    async def _counted(
        self, answer: AsyncGenerator[Part, None], gateway_wait_s: float, tags: dict[str, str]
    ) -> AsyncGenerator[Part, None]:
        begin = _now()
        self.stats.arrived(gateway_wait_s)
        complete = False
        try:
            await self._enter()
            async with aclosing(self._run(answer, begin, tags)) as parts:
                async for part in parts:
                    complete = part.usage is not None
                    yield part
            if not complete:
                raise EngineError("the answer ended early")
        except QueueFullError:
            self.stats.refused()
            raise
        except (asyncio.CancelledError, GeneratorExit):
            if not complete:
                self.stats.cancelled()
            raise
        except Exception as error:
            self.stats.failed()
            if isinstance(error, RequestError | EngineError):
                raise
            raise EngineError(f"{type(error).__name__}: {error}") from error

    async def _enter(self) -> None:
        if self.config.uplink_s > 0.0:
            await asyncio.sleep(self.config.uplink_s)
        begin = _now()
        await self.slots.acquire()
        self.stats.replica_wait_seconds_total += _now() - begin

    async def _run(
        self, answer: AsyncGenerator[Part, None], begin: float, tags: dict[str, str]
    ) -> AsyncGenerator[Part, None]:
        """Yield from the engine. The slot is released before the last part is sent, since the client may be slow."""
        start = _now()
        first, last = True, None
        try:
            async with aclosing(answer):
                async for part in answer:
                    if part.streamed and first and part.tokens:
                        first = False
                        self.stats.first_token(_now() - begin)
                    if part.usage is not None:
                        last = part
                        break
                    yield part
        finally:
            self.slots.release()
        if last is not None and last.usage is not None:
            self.stats.completed(_now() - start, last.usage, tags)
            yield last


async def delayed(parts: AsyncGenerator[Part, None], delay_s: float) -> AsyncGenerator[Part, None]:
    """Yield every part `delay_s` later. The source is not delayed, so that its slot is released when it is done."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[float, Part | Exception | None]] = asyncio.Queue()
    pump = loop.create_task(_pump(parts, queue, delay_s))
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
    parts: AsyncGenerator[Part, None], queue: asyncio.Queue[tuple[float, Part | Exception | None]], delay_s: float
) -> None:
    clock = asyncio.get_running_loop().time
    try:
        async with aclosing(parts):
            async for part in parts:
                queue.put_nowait((clock() + delay_s, part))
        queue.put_nowait((clock(), None))
    except Exception as error:
        queue.put_nowait((clock() + delay_s, error))
