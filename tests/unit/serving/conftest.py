from __future__ import annotations

from collections.abc import AsyncIterator

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
