"""A small chat service in this process: it can stall, refuse, cut streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from aiohttp import web


@dataclass
class ChatServer:
    """Answers after `service_s`; does nothing between `stall_at` and `stall_until` (seconds of its clock)."""

    service_s: float = 0.02
    stall_at: float = float("inf")
    stall_s: float = 0.0
    status: int = 200
    cut_stream: bool = False
    models_refused: int = 0
    url: str = ""
    seen: list[dict[str, object]] = field(default_factory=list)
    classes: list[str | None] = field(default_factory=list)
    in_flight: int = 0
    peak: int = 0
    began: float | None = None

    async def answer(self, request: web.Request) -> web.StreamResponse:
        loop = asyncio.get_running_loop()
        self.began = self.began if self.began is not None else loop.time()
        body = await request.json()
        self.seen.append(body)
        self.classes.append(request.headers.get("X-TierServe-Class"))
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            wake = self.began + self.stall_at + self.stall_s
            if self.began + self.stall_at <= loop.time() < wake:
                await asyncio.sleep(wake - loop.time())
            await asyncio.sleep(self.service_s)
            return await self._reply(request, body)
        finally:
            self.in_flight -= 1

    async def _reply(self, request: web.Request, body: dict[str, object]) -> web.StreamResponse:
        headers = {"X-TierServe-Pool": "edge-default"}
        if self.status != 200:
            return web.json_response({"error": {"message": "no"}}, status=self.status, headers=headers)
        if not body.get("stream"):
            message = {
                "choices": [{"message": {"content": "The sky scatters."}}],
                "usage": {"completion_tokens": 4},
            }
            return web.json_response(message, headers=headers)
        response = web.StreamResponse(headers={**headers, "Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n')
        for word in ("The", " sky", " scatters"):
            await asyncio.sleep(0.01)
            half = f'data: {{"choices":[{{"delta":{{"content":"{word}"}}}}]}}\n\n'.encode()
            await response.write(half[:20])  # events do not keep to chunks
            await response.write(half[20:])
        if not self.cut_stream:
            await response.write(b"data: [DONE]\n\n")
        return response

    async def models(self, _request: web.Request) -> web.Response:
        if self.models_refused > 0:
            self.models_refused -= 1
            raise web.HTTPServiceUnavailable
        return web.json_response({"data": [{"id": "assistant"}]})


@pytest.fixture
async def chat() -> AsyncIterator[ChatServer]:
    server = ChatServer()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", server.answer)
    app.router.add_get("/v1/models", server.models)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()
