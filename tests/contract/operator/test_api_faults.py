"""The operator behind a proxy that refuses, forgets, cuts and delays what it asks of a real API server."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import yaml
from aiohttp import web

pytestmark = [pytest.mark.slow, pytest.mark.apiserver]
CUT = -1
"""In place of a status: the connection is closed without an answer."""
HOP = {"transfer-encoding", "content-length", "content-encoding", "connection", "host"}


class Proxy:
    """Passes requests on; `refuse` chooses which ones get another answer instead."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.refuse: Callable[[str, str], int] = lambda _method, _path: 0
        self.delay_s = 0.0
        self.refused = 0
        self.watches: set[asyncio.Task[Any]] = set()
        self.url = ""
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        assert self.ready.wait(10)

    def _run(self) -> None:
        self.loop.run_until_complete(self._begin())
        self.ready.set()
        self.loop.run_forever()

    async def _begin(self) -> None:
        context = ssl.create_default_context(cafile=str(self.server.certificate))
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=0), timeout=aiohttp.ClientTimeout(), auto_decompress=True
        )
        app = web.Application(client_max_size=16 * 2**20)
        app.router.add_route("*", "/{tail:.*}", self._pass)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        code = self.refuse(request.method, request.path_qs)
        if code == CUT:
            assert request.transport is not None
            request.transport.abort()
        if code:
            self.refused += 1
            headers = {"Retry-After": "1"} if code == 429 else {}
            status = {"kind": "Status", "apiVersion": "v1", "code": code, "message": f"refused with {code}"}
            if "watch=true" in request.path_qs and code == 410:  # so the API server tells it, too
                return web.json_response({"type": "ERROR", "object": status})
            return web.json_response(status, status=code, headers=headers)
        await asyncio.sleep(self.delay_s)
        headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP | {"accept-encoding"}}
        headers["Authorization"] = f"Bearer {self.server.token}"
        url = self.server.url + request.path_qs
        async with self.session.request(
            request.method, url, headers=headers, data=await request.read() or None
        ) as reply:
            kept = {k: v for k, v in reply.headers.items() if k.lower() not in HOP}
            answer = web.StreamResponse(status=reply.status, headers=kept)
            with contextlib.suppress(ConnectionError):
                await answer.prepare(request)
            mine = asyncio.current_task()
            assert mine is not None
            if "watch=true" in request.path_qs:
                self.watches.add(mine)
            try:
                async for chunk in reply.content.iter_any():
                    await answer.write(chunk)
            except ConnectionError:
                pass  # the operator has gone
            finally:
                self.watches.discard(mine)
            return answer

    def cut_watches(self) -> int:
        """Cut every watch in the middle; returns how many."""

        async def cut() -> int:
            found = list(self.watches)
            for task in found:
                task.cancel()
            return len(found)

        return asyncio.run_coroutine_threadsafe(cut(), self.loop).result(10)

    def close(self) -> None:
        async def end() -> None:
            await self.runner.cleanup()
            await self.session.close()
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)


@pytest.fixture(scope="module")
def proxy(apiserver: Any) -> Iterator[Proxy]:
    found = Proxy(apiserver)
    yield found
    found.close()


@pytest.fixture(scope="module")
def behind(proxy: Proxy, make_operator: Any, tmp_path_factory: pytest.TempPathFactory, kuberay: None) -> Iterator[Any]:
    """An operator that knows only the proxy, and only its own namespace."""
    folder: Path = tmp_path_factory.mktemp("behind")
    process = make_operator(folder, proxy.url, None, "any", namespaces=("behind",))
    code, reply = proxy.server.create(
        "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "behind"}}
    )
    assert code == 201, reply
    process.environment["TIERSERVE_LIVENESS_STALE_AFTER"] = "5"
    process.start()
    yield process
    process.stop()
    sys.stdout.write(process.log.read_text(errors="replace")[-8000:])


@pytest.fixture
def chat(proxy: Proxy, behind: Any, space_of: Any, request: pytest.FixtureRequest, eventually: Any) -> Iterator[Any]:
    """A small service of the test's own that the operator behind the proxy reconciles."""
    space = space_of("behind")
    name = f"c{abs(hash(request.node.name)) % 10**6}"
    example = yaml.safe_load((Path(__file__).resolve().parents[3] / "examples" / "assistant.yaml").read_text())
    spec = {**example["spec"], "models": example["spec"]["models"][:1], "tiers": example["spec"]["tiers"][2:]}
    spec |= {"traffic": [{"name": "chat"}], "routing": {}}
    space.create({**example, "metadata": {"name": name, "namespace": "behind"}, "spec": spec})
    eventually(lambda: space.condition(name, "Ready"), "a status")
    yield Service(space, name)
    proxy.refuse, proxy.delay_s = (lambda _method, _path: 0), 0.0
    space.server.delete(space.path("GenAIDeployment", name))


class Service:
    """One service, as the API server has it."""

    def __init__(self, space: Any, name: str) -> None:
        self.space, self.name = space, name

    def raise_ceiling(self, n: int) -> None:
        tiers = copy.deepcopy(self.space.get("GenAIDeployment", self.name)["spec"]["tiers"])
        tiers[0]["replicas"] = {"min": 1, "max": n}
        self.space.edit("GenAIDeployment", self.name, {"spec": {"tiers": tiers}})

    def ceiling(self) -> int:
        ray = self.space.get("RayService", f"{self.name}-cloud-default")
        config = json.loads(ray["spec"]["serveConfigV2"])
        most: int = config["applications"][0]["deployments"][0]["autoscaling_config"]["max_replicas"]
        return most


@pytest.mark.parametrize("code", [409, 429, 500, 503])
def test_what_is_refused_is_tried_again_until_it_is_taken(proxy, chat, eventually, code):
    left = [3]

    def some(method: str, path: str) -> int:
        if method == "PATCH" and f"rayservices/{chat.name}" in path and left[0]:
            left[0] -= 1
            return code
        return 0

    proxy.refuse = some
    chat.raise_ceiling(40)
    eventually(lambda: chat.ceiling() == 40, "applied in the end")
    assert left == [0]
    eventually(lambda: "refused" not in chat.space.condition(chat.name, "Degraded")["message"], "no problem is left")


def test_an_object_that_stays_refused_is_a_condition_and_keeps_no_other_from_being_applied(proxy, chat, eventually):
    proxy.refuse = lambda method, path: 422 if method == "PATCH" and "/deployments/" in path else 0
    patch = {"spec": {"gateway": {"maxQueue": 7}}}
    chat.space.edit("GenAIDeployment", chat.name, patch)
    chat.space.server.delete(chat.space.path("Deployment", f"{chat.name}-gateway"))
    eventually(
        lambda: "refused with 422" in chat.space.condition(chat.name, "Degraded")["message"],
        "with the status code",
    )
    chat.raise_ceiling(41)
    eventually(lambda: chat.ceiling() == 41, "the other objects are applied")
    proxy.refuse = lambda _method, _path: 0
    eventually(lambda: chat.space.get("Deployment", f"{chat.name}-gateway"), "and then it comes")


def test_a_watch_that_is_cut_is_begun_again(proxy, chat, eventually):
    assert proxy.cut_watches() > 0
    chat.raise_ceiling(42)
    eventually(lambda: chat.ceiling() == 42, "a change after the cut is seen")


def test_a_watch_that_is_too_old_lists_anew(proxy, chat, eventually):
    gone = [2]

    def too_old(_method: str, path: str) -> int:
        if "watch=true" in path and "genaideployments" in path and gone[0]:
            gone[0] -= 1
            return 410
        return 0

    proxy.refuse = too_old
    proxy.cut_watches()
    chat.raise_ceiling(43)
    eventually(lambda: chat.ceiling() == 43, "a change is seen all the same")


def test_a_slow_api_server_makes_it_slow_and_not_wrong(proxy, chat, eventually):
    proxy.delay_s = 1.0
    chat.raise_ceiling(44)
    eventually(lambda: chat.ceiling() == 44, "in its time", 60.0)


def test_an_api_server_that_is_away_is_waited_for(proxy, chat, eventually):
    proxy.refuse = lambda _method, _path: 503
    proxy.cut_watches()
    chat.raise_ceiling(45)
    before = proxy.refused
    eventually(lambda: proxy.refused > before + 2, "it asks again")
    proxy.refuse = lambda _method, _path: 0
    eventually(lambda: chat.ceiling() == 45, "and continues", 60.0)


def probe(behind: Any) -> int:
    return httpx.get(behind.health, timeout=20, trust_env=False).status_code


def test_an_operator_that_does_not_reach_the_api_server_fails_its_probe_until_it_does(proxy, behind, chat, eventually):
    assert probe(behind) == 200
    proxy.refuse = lambda method, _path: CUT if method == "PATCH" else 0
    chat.raise_ceiling(46)
    eventually(lambda: probe(behind) == 500, "nothing can be written, and the probe shows it", 60.0)
    proxy.refuse = lambda _method, _path: 0
    eventually(lambda: probe(behind) == 200, "and is well again", 90.0)


@pytest.mark.parametrize("code", [422, 500])
def test_one_resource_whose_status_is_refused_for_ever_does_not_fail_the_probe(proxy, behind, chat, eventually, code):
    proxy.refuse = lambda method, path: code if method == "PATCH" and path.partition("?")[0].endswith("/status") else 0
    before = proxy.refused
    chat.raise_ceiling(47)
    # The probe fails 5 s after the last completed reconcile; retries come after 1, 2, 4, 8 s.
    eventually(lambda: proxy.refused >= before + 4, "four retries", 60.0)
    assert probe(behind) == 200
