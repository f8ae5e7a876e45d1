from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

import httpx
import pytest

from tierserve_serving.config import PoolConfig
from tierserve_serving.engines.emulated import EmulatedEngine
from tierserve_serving.openai.app import Ingress
from tierserve_serving.replica.worker import Worker


@pytest.fixture
def config() -> PoolConfig:
    return PoolConfig(
        service="assistant",
        tier="edge",
        model="llama-7b",
        slots=2,
        max_queue=1,
        profile={"alpha": 0.002},
        output_tokens=5,
        max_body_bytes=4096,
    )


@pytest.fixture
def worker(config) -> Worker:
    return Worker(config, EmulatedEngine.of(config))


@pytest.fixture
async def client(worker) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(Ingress(worker))
    async with httpx.AsyncClient(transport=transport, base_url="http://replica") as made:
        yield made


T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its clock jumps to the next timer: what takes how long is exact, however busy the machine is."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._poll = self._selector.select
        self._selector.select = self._select

    def _select(self, timeout: float | None = None) -> Any:
        self.now += timeout or 0.0
        return self._poll(timeout and 0.0)

    def time(self) -> float:
        return self.now


@pytest.fixture
def in_virtual_time() -> Callable[[Coroutine[Any, Any, T]], T]:
    """Runs a coroutine to its end on such a loop."""

    def run(work: Coroutine[Any, Any, T]) -> T:
        loop = VirtualLoop()
        try:
            return loop.run_until_complete(work)
        finally:
            loop.close()

    return run
