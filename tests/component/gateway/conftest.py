"""Test rig: real HAProxy, the real agent, and small upstream servers in place of Ray Serve's proxy."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tierserve.render.haproxy.config import GatewayClass, GatewayPool, GatewaySpec, render_haproxy
from tierserve.runtime.local.ports import free_port
from tierserve_serving.gateway import haproxy as binary
from tierserve_serving.gateway.agent import Agent
from tierserve_serving.gateway.agent_config import AgentClass, AgentConfig, AgentPool


async def until(condition: Callable[[], Any], timeout_s: float = 40.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"not reached in {timeout_s} s"
        await asyncio.sleep(0.005)


class Upstream:
    """Serves every pool under its prefix; `hold` keeps requests until `release` is called."""

    def __init__(self) -> None:
        self.port = free_port()
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.in_flight: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.cancelled = 0
        self.service_s = 0.0
        self.sick: set[str] = set()
        self.checked: Callable[[str], object] = lambda pool: None
        self.answer: Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]] | None = None
        self._gate = asyncio.Event()
        self._gate.set()
        self._runner: web.AppRunner | None = None

    def hold(self) -> None:
        self._gate.clear()

    def release(self) -> None:
        self._gate.set()

    def by_pool(self) -> Counter[str]:
        return Counter(pool for pool, _ in self.seen)

    async def start(self) -> None:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_get("/{pool}/healthz", self._health)
        app.router.add_route("*", "/{pool}/{rest:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _health(self, request: web.Request) -> web.Response:
        self.checked(request.match_info["pool"])
        return web.Response(status=503 if request.match_info["pool"] in self.sick else 200)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        pool, raw = request.match_info["pool"], await request.read()
        try:
            body = json.loads(raw)
        except ValueError:
            return web.json_response({"error": {"message": "not JSON", "type": "invalid_request_error"}}, status=400)
        self.seen.append((pool, body))
        self.headers.append({**request.headers, "path": request.path_qs})
        self.in_flight[pool] += 1
        self.most[pool] = max(self.most[pool], self.in_flight[pool])
        try:
            await self._gate.wait()
            await asyncio.sleep(self.service_s)
            if self.answer is not None:
                return await self.answer(request, body)
            return web.json_response({"pool": pool, "n": body.get("n")})
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight[pool] -= 1


class Rig:
    """One gateway; pools all point at one upstream unless given their own port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.binary = binary.find_haproxy()
        self.upstream = Upstream()
        self.decisions: dict[str, Any] = {}
        self.decisions_port = free_port()
        self.spec: GatewaySpec
        self.agent: Agent
        self.haproxy: subprocess.Popen[bytes] | None = None
        self.client: aiohttp.ClientSession
        self._stack = contextlib.AsyncExitStack()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.spec.port}"

    @property
    def agent_url(self) -> str:
        return f"http://127.0.0.1:{self.agent.port}"

    def pool(self, name: str, limit: int = 1, **kwargs: Any) -> GatewayPool:
        tier = name.split("-", maxsplit=1)[0]
        return GatewayPool(
            name, tier, "127.0.0.1", kwargs.pop("port", self.upstream.port), f"/{name}", limit, **{"slots": 1, **kwargs}
        )

    async def start(
        self, pools: tuple[GatewayPool, ...], classes: dict[str, tuple[str, ...]] | None = None, **kwargs: Any
    ) -> None:
        tiers = tuple(dict.fromkeys(p.tier for p in pools))
        named = classes or {"chat": tiers}
        self.spec = GatewaySpec(
            service="assistant",
            port=free_port(),
            pools=pools,
            classes=tuple(GatewayClass(n, t) for n, t in named.items()),
            default_class=next(iter(named)),
            admin_socket=str(self.folder / "admin.sock"),
            log_address=f"127.0.0.1:{free_port()}",
            metrics_port=free_port(),
            **{"health_interval_s": 0.2, **kwargs},
        )
        await self.upstream.start()
        self._stack.push_async_callback(self.upstream.stop)
        self.client = await self._stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        )
        self.start_haproxy()
        self._stack.callback(self.stop_haproxy)
        await self._wait_for_haproxy()

    def start_haproxy(self) -> None:
        config = self.folder / "haproxy.cfg"
        binary.write_config(config, render_haproxy(self.spec))
        binary.check_config(self.binary, config)
        command = binary.start_command(self.binary, config, self.folder / "pid")
        with (self.folder / "haproxy.log").open("ab") as out:
            self.haproxy = subprocess.Popen(command, stdout=out, stderr=out)

    async def _wait_for_haproxy(self) -> None:
        for _ in range(4000):
            try:
                async with self.client.get(self.url + "/healthz"):
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.01)
        raise AssertionError((self.folder / "haproxy.log").read_text())

    def stop_haproxy(self) -> None:
        if self.haproxy is not None:
            with contextlib.suppress(ProcessLookupError):
                self.haproxy.send_signal(signal.SIGTERM)
            self.haproxy.wait(10)
            self.haproxy = None

    async def start_decisions(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_get("/decisions", self._get_decisions)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.decisions_port, reuse_address=True).start()
        self._stack.push_async_callback(runner.cleanup)
        return runner

    async def _get_decisions(self, request: web.Request) -> web.Response:
        del request
        return web.json_response(self.decisions)

    def agent_config(self, **kwargs: Any) -> AgentConfig:
        url = f"http://127.0.0.1:{self.decisions_port}/decisions"
        return AgentConfig(
            service=self.spec.service,
            port=0,
            admin_socket=self.spec.admin_socket,
            log_address=self.spec.log_address,
            max_body_bytes=self.spec.max_body_bytes,
            pools=tuple(
                AgentPool(
                    name=p.name,
                    tier=p.tier,
                    slots=p.slots,
                    models=p.models,
                    decisions_url=url,
                    target_s=0.5,
                    scale_to_zero=p.scale_to_zero,
                )
                for p in self.spec.pools
            ),
            classes=tuple(AgentClass(name=c.name, tiers=c.tiers) for c in self.spec.classes),
            **{"poll_interval_s": 0.05, "decisions_interval_s": 0.05, **kwargs},
        )

    async def start_agent(self, **kwargs: Any) -> Agent:
        self.agent = Agent(self.agent_config(**kwargs))
        ready = asyncio.Event()
        self._task = asyncio.create_task(self.agent.run(ready))
        self._stack.push_async_callback(self.close_agent)
        await asyncio.wait_for(ready.wait(), 40)
        await until(lambda: self.agent.states)
        return self.agent

    async def close_agent(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def post(self, n: int = 0, *, model: str = "assistant", cls: str | None = None, **kwargs: Any) -> Reply:
        headers = {"Content-Type": "application/json"} | kwargs.pop("headers", {})
        headers |= {"X-TierServe-Class": cls} if cls else {}
        body = kwargs.pop("data", None) or json.dumps({"model": model, "n": n})
        start = time.monotonic()
        async with self.client.post(self.url + "/v1/chat/completions", data=body, headers=headers, **kwargs) as answer:
            text = await answer.text()
            return Reply(answer.status, answer.headers, text, time.monotonic() - start)

    async def get_json(self, url: str) -> tuple[int, Any]:
        async with self.client.get(url) as answer:
            return answer.status, json.loads(await answer.read())

    def send(self, n: int = 0, **kwargs: Any) -> asyncio.Task[Reply]:
        return asyncio.create_task(self.post(n, **kwargs))

    def reload(self, spec: GatewaySpec) -> None:
        assert self.haproxy is not None
        self.spec = spec
        binary.reload(self.binary, self.folder / "haproxy.cfg", render_haproxy(spec), self.haproxy.pid)

    async def close(self) -> None:
        self.upstream.release()
        await self._stack.aclose()


@dataclasses.dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    text: str
    took_s: float

    @property
    def pool(self) -> str | None:
        return self.headers.get("X-TierServe-Pool")

    @property
    def error(self) -> dict[str, Any]:
        """The OpenAI-shaped error; fails for any other body."""
        body = json.loads(self.text)
        assert set(body["error"]) == {"message", "type", "param", "code"}
        error: dict[str, Any] = body["error"]
        return error


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    with tempfile.TemporaryDirectory(prefix="ts-gw-") as folder:
        made = Rig(Path(folder))
        try:
            yield made
        finally:
            await made.close()


@pytest.fixture
def poll() -> Callable[..., Awaitable[None]]:
    return until
