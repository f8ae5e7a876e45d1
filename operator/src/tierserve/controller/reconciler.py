"""One pass over one service on a cluster: read it, reconcile, write the status, tell what has changed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from tierserve.api import GenAIDeployment, ValidationFailed, parse
from tierserve.controller.telemetry import Metrics, transitions
from tierserve.controller.workqueue import Key
from tierserve.reconcile import reconcile_on_cluster
from tierserve.runtime.kubernetes.apply import KubeRuntime
from tierserve.runtime.kubernetes.client import NOT_FOUND, Cluster, ClusterError
from tierserve.status.build import Status, known, refused

log = logging.getLogger("tierserve")
_OWN = ("name", "namespace", "uid", "generation", "labels", "annotations")


@dataclass(slots=True)
class ServicePass:
    """Callable for the controller: True while the service is there.

    Attributes:
        read: the resource as the watch last saw it, None if it is gone.
    """

    read: Callable[[Key], Mapping[str, Any] | None]
    cluster: Cluster
    runtime: KubeRuntime
    metrics: Metrics
    clock: Callable[[], float] = time.time
    _parsed: dict[Key, tuple[tuple[Any, ...], GenAIDeployment]] = field(default_factory=dict)
    _written: dict[Key, tuple[str, Status]] = field(default_factory=dict)

    async def __call__(self, key: Key) -> bool:
        """Look at one service.

        Raises:
            ClusterError: the cluster does not answer or does not take the status.
        """
        began = time.perf_counter()
        resource = self.read(key)
        if resource is None or resource["metadata"].get("deletionTimestamp"):
            self._forget(key)
            return False
        try:
            await self._reconcile(key, resource)
        except Exception as error:
            self.metrics.passes.labels("error").inc()
            known = isinstance(error, ClusterError)
            log.error("%s/%s: %s", *key, error or type(error).__name__, exc_info=None if known else error)
            raise
        self.metrics.passes.labels("success").inc()
        self.metrics.seconds.observe(time.perf_counter() - began)
        self.metrics.last.set(self.clock())
        return True

    async def _reconcile(self, key: Key, resource: Mapping[str, Any]) -> None:
        uid, before = self._written.get(key, ("", None))
        # What was written is newer than what the watch has seen, unless it was written to one that is gone.
        previous = before if before and uid == resource["metadata"].get("uid") else resource.get("status") or None
        try:
            status = known(await reconcile_on_cluster(self._gaid(key, resource), self.runtime, previous))
        except ValidationFailed as error:
            status = known(refused(resource, error.problems, self.clock(), previous))
        self.metrics.show(*key, status)
        if previous is not None and still(previous) == still(status):
            return
        try:
            await self.cluster.apply_status(resource, status)
        except ClusterError as error:
            if error.code == NOT_FOUND:  # deleted meanwhile
                return
            raise
        self._written[key] = str(resource["metadata"].get("uid")), status
        for event in transitions(resource, previous, status):
            log.info(event["message"], extra={"fields": {"service": "/".join(key), "reason": event["reason"]}})
            await self._post(event)

    async def _post(self, event: dict[str, Any]) -> None:
        try:
            await self.cluster.post_event(event)
        except ClusterError as error:
            log.warning("no event could be posted: %s", error)

    def _gaid(self, key: Key, resource: Mapping[str, Any]) -> GenAIDeployment:
        """The resource as a value; read again only when its spec or identity has changed."""
        metadata = resource["metadata"]
        # Labels and annotations have no generation, and are passed on to objects and pods.
        version = tuple(metadata.get(key) for key in ("uid", "generation", "labels", "annotations"))
        found = self._parsed.get(key)
        if found is None or found[0] != version:
            document = {**resource, "metadata": {k: metadata[k] for k in _OWN if k in metadata}}
            document.pop("status", None)
            found = self._parsed[key] = (version, _value(document))
        return found[1]

    def _forget(self, key: Key) -> None:
        self._parsed.pop(key, None)
        self._written.pop(key, None)
        self.runtime.forget(*key)
        self.metrics.forget(*key)


def _value(document: Mapping[str, Any]) -> GenAIDeployment:
    """The API server has checked the rules already; only what it let through all the same is checked with words."""
    try:
        return GenAIDeployment.model_validate(document)
    except ValidationError:
        return parse(document)


def still(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """The status without what moves though nothing happens: the times of decisions and samples."""
    pools = [{**pool, "decision": _without_time(pool.get("decision") or {})} for pool in status.get("pools", ())]
    return {**status, "pools": pools}


def _without_time(decision: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in decision.items() if name != "t"}
