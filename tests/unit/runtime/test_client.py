"""Requests to the API server: each is reported once, with RBAC's verb and resource, also one that fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration

from tierserve.runtime.kubernetes.client import (
    TIMEOUT_S,
    Cluster,
    ClusterError,
    ClusterUnreachableError,
    Request,
    collection,
    verb_and_resource,
)
from tierserve.runtime.local.ports import free_port

DEPLOYMENT = {"apiVersion": "serving.tierserve.io/v1alpha1", "kind": "GenAIDeployment",
              "metadata": {"namespace": "chat", "name": "assistant"}}  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", collection("v1", "Event", "chat"), ("list", "events")),
        ("POST", collection("v1", "Event", "chat"), ("create", "events")),
        ("GET", collection("ray.io/v1", "RayService", "chat") + "/a", ("get", "rayservices")),
        ("DELETE", collection("apps/v1", "Deployment", "chat") + "/a", ("delete", "deployments")),
        ("POST", collection("authorization.k8s.io/v1", "SelfSubjectAccessReview", None),
         ("create", "selfsubjectaccessreviews")),
        ("PATCH", "/apis/serving.tierserve.io/v1alpha1/namespaces/chat/genaideployments/a/status",
         ("patch", "genaideployments/status")),
    ],
)  # fmt: skip
def test_a_path_gives_the_verb_and_the_resource_of_rbac(method: str, path: str, expected: tuple[str, str]) -> None:
    assert verb_and_resource(method, path) == expected


async def answer(request: web.Request) -> web.Response:
    status = 403 if request.method == "PATCH" else 200
    return web.json_response({"message": "in words", "items": []}, status=status)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """A server that lists nothing and forbids every patch."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def test_every_request_is_reported_with_its_code_and_duration(port: int) -> None:
    made: list[Request] = []
    async with ApiClient(Configuration(host=f"http://127.0.0.1:{port}")) as client:
        cluster = Cluster(client, on_request=made.append)
        assert await cluster.warnings("chat") == []
        with pytest.raises(ClusterError):
            await cluster.apply_status(DEPLOYMENT, {})
    assert [(one.verb, one.resource, one.code) for one in made] == [
        ("list", "events", 200),
        ("patch", "genaideployments/status", 403),
    ]
    assert all(0.0 < one.duration_s < TIMEOUT_S for one in made)


async def test_a_request_without_an_answer_is_reported_too() -> None:
    made: list[Request] = []
    async with ApiClient(Configuration(host=f"http://127.0.0.1:{free_port()}")) as client:
        with pytest.raises(ClusterUnreachableError):
            await asyncio.wait_for(Cluster(client, on_request=made.append).warnings("chat"), 20.0)
    assert [(one.verb, one.code) for one in made] == [("list", 0)]
