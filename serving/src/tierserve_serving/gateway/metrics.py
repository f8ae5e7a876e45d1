"""Prometheus metrics of the gateway, updated from the access log and from each poll of HAProxy."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tierserve_serving.gateway.access_log import RequestRecord
from tierserve_serving.gateway.admin import PoolState
from tierserve_serving.gateway.agent_config import AgentPool

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 30.0, 60.0, 120.0)
QUEUE_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class GatewayMetrics:
    """Metrics registry. All series have the labels pool and tier, histograms also class, durations also code."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        by_pool = ("pool", "tier")
        by_code = (*by_pool, "class", "code")
        self._duration = Histogram(
            "tierserve_gateway_request_duration_seconds",
            "Response time, from the first byte of the request to the last byte of the response.",
            by_code,
            registry=self.registry,
            buckets=BUCKETS,
        )
        self._queue = Histogram(
            "tierserve_gateway_queue_seconds",
            "Time in the gateway's queue.",
            (*by_pool, "class"),
            registry=self.registry,
            buckets=QUEUE_BUCKETS,
        )
        self._requests = Counter("tierserve_gateway_requests", "Finished requests.", by_code, registry=self.registry)
        self._retries = Counter("tierserve_gateway_retries", "Retries of requests.", by_pool, registry=self.registry)
        self._aborted = Counter(
            "tierserve_gateway_aborted", "Requests whose client disconnected.", by_pool, registry=self.registry
        )
        self._malformed = Counter(
            "tierserve_gateway_malformed_log_lines", "Log lines that could not be parsed.", registry=self.registry
        )
        self._offered = Counter(
            "tierserve_gateway_offered",
            "Requests offered to the pool, including those that overflowed to another tier because it was full.",
            by_pool,
            registry=self.registry,
        )
        self._in_flight = self._gauge("in_flight", "Requests at the pool, without queued ones.")
        self._queued = self._gauge("queued", "Requests in the gateway's queue of the pool.")
        self._limit = self._gauge("max_in_flight", "Limit of in_flight: running replicas x slots.")
        self._slots = self._gauge("slots", "Concurrent requests per replica.")
        self._up = self._gauge("up", "1 if the pool is up, or scaled to zero with its queue open.")
        self._decision_age = self._gauge("decision_age_seconds", "Age of the pool's last scaling decision.")
        self._by_pool = (
            self._duration, self._queue, self._requests, self._retries, self._aborted, self._offered, self._in_flight,
            self._queued, self._limit, self._slots, self._up, self._decision_age,
        )  # fmt: skip
        self._known: set[tuple[str, str]] = set()
        self._offered_seen: dict[str, float] = {}
        self._malformed_seen = 0

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"tierserve_gateway_{name}", text, ("pool", "tier"), registry=self.registry)

    def configure(self, pools: Iterable[AgentPool]) -> None:
        """Removes all series of removed pools, for which alerts would fire otherwise."""
        current = {(pool.name, pool.tier) for pool in pools}
        for name, tier in self._known - current:
            for metric in self._by_pool:
                metric.remove_by_labels({"pool": name, "tier": tier})
            self._offered_seen.pop(name, None)
        self._known = current

    def record(self, record: RequestRecord, tier: str) -> None:
        """Counts one finished request."""
        labels = (record.pool, tier, record.cls, str(record.code))
        self._requests.labels(*labels).inc()
        if record.aborted:
            # The duration of an aborted request is no response time.
            self._aborted.labels(record.pool, tier).inc()
        else:
            self._duration.labels(*labels).observe(record.duration_s)
        if record.queue_s is not None:
            self._queue.labels(*labels[:3]).observe(record.queue_s)
        if record.retries:
            self._retries.labels(record.pool, tier).inc(record.retries)

    def update(self, pool: AgentPool, state: PoolState | None, offered: float, decision_age_s: float | None) -> None:
        """Sets the gauges of one pool; with `state` None (HAProxy does not respond) the pool is not up."""
        labels = (pool.name, pool.tier)
        self._slots.labels(*labels).set(pool.slots)
        self._up.labels(*labels).set(state is not None and (state.up or state.start_s > 0))
        if state is None:  # missing data is neither zero nor the last value
            for gauge in (self._in_flight, self._queued, self._limit):
                gauge.remove(*labels)
        else:
            self._in_flight.labels(*labels).set(state.in_flight)
            self._queued.labels(*labels).set(state.queued)
            self._limit.labels(*labels).set(0 if state.drained else state.max_in_flight)
        if decision_age_s is not None:
            self._decision_age.labels(*labels).set(decision_age_s)
        self._offered.labels(*labels).inc(max(0.0, offered - self._offered_seen.get(pool.name, 0.0)))
        self._offered_seen[pool.name] = offered

    def malformed(self, total: int) -> None:
        """Sets the total count of log lines that could not be parsed."""
        self._malformed.inc(total - self._malformed_seen)
        self._malformed_seen = total

    def text(self) -> bytes:
        """Exposition in Prometheus' text format."""
        return generate_latest(self.registry)
