"""Reconciler of GenAIDeployments on a cluster: read the resource, reconcile it, write its status, post events."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from tierserve.api import GenAIDeployment, ValidationFailed, parse
from tierserve.controller.events import transitions
from tierserve.controller.metrics import Metrics
from tierserve.controller.workqueue import Key
from tierserve.reconcile import reconcile
from tierserve.runtime.kubernetes.apply import KubeRuntime
from tierserve.runtime.kubernetes.client import NOT_FOUND, Cluster, ClusterError
from tierserve.status.build import rejected, without_nulls
from tierserve.status.conditions import Status

log = logging.getLogger("tierserve")
_OWN = ("name", "namespace", "uid", "generation", "labels", "annotations")
PROGRESSING_S = 2.0
"""Seconds to the next reconcile while Progressing is True: replicas and gateway agents are polled, not watched."""


@dataclass(frozen=True, slots=True)
class Written:
    """The status that was last written: to the resource with this uid, at this time of the monotonic clock."""

    uid: str
    status: Status
    at: float


@dataclass(slots=True)
class Reconciler:
    """Callable of the work queue: reconciles a key, returns the seconds to its next resync, None if it is deleted.

    Attributes:
        read: returns the resource from the watch cache, None if it is deleted.
        resync_s: seconds between resyncs; figures in the status are written at most this often.
    """

    read: Callable[[Key], Mapping[str, Any] | None]
    cluster: Cluster
    runtime: KubeRuntime
    metrics: Metrics
    resync_s: float = 10.0
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    _parsed: dict[Key, tuple[tuple[Any, ...], GenAIDeployment]] = field(default_factory=dict)
    _written: dict[Key, Written] = field(default_factory=dict)

    async def __call__(self, key: Key) -> float | None:
        """Reconcile one resource.

        Raises:
            ClusterError: the API server does not answer or rejects the status.
        """
        began = time.perf_counter()
        resource = self.read(key)
        if resource is None or resource["metadata"].get("deletionTimestamp"):
            self._forget(key)
            return None
        try:
            status = await self._reconcile(key, resource)
        except Exception as error:
            self.metrics.failed(error)
            expected = isinstance(error, ClusterError)
            message = "reconcile of %s/%s failed: %s"
            log.error(message, *key, error or type(error).__name__, exc_info=None if expected else error)
            raise
        self.metrics.reconciles.labels("success").inc()
        self.metrics.duration.observe(time.perf_counter() - began)
        self.metrics.last_success.set(self.clock())
        return min(PROGRESSING_S, self.resync_s) if is_progressing(status) else self.resync_s

    async def _reconcile(self, key: Key, resource: Mapping[str, Any]) -> Status:
        began, uid = self.monotonic(), str(resource["metadata"].get("uid"))
        last = self._written.get(key)
        # The status that was written is newer than the one in the cache, unless that resource was deleted since.
        last = last if last is not None and last.uid == uid else None
        previous = last.status if last is not None else resource.get("status") or None
        try:
            status: Status = without_nulls(await reconcile(self._gaid(key, resource), self.runtime, previous))
        except ValidationFailed as error:
            status = without_nulls(rejected(resource, error.problems, self.clock(), previous))
        self.metrics.update(*key, status, self.monotonic())
        if not self._is_due(last, previous, status, began):
            return status
        try:
            await self.cluster.apply_status(resource, status)
        except ClusterError as error:
            if error.code == NOT_FOUND:  # deleted during the reconcile
                return status
            raise
        self._written[key] = Written(uid, status, began)
        await self._post_transitions(key, resource, previous, status)
        return status

    def _is_due(self, last: Written | None, previous: Status | None, status: Status, now: float) -> bool:
        """Whether the status is to be written: at once if a condition changed, figures once per resync period."""
        if previous is None or significant(previous) != significant(status):
            return True
        return previous != status and (last is None or now - last.at >= self.resync_s)

    async def _post_transitions(
        self, key: Key, resource: Mapping[str, Any], previous: Status | None, status: Status
    ) -> None:
        for event in transitions(resource, previous, status):
            log.info(event["message"], extra={"fields": {"service": "/".join(key), "reason": event["reason"]}})
            await self._post(event)

    async def _post(self, event: dict[str, Any]) -> None:
        try:
            await self.cluster.post_event(event)
        except ClusterError as error:
            log.warning("posting the event failed: %s", error)

    def _gaid(self, key: Key, resource: Mapping[str, Any]) -> GenAIDeployment:
        """The resource as a value, parsed again only if its spec, labels or annotations changed."""
        metadata = resource["metadata"]
        # Labels and annotations do not change the generation, and are copied to objects and pods.
        version = tuple(metadata.get(key) for key in ("uid", "generation", "labels", "annotations"))
        parsed = self._parsed.get(key)
        if parsed is None or parsed[0] != version:
            document = {**resource, "metadata": {k: metadata[k] for k in _OWN if k in metadata}}
            document.pop("status", None)
            parsed = self._parsed[key] = (version, _value(document))
        return parsed[1]

    def _forget(self, key: Key) -> None:
        self._parsed.pop(key, None)
        self._written.pop(key, None)
        self.runtime.forget(*key)
        self.metrics.forget(*key)


def _value(document: Mapping[str, Any]) -> GenAIDeployment:
    """Parse a resource that the API server has validated; if that fails, validate it again for the error messages."""
    try:
        return GenAIDeployment.model_validate(document)
    except ValidationError:
        return parse(document)


def is_progressing(status: Mapping[str, Any]) -> bool:
    """Whether the condition Progressing is True."""
    return any((c["type"], c["status"]) == ("Progressing", "True") for c in status.get("conditions", ()))


def significant(status: Mapping[str, Any]) -> tuple[Any, ...]:
    """The part of a status that is written at once: observed generation, status and reason of each condition."""
    conditions = ((c["type"], c["status"], c.get("reason")) for c in status.get("conditions", ()))
    return status.get("observedGeneration"), tuple(sorted(conditions))
