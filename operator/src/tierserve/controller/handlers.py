"""Kopf's wiring: watch events add keys to the work queue, indexes hold the objects, the probe detects a stuck operator.

    kopf run --standalone -m tierserve.controller.handlers --all-namespaces --liveness=http://127.0.0.1:8080/healthz

No handler does work of its own and none adds a finalizer: objects go with their owner, also when no operator runs.
All handlers are coroutines: Kopf runs plain functions in threads, and the queue belongs to the event loop.
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
from tierserve.controller.reconciler import ServicePass
from tierserve.controller.settings import OperatorSettings, from_environment
from tierserve.controller.workqueue import Controller, Key
from tierserve.observe.agents import AgentReader
from tierserve.render.kubernetes.metadata import DEPLOYMENT, MANAGER
from tierserve.runtime.kubernetes.apply import KubeRuntime
from tierserve.runtime.kubernetes.client import Cluster, ClusterError

log = logging.getLogger("tierserve")
OURS: dict[str, Any] = {DEPLOYMENT: kopf.PRESENT, "app.kubernetes.io/managed-by": MANAGER}
_SPEC_IDENTITY = ("uid", "generation", "deletionTimestamp", "labels", "annotations")
"""Metadata that changes with what is asked for: a write of the status changes only the resourceVersion."""


class Operator:
    """What lives as long as the process: the client, the controller and its task."""

    def __init__(self, settings: OperatorSettings, services: Any, children: Iterable[Any]) -> None:
        self.settings, self.services, self.children = settings, services, tuple(children)
        self.metrics = Metrics()
        self.client = ApiClient()
        self.agents = AgentReader()
        runtime = KubeRuntime(Cluster(self.client), settings.kube, self.live, self.agents)
        one_pass = ServicePass(self.read, runtime.cluster, runtime, self.metrics, resync_s=settings.resync_period)
        self.controller = Controller(one_pass)
        self._identities: dict[Key, list[Any]] = {}
        self.task = asyncio.create_task(self.controller.run())

    def resource_changed(self, key: Key, metadata: Mapping[str, Any], *, deleted: bool) -> None:
        """Reconcile a resource if its spec, labels or existence changed, and not because its status was written."""
        identity = [metadata.get(name) for name in _SPEC_IDENTITY]
        if not deleted and self._identities.get(key) == identity:
            return
        if deleted:
            self._identities.pop(key, None)
        else:
            self._identities[key] = identity
        self.controller.wake(key)

    def read(self, key: Key) -> Mapping[str, Any] | None:
        """The resource as the watch last saw it."""
        found: Mapping[str, Any] | None = next(iter(self.services.get(key, ())), None)
        return found

    def live(self, namespace: str, name: str) -> list[dict[str, Any]]:
        """Objects of a service as the watches last saw them."""
        return [one for index in self.children for one in index.get((namespace, name), ())]

    async def close(self) -> None:
        """End the controller; what runs in the cluster goes on."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.agents.close()
        await self.client.close()


@kopf.on.startup()
async def start(*, memo: Any, settings: kopf.OperatorSettings, **indexes: Any) -> None:
    """Connect to the API server and start the work queue; settings that cannot be used end the operator."""
    try:
        own = from_environment()
    except ValueError as error:
        # Not an exception that Kopf handles: it would start again for ever, or bury the message under tracebacks.
        raise SystemExit(f"tierserve operator: {error}") from None
    if own.log_format == "json":
        _log_as_json()
    settings.posting.enabled = False  # events are posted on transitions, by the pass itself
    settings.networking.request_timeout = 60
    settings.watching.server_timeout = 300  # whole seconds, or the API server refuses
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    await _login()
    memo.operator = operator = Operator(own, indexes["services"], (indexes["ray_services"], indexes["gateways"]))
    # Kopf lists namespaces and watches CRDs. Without rights in the cluster (`watchNamespaces` of the chart) it would
    # try that for 54 s before it turns to the namespaces that it is given.
    settings.scanning.disabled = not await _may_watch_crds(Cluster(operator.client))
    if own.metrics_port:
        address = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104 (scraped from other pods)
        start_http_server(own.metrics_port, address, registry=operator.metrics.registry)
    log.info(
        "started", extra={"fields": {"serving_image": own.kube.serving_image, "resync_period_s": own.resync_period}}
    )


@kopf.on.cleanup()
async def stop(memo: kopf.Memo, **_: Any) -> None:
    """End cleanly; nothing that serves is touched."""
    if "operator" in memo:
        await memo.operator.close()


@kopf.index(GROUP, VERSION, PLURAL)
async def services(body: kopf.Body, namespace: str | None, name: str | None, **_: Any) -> dict[Any, dict[str, Any]]:
    """Every GenAIDeployment by namespace and name."""
    return {(namespace, name): dict(body)}


@kopf.index("ray.io", "v1", "rayservices", labels=OURS)
async def ray_services(body: kopf.Body, namespace: str | None, labels: Any, **_: Any) -> dict[Any, dict[str, Any]]:
    """RayServices by the service they belong to."""
    return {(namespace, labels[DEPLOYMENT]): {"apiVersion": "ray.io/v1", "kind": "RayService", **body}}


@kopf.index("apps", "v1", "deployments", labels=OURS)
async def gateways(body: kopf.Body, namespace: str | None, labels: Any, **_: Any) -> dict[Any, dict[str, Any]]:
    """Gateway Deployments by the service they belong to."""
    return {(namespace, labels[DEPLOYMENT]): {"apiVersion": "apps/v1", "kind": "Deployment", **body}}


@kopf.on.event(GROUP, VERSION, PLURAL)
async def service_changed(
    memo: kopf.Memo, namespace: str | None, name: str, meta: Any, event: Mapping[str, Any], **_: Any
) -> None:
    """Add a GenAIDeployment whose spec changed, or that is deleted, to the queue."""
    memo.operator.resource_changed((str(namespace), name), meta, deleted=event.get("type") == "DELETED")


@kopf.on.event("ray.io", "v1", "rayservices", labels=OURS)
@kopf.on.event("apps", "v1", "deployments", labels=OURS)
async def child_changed(memo: kopf.Memo, namespace: str | None, labels: Mapping[str, str], **_: Any) -> None:
    """Add the GenAIDeployment that the object belongs to."""
    memo.operator.controller.wake((namespace, labels[DEPLOYMENT]))


@kopf.on.probe(id="idle_seconds")
async def probe(memo: kopf.Memo, **_: Any) -> float:
    """Seconds since a reconcile was last completed; too many, or a dead work queue, fail the liveness probe."""
    operator: Operator = memo.operator
    if operator.task.done():
        raise kopf.PermanentError("the work queue has ended")
    idle_s = operator.controller.idle_s
    if idle_s > operator.settings.liveness_stale_after:
        raise kopf.PermanentError(f"no reconcile was completed for {idle_s:.0f} s")
    return round(idle_s, 1)


async def _login() -> None:
    """The rights of the pod's service account, else of the kubeconfig."""
    try:
        config.load_incluster_config()
    except config.ConfigException:
        await config.load_kube_config()


async def _may_watch_crds(cluster: Cluster) -> bool:
    try:
        return await cluster.may("watch", "apiextensions.k8s.io", "customresourcedefinitions")
    except ClusterError:  # no answer yet: Kopf tries again by itself
        return True


def _log_as_json() -> None:
    for handler in logging.getLogger().handlers:
        handler.setFormatter(JsonLines())
