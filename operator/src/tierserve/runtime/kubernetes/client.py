"""Client of the API server: apply, apply status, read, list, delete, post an event."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient

from tierserve.api.v1alpha1.deployment import API_VERSION, KIND, PLURAL
from tierserve.render.kubernetes.metadata import DEPLOYMENT, MANAGER, Object

APPLY = "application/apply-patch+yaml"
TIMEOUT_S = 30.0
WATCH_S = 240
"""Length of a watch, which the API server ends; a connection that was lost unnoticed ends a little later."""
_PAGE = 500
_PLURALS = {
    KIND: PLURAL,
    "ConfigMap": "configmaps",
    "Deployment": "deployments",
    "Event": "events",
    "NetworkPolicy": "networkpolicies",
    "Pod": "pods",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "PrometheusRule": "prometheusrules",
    "RayService": "rayservices",
    "SelfSubjectAccessReview": "selfsubjectaccessreviews",
    "Service": "services",
    "ServiceMonitor": "servicemonitors",
}
_VERBS = {"PATCH": "patch", "POST": "create", "DELETE": "delete"}
_PATH = re.compile(r"/apis?/(?:[^/]+/)?v[^/]+/(?:namespaces/[^/]+/)?([^/]+)(?:/([^/]+)(/[^/]+)?)?")
NOT_FOUND, CONFLICT, FORBIDDEN, GONE = 404, 409, 403, 410


class ClusterError(Exception):
    """The API server rejected a request or cannot be reached; `code` is the HTTP status, 0 without an answer."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class ClusterUnreachableError(ClusterError, ConnectionError):
    """The API server did not answer; the object in question is not at fault."""

    def __init__(self, message: str) -> None:
        super().__init__(0, message)


@dataclass(frozen=True, slots=True)
class Request:
    """One request that was made.

    Attributes:
        verb: as in RBAC: get, list, create, patch, delete.
        resource: plural, with the subresource where there is one: `genaideployments/status`.
        code: HTTP status, 0 without an answer.
    """

    verb: str
    resource: str
    code: int
    duration_s: float


@dataclass(slots=True)
class Cluster:
    """Requests with the credentials of the operator.

    Attributes:
        on_request: called after each request, also a failed one.
        time: Date of the last response, Unix seconds: creation times of objects are of the API server's clock, too.
    """

    client: ApiClient
    on_request: Callable[[Request], None] | None = None
    time: float | None = None

    async def apply(self, desired: Object) -> Object:
        """Server-side apply of an object with force; fields of other managers that it does not set stay unchanged.

        Raises:
            ClusterError: 404 if the kind is not served, 403 if RBAC or admission rejects it, and so on.
        """
        # Strict: an unknown field of a podTemplate would be dropped without a message.
        query = [("fieldManager", MANAGER), ("force", "true"), ("fieldValidation", "Strict")]
        return await self._request("PATCH", path_of(desired), query, desired, APPLY)

    async def apply_status(self, resource: Mapping[str, Any], status: Mapping[str, Any]) -> Object:
        """Server-side apply of the whole status of a GenAIDeployment."""
        metadata = resource["metadata"]
        kept = {"name": metadata["name"], "namespace": metadata["namespace"]}
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": kept, "status": dict(status)}
        query = [("fieldManager", f"{MANAGER}-status"), ("force", "true")]
        return await self._request("PATCH", f"{path_of(body)}/status", query, body, APPLY)

    async def read(self, api_version: str, kind: str, namespace: str, name: str) -> Object | None:
        """The object; None if it does not exist or its kind is not served."""
        try:
            return await self._request("GET", f"{collection(api_version, kind, namespace)}/{name}")
        except ClusterError as error:
            if error.code == NOT_FOUND:
                return None
            raise

    async def children(self, api_version: str, kind: str, namespace: str, service: str) -> list[Object]:
        """Objects of a kind with the label of a GenAIDeployment; empty if the kind is not served."""
        query = [("labelSelector", f"{DEPLOYMENT}={service},app.kubernetes.io/managed-by={MANAGER}")]
        try:
            listed = await self._request("GET", collection(api_version, kind, namespace), query)
        except ClusterError as error:
            if error.code == NOT_FOUND:
                return []
            raise
        return [{"apiVersion": api_version, "kind": kind, **item} for item in listed.get("items", ())]

    async def list_all(self, api_version: str, kind: str, namespace: str | None) -> tuple[Sequence[Object], str]:
        """All objects of a kind in a namespace or in the cluster, and the resourceVersion to watch from."""
        items: list[Object] = []
        query = [("limit", str(_PAGE))]
        while True:
            listed = await self._request("GET", collection(api_version, kind, namespace), query)
            items += listed.get("items", ())
            metadata = listed["metadata"]
            if not metadata.get("continue"):
                return items, str(metadata["resourceVersion"])
            query = [("limit", str(_PAGE)), ("continue", metadata["continue"])]

    async def watch(
        self, api_version: str, kind: str, namespace: str | None, resource_version: str
    ) -> AsyncIterator[tuple[str, Object]]:
        """Changes since a resourceVersion as (ADDED | MODIFIED | DELETED | BOOKMARK, object), for at most WATCH_S.

        Raises:
            ClusterError: 410 if the version is too old: list again.
        """
        query = [
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", resource_version),
            ("timeoutSeconds", str(WATCH_S)),
        ]
        path, headers = collection(api_version, kind, namespace), {"Accept": "application/json"}
        try:
            request = await self.client.param_serialize(
                "GET", path, query_params=query, header_params=headers, auth_settings=["BearerToken"]
            )
            reply = await self.client.call_api(*request, _request_timeout=WATCH_S + TIMEOUT_S)
            if reply.status >= 400:
                raise ClusterError(reply.status, _message(await reply.read()) or f"watch {path}: HTTP {reply.status}")
            try:
                async for line in reply.response.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise ClusterError(int(event["object"].get("code") or 0), str(event["object"].get("message")))
                    yield event["type"], event["object"]
            finally:
                reply.response.close()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise ClusterUnreachableError(f"the API server does not answer: {error or type(error).__name__}") from error

    async def warnings(self, namespace: str) -> list[Object] | None:
        """Warning events of a namespace; None if RBAC does not let the operator list them."""
        query = [("fieldSelector", "type=Warning"), ("resourceVersion", "0")]
        try:
            listed = await self._request("GET", collection("v1", "Event", namespace), query)
        except ClusterError as error:
            if error.code == FORBIDDEN:
                return None
            raise
        events: list[Object] = listed.get("items", [])
        return events

    async def may(self, verb: str, group: str, resource: str) -> bool:
        """Whether RBAC allows the operator a verb on a resource in the whole cluster."""
        version, kind = "authorization.k8s.io/v1", "SelfSubjectAccessReview"
        spec = {"resourceAttributes": {"verb": verb, "group": group, "resource": resource}}
        body = {"apiVersion": version, "kind": kind, "spec": spec}
        review = await self._request("POST", collection(version, kind, None), (), body)
        return bool(review["status"]["allowed"])

    async def delete(self, obj: Object) -> None:
        """Delete an object and its dependents; no error if it does not exist."""
        try:
            await self._request("DELETE", path_of(obj), [("propagationPolicy", "Background")])
        except ClusterError as error:
            if error.code != NOT_FOUND:
                raise

    async def post_event(self, event: Object) -> None:
        """Create an event."""
        await self._request("POST", collection("v1", "Event", event["metadata"]["namespace"]), (), event)

    async def _request(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]] = (),
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        headers = {"Accept": "application/json", "Content-Type": content_type}
        began, code = time.perf_counter(), 0
        try:
            request = await self.client.param_serialize(
                method, path, query_params=list(query), header_params=headers, body=body, auth_settings=["BearerToken"]
            )
            reply = await self.client.call_api(*request, _request_timeout=TIMEOUT_S)
            text = await reply.read()
            self._note_time(reply.headers.get("Date", ""))
            code = reply.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ClusterUnreachableError(f"the API server does not answer: {error or type(error).__name__}") from error
        finally:
            if self.on_request is not None:
                self.on_request(Request(*verb_and_resource(method, path), code, time.perf_counter() - began))
        if reply.status >= 400:
            raise ClusterError(reply.status, _message(text) or f"{method} {path}: HTTP {reply.status}")
        answer: Object = json.loads(text)
        return answer

    def _note_time(self, date: str) -> None:
        with suppress(ValueError):
            self.time = parsedate_to_datetime(date).timestamp()


def collection(api_version: str, kind: str, namespace: str | None) -> str:
    """URL path of a kind's collection in a namespace, or in the cluster."""
    root = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
    where = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}{where}/{_PLURALS[kind]}"


def verb_and_resource(method: str, path: str) -> tuple[str, str]:
    """RBAC's verb and resource of a request to one of the paths of this module."""
    match = _PATH.fullmatch(path)
    assert match is not None, path
    plural, name, subresource = match.groups()
    return _VERBS.get(method) or ("get" if name else "list"), f"{plural}{subresource or ''}"


def path_of(obj: Mapping[str, Any]) -> str:
    """URL path of an object."""
    metadata = obj["metadata"]
    return f"{collection(obj['apiVersion'], obj['kind'], metadata.get('namespace'))}/{metadata['name']}"


def _message(text: bytes) -> str:
    try:
        return str(json.loads(text).get("message", ""))
    except (ValueError, AttributeError):
        return text[:300].decode(errors="replace")
