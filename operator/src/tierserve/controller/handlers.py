"""Kopf's wiring: watches wake the controller, indexes hold what was seen, the probe tells a stuck operator.

    kopf run --standalone -m tierserve.controller.handlers --all-namespaces --liveness=http://127.0.0.1:8080/healthz

No handler does work of its own and none adds a finalizer: objects go with their owner, also when no operator runs.
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
from tierserve.controller.reconciler import ServicePass
from tierserve.controller.settings import OperatorSettings, from_environment
from tierserve.controller.telemetry import JsonLines, Metrics
from tierserve.controller.workqueue import Controller, Key
from tierserve.observe.agents import AgentReader
from tierserve.render.kubernetes.metadata import DEPLOYMENT, MANAGER
from tierserve.runtime.kubernetes.apply import KubeRuntime
from tierserve.runtime.kubernetes.client import Cluster, ClusterError

log = logging.getLogger("tierserve")
OURS: dict[str, Any] = {DEPLOYMENT: kopf.PRESENT, "app.kubernetes.io/managed-by": MANAGER}


class Operator:
    """What lives as long as the process: the client, the controller and its task."""

    def __init__(self, settings: OperatorSettings, services: Any, children: Iterable[Any]) -> None:
        self.settings, self.services, self.children = settings, services, tuple(children)
        self.metrics = Metrics()
        self.client = ApiClient()
        self.agents = AgentReader()
        runtime = KubeRuntime(Cluster(self.client), settings.kube, self.live, self.agents)
        one_pass = ServicePass(self.read, runtime.cluster, runtime, self.metrics)
        self.controller = Controller(one_pass, tick_s=settings.resync_period.value)
        self.task = asyncio.create_task(self.controller.run())

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
    """Connect and begin to keep appointments."""
    own = from_environment()
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
    log.info("started", extra={"fields": {"serving_image": own.kube.serving_image, "resync_period": own.resync_period}})


@kopf.on.cleanup()
async def stop(memo: kopf.Memo, **_: Any) -> None:
    """End cleanly; nothing that serves is touched."""
    if "operator" in memo:
        await memo.operator.close()


@kopf.index(GROUP, VERSION, PLURAL)
def services(body: kopf.Body, namespace: str | None, name: str | None, **_: Any) -> dict[Any, dict[str, Any]]:
    """Every GenAIDeployment by namespace and name."""
    return {(namespace, name): dict(body)}


@kopf.index("ray.io", "v1", "rayservices", labels=OURS)
def ray_services(body: kopf.Body, namespace: str | None, labels: Any, **_: Any) -> dict[Any, dict[str, Any]]:
    """RayServices by the service they belong to."""
    return {(namespace, labels[DEPLOYMENT]): {"apiVersion": "ray.io/v1", "kind": "RayService", **body}}


@kopf.index("apps", "v1", "deployments", labels=OURS)
def gateways(body: kopf.Body, namespace: str | None, labels: Any, **_: Any) -> dict[Any, dict[str, Any]]:
    """Gateway Deployments by the service they belong to."""
    return {(namespace, labels[DEPLOYMENT]): {"apiVersion": "apps/v1", "kind": "Deployment", **body}}


@kopf.on.event(GROUP, VERSION, PLURAL)
def service_changed(memo: kopf.Memo, namespace: str | None, name: str | None, **_: Any) -> None:
    """Wake the pass of a service."""
    memo.operator.controller.wake((namespace, name))


@kopf.on.event("ray.io", "v1", "rayservices", labels=OURS)
@kopf.on.event("apps", "v1", "deployments", labels=OURS)
def child_changed(memo: kopf.Memo, namespace: str | None, labels: Any, **_: Any) -> None:
    """Wake the pass of the service that the object belongs to."""
    memo.operator.controller.wake((namespace, labels[DEPLOYMENT]))


@kopf.on.probe(id="idle_seconds")
def probe(memo: kopf.Memo, **_: Any) -> float:
    """Seconds since the last good pass; too many, or a dead controller, fail the liveness probe."""
    operator: Operator = memo.operator
    if operator.task.done():
        raise kopf.PermanentError("the controller has ended")
    idle_s = operator.controller.idle_s
    if idle_s > operator.settings.liveness_stale_after.value:
        raise kopf.PermanentError(f"no pass went through for {idle_s:.0f} s")
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
