"""Prometheus metrics of the gateway, updated from the access log, each poll of HAProxy and each scaling decision."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tierserve_serving.gateway.access_log import RequestRecord
from tierserve_serving.gateway.admin import PoolState
from tierserve_serving.gateway.agent_config import AgentPool
from tierserve_serving.semconv import (
    ATTRIBUTES,
    ERROR,
    REQUEST_DURATION,
    TIME_TO_FIRST_TOKEN,
    SemanticHistogram,
    attributes,
)

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 30.0, 60.0, 120.0)
QUEUE_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
DECISION = {
    "arrival_rate": ("lambda", "Arrivals per second in the pool's last scaling decision (lambda)."),
    "service_seconds": ("service_s", "Mean service time in the last scaling decision (1/mu)."),
    "servers": ("servers", "Slots of the desired replicas (c)."),
    "offered_load_erlangs": ("offered_load", "Offered load in erlangs (lambda / mu)."),
    "utilisation_ratio": ("rho", "Carried load over servers, at most 1."),
    "offered_load_ratio": ("offered_load_ratio", "Offered load over servers; above 1 it exceeds the capacity."),
    "wait_probability": ("p_wait", "Probability that a request waits."),
    "predicted_response_seconds": ("predicted_p95_s", "Predicted response time at the percentile of the objective."),
    "target_response_seconds": ("target_s", "Target of the response time at that percentile, without the network."),
    "replicas_desired": ("replicas", "Desired replicas."),
    "replicas_running": ("running", "Running replicas."),
    "stale": ("stale", "1 while the target is held without metrics."),
}
"""Gauges `tierserve_policy_*`: the field of the decision, and the help text."""
_AT_MAXIMUM = "max_replicas"


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
        self._not_after = Gauge(
            "tierserve_gateway_certificate_not_after_timestamp_seconds",
            "Unix time at which the gateway's certificate, or one of its issuers in the same file, expires.",
            registry=None,  # a gauge without labels always has a value: registered while there is a certificate
        )
        self._has_certificate = False
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
        self._responses = Counter(
            "tierserve_gateway_responses",
            "Responses that count for the objective: status below 400, or 503 and 504 for want of a slot in time.",
            by_pool,
            registry=self.registry,
        )
        self._late = Counter(
            "tierserve_gateway_late_responses",
            "Responses that missed the target of the response time.",
            by_pool,
            registry=self.registry,
        )
        self._first_byte = Histogram(
            "tierserve_gateway_first_byte_seconds",
            "Time to the first byte of the response, which of a stream comes with the first token.",
            (*by_pool, "class"),
            registry=self.registry,
            buckets=BUCKETS,
        )
        self._semantic_duration = self._semantic(REQUEST_DURATION, ERROR)
        self._semantic_first_token = self._semantic(TIME_TO_FIRST_TOKEN)
        self._policy = {name: self._gauge(name, text, "policy") for name, (_, text) in DECISION.items()}
        self._at_maximum = self._gauge(
            "at_maximum", "1 if the pool has its maximum of replicas and requires more.", "policy"
        )
        self._by_pool = (
            self._responses, self._late, self._first_byte, *self._policy.values(), self._at_maximum,
            self._semantic_duration, self._semantic_first_token,
            self._duration, self._queue, self._requests, self._retries, self._aborted, self._offered, self._in_flight,
            self._queued, self._limit, self._slots, self._up, self._decision_age,
        )  # fmt: skip
        self._known: set[tuple[str, str]] = set()
        self._counted: dict[tuple[Counter, str], float] = {}
        self._malformed_seen = 0

    def _gauge(self, name: str, text: str, of: str = "gateway") -> Gauge:
        return Gauge(f"tierserve_{of}_{name}", text, ("pool", "tier"), registry=self.registry)

    def _semantic(self, of: SemanticHistogram, *more: str) -> Histogram:
        labels = ("pool", "tier", *ATTRIBUTES, *more)
        return Histogram(of.name, of.text, labels, registry=self.registry, buckets=of.buckets)

    def configure(self, pools: Iterable[AgentPool]) -> None:
        """Removes all series of removed pools, for which alerts would fire otherwise."""
        current = {(pool.name, pool.tier) for pool in pools}
        for name, tier in self._known - current:
            for metric in self._by_pool:
                metric.remove_by_labels({"pool": name, "tier": tier})
            for counter in (self._offered, self._responses, self._late):
                self._counted.pop((counter, name), None)
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
            if record.first_byte_s is not None:
                self._first_byte.labels(*labels[:3]).observe(record.first_byte_s)
            self._record_semantic(record, tier)
        if record.queue_s is not None:
            self._queue.labels(*labels[:3]).observe(record.queue_s)
        if record.retries:
            self._retries.labels(record.pool, tier).inc(record.retries)

    def _record_semantic(self, record: RequestRecord, tier: str) -> None:
        if record.path == "-":  # health checks and the like are no operation of generative AI
            return
        labels = {"pool": record.pool, "tier": tier, **attributes(record.path, record.model)}
        error = str(record.code) if record.code >= 400 else ""
        self._semantic_duration.labels(**labels, **{ERROR: error}).observe(record.duration_s)
        if record.first_token_s is not None:
            self._semantic_first_token.labels(**labels).observe(record.first_token_s)

    def update(self, pool: AgentPool, state: PoolState | None) -> None:
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

    def count(self, pool: AgentPool, offered: float, responses: float, late: float) -> None:
        """Raises the counters of one pool to these totals."""
        for counter, total in ((self._offered, offered), (self._responses, responses), (self._late, late)):
            key = (counter, pool.name)
            counter.labels(pool.name, pool.tier).inc(max(0.0, total - self._counted.get(key, 0.0)))
            self._counted[key] = total

    def decided(self, pool: AgentPool, decision: Mapping[str, Any], age_s: float | None) -> None:
        """Sets the gauges of the pool's last scaling decision; a figure that it lacks has no series."""
        labels = (pool.name, pool.tier)
        if age_s is None:
            return
        self._decision_age.labels(*labels).set(age_s)
        self._at_maximum.labels(*labels).set(decision.get("set_by") == _AT_MAXIMUM)
        for name, (field, _) in DECISION.items():
            value = decision.get(field)
            if isinstance(value, (int, float)) and math.isfinite(value):
                self._policy[name].labels(*labels).set(float(value))
            else:
                self._policy[name].remove_by_labels({"pool": pool.name, "tier": pool.tier})

    def malformed(self, total: int) -> None:
        """Sets the total count of log lines that could not be parsed."""
        self._malformed.inc(total - self._malformed_seen)
        self._malformed_seen = total

    def certificate(self, not_after: float | None) -> None:
        """Sets the expiry of the certificate; without one, or if it cannot be read, there is no series."""
        self._not_after.set(not_after or 0.0)
        if self._has_certificate != (not_after is not None):
            self._has_certificate = not self._has_certificate
            change = self.registry.register if self._has_certificate else self.registry.unregister
            change(self._not_after)

    def text(self) -> bytes:
        """Exposition in Prometheus' text format."""
        return generate_latest(self.registry)
