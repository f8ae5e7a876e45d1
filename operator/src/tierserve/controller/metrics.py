"""The operator's Prometheus metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """The operator's metrics in a registry of their own."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        own: Any = {"registry": self.registry}
        whose = ("namespace", "name")
        self.passes = Counter("tierserve_reconcile", "Passes over a service, by result", ("result",), **own)
        self.seconds = Histogram(
            "tierserve_reconcile_duration_seconds", "Time of a pass",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0), **own,
        )  # fmt: skip
        self.last = Gauge("tierserve_reconcile_last_success_timestamp_seconds", "End of the last good pass", **own)
        self.condition = Gauge(
            "tierserve_deployment_condition", "1 where the condition holds, 0 where not, NaN where unknown",
            (*whose, "condition"), **own,
        )  # fmt: skip
        self.replicas = Gauge("tierserve_pool_replicas", "Replicas that serve", (*whose, "pool"), **own)
        self.desired = Gauge("tierserve_pool_replicas_desired", "Desired replicas", (*whose, "pool"), **own)
        self._pools: dict[tuple[str, str], set[str]] = {}

    def show(self, namespace: str, name: str, status: Mapping[str, Any]) -> None:
        """Set the gauges of a service from its status; what is unknown is NaN."""
        values = {"True": 1.0, "False": 0.0}
        for condition in status.get("conditions", ()):
            gauge = self.condition.labels(namespace, name, condition["type"])
            gauge.set(values.get(condition["status"], float("nan")))
        pools = {pool["pool"]: pool for pool in status.get("pools", ())}
        for gone in self._pools.get((namespace, name), set()) - pools.keys():
            self._drop(namespace, name, gone)
        for pool, seen in pools.items():
            self.replicas.labels(namespace, name, pool).set(_number(seen.get("running")))
            self.desired.labels(namespace, name, pool).set(_number(seen.get("desired")))
        self._pools[namespace, name] = set(pools)

    def forget(self, namespace: str, name: str) -> None:
        """Remove the series of a service that is gone."""
        for pool in self._pools.pop((namespace, name), set()):
            self._drop(namespace, name, pool)
        self.condition.remove_by_labels({"namespace": namespace, "name": name})

    def _drop(self, namespace: str, name: str, pool: str) -> None:
        for gauge in (self.replicas, self.desired):
            gauge.remove(namespace, name, pool)


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
