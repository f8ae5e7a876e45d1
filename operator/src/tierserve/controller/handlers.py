"""Kopf handlers: watch events add keys to the work queue, indexes cache objects, the probe detects a stuck operator.

    kopf run --standalone -m tierserve.controller.handlers --all-namespaces --liveness=http://127.0.0.1:8080/healthz

No handler reconciles by itself, and none adds a finalizer: owned objects are garbage-collected with their owner, also
while no operator runs. All handlers are coroutines: Kopf runs plain functions in threads, and the queue belongs to the
event loop.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterable, Mapping
from typing import Any

import kopf
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient
from prometheus_client import start_http_server

from tierserve.api.v1alpha1.deployment import GROUP, PLURAL, VERSION
from tierserve.controller.logs import JsonLines
from tierserve.controller.metrics import Metrics
from tierserve.controller.reconciler import Reconciler
from tierserve.controller.settings import OperatorSettings, from_environment
from tierserve.controller.workqueue import Key, WorkQueue
from tierserve.observe.agents import AgentReader
from tierserve.render.kubernetes.metadata import DEPLOYMENT, MANAGER
from tierserve.runtime.kubernetes.apply import KubeRuntime
from tierserve.runtime.kubernetes.client import Cluster, ClusterError

log = logging.getLogger("tierserve")
OURS: dict[str, Any] = {DEPLOYMENT: kopf.PRESENT, "app.kubernetes.io/managed-by": MANAGER}
_SPEC_IDENTITY = ("uid", "generation", "deletionTimestamp", "labels", "annotations")
"""Metadata that changes with the spec or its labels; a write of the status changes only the resourceVersion."""


class Operator:
    """State of the process: the API client, the caches, the work queue and its task."""

    def __init__(self, settings: OperatorSettings, services: Any, children: Iterable[Any]) -> None:
        self.settings, self.services, self.children = settings, services, tuple(children)
        self.metrics = Metrics()
        self.client = ApiClient()
        self.agents = AgentReader()
        self.cluster = Cluster(self.client, on_request=self.metrics.requested)
        runtime = KubeRuntime(self.cluster, settings.kube, self.cached_children, self.agents)
        reconciler = Reconciler(self.read, self.cluster, runtime, self.metrics, resync_s=settings.resync_period)
        self.queue = WorkQueue(reconciler)
        self.metrics.watch_queue(self.queue.depth)
        self._identities: dict[Key, list[Any]] = {}
        self.task = asyncio.create_task(self.queue.run())

    def resource_changed(self, key: Key, metadata: Mapping[str, Any], *, deleted: bool) -> None:
        """Add a resource to the queue if its spec or labels changed or it is deleted, not if only its status did."""
        identity = [metadata.get(name) for name in _SPEC_IDENTITY]
        if not deleted and self._identities.get(key) == identity:
            return
        if deleted:
            self._identities.pop(key, None)
        else:
            self._identities[key] = identity
        self.queue.add(key)

    def read(self, key: Key) -> Mapping[str, Any] | None:
        """The resource from the watch cache, None if it is deleted."""
        resource: Mapping[str, Any] | None = next(iter(self.services.get(key, ())), None)
        return resource

    def cached_children(self, namespace: str, name: str) -> list[dict[str, Any]]:
        """RayServices and Deployments of a GenAIDeployment from the watch cache."""
        return [child for index in self.children for child in index.get((namespace, name), ())]

    async def close(self) -> None:
        """Stop the queue and close connections; nothing in the cluster is changed."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.agents.close()
        await self.client.close()


@kopf.on.startup()
async def start(*, memo: Any, settings: kopf.OperatorSettings, **indexes: Any) -> None:
    """Connect to the API server and start the work queue; invalid settings end the operator."""
    try:
        own = from_environment()
    except ValueError as error:
        # SystemExit, because Kopf would retry any other exception for ever or bury the message under tracebacks.
        raise SystemExit(f"tierserve operator: {error}") from None
    if own.log_format == "json":
        _log_as_json()
    settings.posting.enabled = False  # the reconciler posts events, on transitions only
    settings.networking.request_timeout = 60  # Kopf's own is 5 min, in which a lost connection goes unnoticed
    settings.watching.server_timeout = 300  # the API server rejects fractions of a second
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    await _login()
    memo.operator = operator = Operator(own, indexes["services"], (indexes["ray_services"], indexes["gateways"]))
    # Kopf lists namespaces and watches CRDs. Without cluster-wide RBAC (`watchNamespaces` of the chart) it would retry
    # that for 54 s before it watches its namespaces.
    settings.scanning.disabled = not await _may_watch_crds(operator.cluster)
    if own.metrics_port:
        address = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104 (scraped from other pods)
        start_http_server(own.metrics_port, address, registry=operator.metrics.registry)
    log.info(
        "started", extra={"fields": {"serving_image": own.kube.serving_image, "resync_period_s": own.resync_period}}
    )


@kopf.on.cleanup()
async def stop(memo: kopf.Memo, **_: Any) -> None:
    """Stop the operator; replicas and gateways keep serving."""
    if "operator" in memo:
        await memo.operator.close()


@kopf.index(GROUP, VERSION, PLURAL)
async def services(body: kopf.Body, namespace: str | None, name: str | None, **_: Any) -> dict[Any, dict[str, Any]]:
    """Index of GenAIDeployments by namespace and name."""
    return {(namespace, name): dict(body)}


@kopf.index("ray.io", "v1", "rayservices", labels=OURS)
async def ray_services(body: kopf.Body, namespace: str | None, labels: Any, **_: Any) -> dict[Any, dict[str, Any]]:
    """Index of RayServices by the GenAIDeployment that owns them."""
    return {(namespace, labels[DEPLOYMENT]): {"apiVersion": "ray.io/v1", "kind": "RayService", **body}}


@kopf.index("apps", "v1", "deployments", labels=OURS)
async def gateways(body: kopf.Body, namespace: str | None, labels: Any, **_: Any) -> dict[Any, dict[str, Any]]:
    """Index of gateway Deployments by the GenAIDeployment that owns them."""
    return {(namespace, labels[DEPLOYMENT]): {"apiVersion": "apps/v1", "kind": "Deployment", **body}}


@kopf.on.event(GROUP, VERSION, PLURAL)
async def service_changed(
    memo: kopf.Memo, namespace: str | None, name: str, meta: Any, event: Mapping[str, Any], **_: Any
) -> None:
    """Add a GenAIDeployment that changed or is deleted to the queue."""
    memo.operator.resource_changed((str(namespace), name), meta, deleted=event.get("type") == "DELETED")


@kopf.on.event("ray.io", "v1", "rayservices", labels=OURS)
@kopf.on.event("apps", "v1", "deployments", labels=OURS)
async def child_changed(memo: kopf.Memo, namespace: str | None, labels: Mapping[str, str], **_: Any) -> None:
    """Add the GenAIDeployment that owns the object to the queue."""
    memo.operator.queue.add((namespace, labels[DEPLOYMENT]))


@kopf.on.probe(id="idle_seconds")
async def probe(memo: kopf.Memo, **_: Any) -> float:
    """Liveness probe: seconds for which a completed reconcile has been overdue; fails after `livenessStaleAfter`."""
    operator: Operator = memo.operator
    if operator.task.done():
        raise kopf.PermanentError("the work queue has stopped")
    idle_s = operator.queue.idle_s
    if idle_s > operator.settings.liveness_stale_after:
        raise kopf.PermanentError(f"no successful reconcile for {idle_s:.0f} s")
    return round(idle_s, 1)


async def _login() -> None:
    """Log in with the pod's service account, else with the kubeconfig."""
    try:
        config.load_incluster_config()
    except config.ConfigException:
        await config.load_kube_config()


async def _may_watch_crds(cluster: Cluster) -> bool:
    try:
        return await cluster.may("watch", "apiextensions.k8s.io", "customresourcedefinitions")
    except ClusterError:  # the API server does not answer yet: Kopf retries by itself
        return True


def _log_as_json() -> None:
    for handler in logging.getLogger().handlers:
        handler.setFormatter(JsonLines())
