"""Services of a cluster: GenAIDeployments, listed once and then watched. Only `list` and `watch` are requested."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

from kubernetes.aio import config
from kubernetes.aio.client import ApiClient

from tierserve.api.units import Duration
from tierserve.api.v1alpha1.deployment import API_VERSION, KIND
from tierserve.console.sources import Key, Service, SourceError
from tierserve.runtime.kubernetes.client import FORBIDDEN, GONE, NOT_FOUND, Cluster, ClusterError

log = logging.getLogger("tierserve.console")
_FIRST_RETRY_S, _LAST_RETRY_S = 1.0, 30.0
_HINTS = {
    NOT_FOUND: "install the CRD: kubectl apply -f crds/genaideployments.yaml",
    FORBIDDEN: "grant the verbs get, list and watch on genaideployments.serving.tierserve.io",
}
Document = Mapping[str, Any]


class ClusterSource:
    """GenAIDeployments of some namespaces, or of all; one watch for each."""

    kind: Literal["local", "kubernetes"] = "kubernetes"

    def __init__(self, client: ApiClient, namespaces: Sequence[str] = ()) -> None:
        self._client, self._cluster = client, Cluster(client)
        self._documents: dict[str | None, dict[Key, Document]] = {}
        self._errors: dict[str | None, str] = {}
        self._listed = asyncio.Event()
        self._tasks = [asyncio.create_task(self._follow(namespace)) for namespace in (namespaces or (None,))]

    @classmethod
    async def connected(cls, namespaces: Sequence[str] = (), context: str | None = None) -> ClusterSource:
        """With the service account of the pod, else with a context of the kubeconfig.

        Raises:
            SourceError: there is neither.
        """
        try:
            if context is None:
                try:
                    config.load_incluster_config()
                except config.ConfigException:
                    await config.load_kube_config()
            else:
                await config.load_kube_config(context=context)
        except (config.ConfigException, OSError) as error:
            raise SourceError(f"no access to a cluster: {error}") from error
        return cls(ApiClient(), namespaces)

    async def services(self) -> Sequence[Service]:
        """All services as the watches have them.

        Raises:
            SourceError: a watch is interrupted; with the services of the other namespaces, where there are any.
        """
        with suppress(TimeoutError):  # right after the start: the first list is under way
            async with asyncio.timeout(_FIRST_RETRY_S):
                await self._listed.wait()
        current = self._documents.keys() - self._errors.keys()
        if self._errors:
            # Of a namespace whose watch is interrupted the last known services are shown beside the error.
            known = [_service(one) for documents in self._documents.values() for one in documents.values()]
            raise SourceError("; ".join(dict.fromkeys(self._errors.values())), known if current else None)
        if not self._listed.is_set():
            raise SourceError("the first list of GenAIDeployments is not complete yet")
        return [_service(one) for documents in self._documents.values() for one in documents.values()]

    async def document(self, key: Key) -> Document | None:
        """The resource from the watch."""
        return next((documents[key] for documents in self._documents.values() if key in documents), None)

    async def close(self) -> None:
        """End the watches."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.close()

    async def _follow(self, namespace: str | None) -> None:
        """List, then watch, and again from the list after an error, with backoff."""
        delay_s = _FIRST_RETRY_S
        while True:
            try:
                version = await self._list(namespace)
                delay_s = _FIRST_RETRY_S
                while True:
                    version = await self._watch(namespace, version)
            except ClusterError as error:
                if error.code == GONE:  # the version is no longer in etcd: listed again at once
                    continue
                hint = _HINTS.get(error.code)
                self._errors[namespace] = f"{error}; hint: {hint}" if hint else str(error)
                log.warning("watch of GenAIDeployments in %s: %s", namespace or "all namespaces", error)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, _LAST_RETRY_S)

    async def _list(self, namespace: str | None) -> str:
        items, version = await self._cluster.list_all(API_VERSION, KIND, namespace)
        # Items of a list have no apiVersion and kind.
        documents = [_trimmed({"apiVersion": API_VERSION, "kind": KIND, **item}) for item in items]
        self._documents[namespace] = {_key(one): one for one in documents}
        self._errors.pop(namespace, None)
        if len(self._documents) == len(self._tasks):
            self._listed.set()
        return version

    async def _watch(self, namespace: str | None, version: str) -> str:
        """Take changes until the watch ends; the version that the next one continues from."""
        documents = self._documents[namespace]
        async for event, resource in self._cluster.watch(API_VERSION, KIND, namespace, version):
            version = str(resource["metadata"]["resourceVersion"])
            if event == "DELETED":
                documents.pop(_key(resource), None)
            elif event != "BOOKMARK":
                documents[_key(resource)] = _trimmed(resource)
        return version


def _key(resource: Document) -> Key:
    return resource["metadata"]["namespace"], resource["metadata"]["name"]


def _trimmed(resource: Document) -> Document:
    """Without managedFields and annotations, which are often larger than the rest."""
    metadata = {name: resource["metadata"][name] for name in ("namespace", "name")}
    return {**resource, "metadata": metadata}


def _service(resource: Document) -> Service:
    namespace, name = _key(resource)
    objective = ((resource.get("spec") or {}).get("objective") or {}).get("responseTime") or {}
    return Service(
        namespace,
        name,
        resource.get("status") or {},
        _seconds(objective.get("target")),
        objective.get("percentile"),
    )


def _seconds(duration: Any) -> float | None:
    try:
        return Duration(duration).value
    except (ValueError, TypeError):  # another version of the CRD
        return None
