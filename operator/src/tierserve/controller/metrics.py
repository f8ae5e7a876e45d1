"""The operator's Prometheus metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tierserve.controller.usage_metrics import UsageMetrics
from tierserve.runtime.kubernetes.client import ClusterError, ClusterUnreachableError, Request

_REASONS = {
    400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 422: "Invalid",
    429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout",
}  # fmt: skip
"""Reasons of the API server's errors, by the names of Kubernetes' `metav1.StatusReason`."""


class Metrics:
    """The operator's metrics in a registry of their own."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        own: Any = {"registry": self.registry}
        resource = ("namespace", "name")
        self.reconciles = Counter(
            "tierserve_reconcile", "Reconciles of a GenAIDeployment, by result.", ("result",), **own
        )
        self.errors = Counter(
            "tierserve_reconcile_errors", "Failed reconciles, by the reason of the error.", ("reason",), **own
        )
        self.queue_depth = Gauge(
            "tierserve_operator_queue_depth", "GenAIDeployments that are due and wait for a worker.", **own
        )
        self._requests = Counter(
            "tierserve_operator_api_requests",
            "Requests to the API server, without Kopf's own; a request without an answer has the code `<error>`.",
            ("verb", "resource", "code"), **own,
        )  # fmt: skip
        self._request_duration = Histogram(
            "tierserve_operator_api_request_duration_seconds",
            "Time until the API server has answered, or failed to within the timeout.", ("verb", "resource"),
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0), **own,
        )  # fmt: skip
        self.duration = Histogram(
            "tierserve_reconcile_duration_seconds", "Duration of a reconcile in seconds.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0), **own,
        )  # fmt: skip
        self.last_success = Gauge(
            "tierserve_reconcile_last_success_timestamp_seconds", "Unix time of the last successful reconcile.", **own
        )
        self.condition = Gauge(
            "tierserve_deployment_condition", "Condition of a GenAIDeployment: 1 if True, 0 if False, NaN if Unknown.",
            (*resource, "condition"), **own,
        )  # fmt: skip
        pool = (*resource, "pool")
        self.replicas = Gauge("tierserve_pool_replicas", "Running replicas of a pool.", pool, **own)
        self.desired = Gauge("tierserve_pool_replicas_desired", "Desired replicas of a pool.", pool, **own)
        self.downloaded = Gauge(
            "tierserve_pool_download_done_bytes", "Bytes of the models that nodes of a pool have downloaded so far.",
            pool, **own,
        )  # fmt: skip
        self.download = Gauge(
            "tierserve_pool_download_total_bytes", "Bytes of the downloads in progress at nodes of a pool.", pool, **own
        )
        self.saving = Gauge(
            "tierserve_deployment_recommended_saving_ratio", "Saving of the recommendation of objective.optimize.",
            resource, **own,
        )  # fmt: skip
        self.usage = UsageMetrics(self.registry)
        self._pools: dict[tuple[str, str], set[str]] = {}

    def watch_queue(self, depth: Callable[[], int]) -> None:
        """Read the depth of the work queue at each scrape, from another thread than the queue's."""
        self.queue_depth.set_function(depth)

    def failed(self, error: Exception) -> None:
        """Count a failed reconcile."""
        self.reconciles.labels("error").inc()
        self.errors.labels(reason_of(error)).inc()

    def requested(self, request: Request) -> None:
        """Count a request to the API server."""
        code = str(request.code) if request.code else "<error>"  # as client-go's rest_client_requests_total
        self._requests.labels(request.verb, request.resource, code).inc()
        self._request_duration.labels(request.verb, request.resource).observe(request.duration_s)

    def update(self, namespace: str, name: str, status: Mapping[str, Any], now: float) -> None:
        """Set the gauges of a GenAIDeployment from its status at a monotonic time; unknown values are NaN."""
        values = {"True": 1.0, "False": 0.0}
        for condition in status.get("conditions", ()):
            gauge = self.condition.labels(namespace, name, condition["type"])
            gauge.set(values.get(condition["status"], float("nan")))
        pools = {pool["pool"]: pool for pool in status.get("pools", ())}
        for removed in self._pools.get((namespace, name), set()) - pools.keys():
            self._drop(namespace, name, removed)
        for pool, entry in pools.items():
            self.replicas.labels(namespace, name, pool).set(_number(entry.get("running")))
            self.desired.labels(namespace, name, pool).set(_number(entry.get("desired")))
            self._show_download((namespace, name, pool), entry.get("download"))
            self.usage.update((namespace, name, pool), entry, now)
        self._pools[namespace, name] = set(pools)
        if status.get("recommendation"):
            self.saving.labels(namespace, name).set(status["recommendation"]["saving"])
        else:
            self.saving.remove(namespace, name)

    def _show_download(self, labels: tuple[str, str, str], download: Mapping[str, Any] | None) -> None:
        for gauge, field in ((self.downloaded, "doneBytes"), (self.download, "totalBytes")):
            if download:
                gauge.labels(*labels).set(download[field])
            else:  # nothing is downloaded, which is not a download of nothing
                gauge.remove(*labels)

    def forget(self, namespace: str, name: str) -> None:
        """Remove the series of a deleted GenAIDeployment."""
        for pool in self._pools.pop((namespace, name), set()):
            self._drop(namespace, name, pool)
        self.condition.remove_by_labels({"namespace": namespace, "name": name})
        self.saving.remove(namespace, name)

    def _drop(self, namespace: str, name: str, pool: str) -> None:
        for gauge in (self.replicas, self.desired, self.downloaded, self.download):
            gauge.remove(namespace, name, pool)
        self.usage.drop((namespace, name, pool))


def reason_of(error: Exception) -> str:
    """Reason of a failed reconcile; `Unexpected` if neither the API server nor the connection to it is at fault."""
    if isinstance(error, ClusterUnreachableError):
        return "Unreachable"
    if isinstance(error, ClusterError):
        return _REASONS.get(error.code, "Other")
    return "Unexpected"


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
