"""Services of a cluster: listed in pages, then watched; a version that is gone is listed again, errors have a hint.

The real client of Kubernetes, and a server with the list and watch protocol of the API server; against a real API
server: tests/contract/operator/test_console.py.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import ApiClient, Configuration

from tierserve.console.cluster import ClusterSource
from tierserve.console.fleet import Fleet
from tierserve.console.sources import SourceError

PATH = "/apis/serving.tierserve.io/v1alpha1"


def resource(name: str, version: int, namespace: str = "a", target: str = "800ms") -> dict:
    objective = {"responseTime": {"percentile": 95, "target": target}}
    metadata = {"namespace": namespace, "name": name, "resourceVersion": str(version), "managedFields": [{"x": "y"}]}
    return {"metadata": metadata, "spec": {"objective": objective}, "status": {"ready": "True", "replicas": version}}


class ListWatch:
    """One page per item; events of the watch from a queue, None ends it."""

    def __init__(self) -> None:
        self.items = [resource("one", 1), resource("two", 2)]
        self.events: asyncio.Queue[dict | None] = asyncio.Queue()
        self.status = 200
        self.forbidden = ""
        self.lists = 0
        self.watched: list[str] = []
        self.paths: set[tuple[str, str]] = set()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.paths.add((request.method, request.path))
        if self.forbidden and f"/namespaces/{self.forbidden}/" in request.path:
            return web.json_response({"message": "forbidden"}, status=403)
        if self.status != 200:
            return web.json_response({"message": "no"}, status=self.status)
        if request.query.get("watch"):
            return await self.watch(request)
        at = int(request.query.get("continue") or 0)
        self.lists += at == 0
        more = {"continue": str(at + 1)} if at + 1 < len(self.items) else {}
        return web.json_response({"metadata": {"resourceVersion": "9", **more}, "items": self.items[at : at + 1]})

    async def watch(self, request: web.Request) -> web.StreamResponse:
        self.watched.append(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        while (event := await self.events.get()) is not None:
            await response.write(json.dumps(event).encode() + b"\n")
        return response


@pytest.fixture
async def server() -> AsyncIterator[tuple[ListWatch, str]]:
    api = ListWatch()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api.answer)
    async with TestServer(app) as listening:
        yield api, str(listening.make_url(""))
        api.events.put_nowait(None)


def client(url: str) -> ApiClient:
    return ApiClient(Configuration(host=url.rstrip("/")))


async def until(source: ClusterSource, expected: dict[str, int]) -> None:
    async with asyncio.timeout(20):
        while {one.name: one.status["replicas"] for one in await source.services()} != expected:
            await asyncio.sleep(0.01)


async def test_it_lists_all_pages_and_follows_changes(server):
    api, url = server
    source = ClusterSource(client(url))
    try:
        await until(source, {"one": 1, "two": 2})
        (first, _) = await source.services()
        assert (first.key, first.target_s, first.percentile) == (("a", "one"), 0.8, 95)
        changes = {"ADDED": resource("three", 10), "MODIFIED": resource("one", 11), "DELETED": resource("two", 12)}
        for kind, item in changes.items():
            api.events.put_nowait({"type": kind, "object": item})
        await until(source, {"one": 11, "three": 10})
        document = await source.document(("a", "one"))
        assert document["metadata"] == {"namespace": "a", "name": "one"}
        assert await source.document(("b", "one")) is None
        api.events.put_nowait({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "50"}}})
        api.events.put_nowait(None)
        async with asyncio.timeout(20):
            while len(api.watched) < 2:
                await asyncio.sleep(0.01)
        assert api.watched == ["9", "50"]
        assert api.lists == 1
        assert api.paths == {("GET", f"{PATH}/genaideployments")}
    finally:
        await source.close()


async def test_a_version_that_is_gone_is_listed_again(server):
    api, url = server
    source = ClusterSource(client(url))
    try:
        await until(source, {"one": 1, "two": 2})
        api.items = [resource("one", 20)]
        api.events.put_nowait({"type": "ERROR", "object": {"code": 410, "message": "too old resource version"}})
        await until(source, {"one": 20})
        assert api.lists == 2
    finally:
        await source.close()


@pytest.mark.parametrize(("status", "hint"), [(403, "get, list and watch"), (404, "CRD"), (500, "no")])
async def test_an_error_of_the_api_server_has_a_hint_and_ends_with_it(server, status, hint):
    api, url = server
    api.status = status
    source = ClusterSource(client(url))
    try:
        async with asyncio.timeout(20):
            with pytest.raises(SourceError, match=hint):
                while True:
                    try:
                        await source.services()
                    except SourceError as error:
                        if "not complete" not in str(error):
                            raise
        api.status = 200
        async with asyncio.timeout(20):
            while True:
                try:
                    assert len(await source.services()) == 2
                    break
                except SourceError:
                    await asyncio.sleep(0.05)
    finally:
        await source.close()


async def test_one_namespace_without_rights_does_not_stop_the_others(server):
    api, url = server
    api.forbidden = "blue"
    source = ClusterSource(client(url), ["red", "blue"])
    fleet = Fleet(source)
    try:
        async with asyncio.timeout(20):
            while not fleet.rows:
                await fleet.sample()
        assert {one["name"] for one in fleet.rows} == {"one", "two"}
        assert "get, list and watch" in fleet.listed("", 0, 50)["source"]["error"]
        api.events.put_nowait({"type": "ADDED", "object": resource("three", 10)})
        async with asyncio.timeout(20):
            while len(fleet.rows) < 3:
                await fleet.sample()
    finally:
        await source.close()


async def test_with_namespaces_each_has_a_watch_of_its_own_and_nothing_else_is_requested(server):
    api, url = server
    source = ClusterSource(client(url), ["red", "blue"])
    try:
        async with asyncio.timeout(20):
            while len(api.watched) < 2:
                await asyncio.sleep(0.01)
        assert api.paths == {("GET", f"{PATH}/namespaces/{name}/genaideployments") for name in ("red", "blue")}
    finally:
        await source.close()
