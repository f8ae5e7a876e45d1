"""Prometheus metrics of a replica, exported by Ray's agent, which puts `ray_` before their names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tierserve_serving.semconv import ATTRIBUTES, TIME_PER_OUTPUT_TOKEN

_TIME_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_TOKENS = tuple(4.0**k for k in range(1, 9))
_BATCH = tuple(2.0**k for k in range(9))


@dataclass(frozen=True, slots=True)
class Histogram:
    """Definition of a histogram. `_sum` and `_count` are counters: tokens in all, and requests."""

    name: str
    text: str
    buckets: tuple[float, ...]
    labels: tuple[str, ...] = ()


SERVICE = Histogram("tierserve_replica_service_seconds", "Time in a slot of the engine.", _TIME_BUCKETS_S)
FIRST_TOKEN = Histogram(
    "tierserve_replica_first_token_seconds", "Time to first token since arrival at the replica.", _TIME_BUCKETS_S
)
PROMPT_TOKENS = Histogram(
    "tierserve_replica_prompt_tokens", "Prompt tokens per request; the sum counts all of them.", _TOKENS
)
OUTPUT_TOKENS = Histogram(
    "tierserve_replica_output_tokens", "Output tokens per request; the sum counts all of them.", _TOKENS
)
BATCH = Histogram(
    "tierserve_replica_batch_size", "Mean number of requests in the engine during the decode steps of one.", _BATCH
)
TIME_PER_TOKEN = Histogram(
    TIME_PER_OUTPUT_TOKEN.name, TIME_PER_OUTPUT_TOKEN.text, TIME_PER_OUTPUT_TOKEN.buckets, ATTRIBUTES
)
HISTOGRAMS = (SERVICE, FIRST_TOKEN, PROMPT_TOKENS, OUTPUT_TOKENS, BATCH, TIME_PER_TOKEN)
GAUGES = {
    "running": ("tierserve_replica_running", "Requests in slots of the replica."),
    "waiting": ("tierserve_replica_waiting", "Requests in the queue of the replica."),
    "kv_cache_usage": ("tierserve_replica_kv_cache_usage_ratio", "Used part of the key-value cache; vllm reports it."),
    "engine_running": ("tierserve_replica_engine_running", "Requests in the batch of the engine; vllm reports it."),
    "engine_waiting": ("tierserve_replica_engine_waiting", "Requests in the queue of the engine; vllm reports it."),
}
"""Gauges by the name in the replica's report. llama.cpp's server no longer reports the use of its cache."""


class Metrics(Protocol):
    """Where a replica records its metrics."""

    def observe(self, histogram: Histogram, value: float, tags: Mapping[str, str] | None = None) -> None:
        """Record one value of a histogram."""

    def show(self, report: Mapping[str, float]) -> None:
        """Set the gauges that the report has."""


class RayMetrics:
    """Metrics of `ray.serve.metrics`: labelled with pool, and by Serve with deployment and replica."""

    def __init__(self, pool: str) -> None:
        from ray.serve import metrics

        self._histograms = {one.name: self._histogram(metrics, one, pool) for one in HISTOGRAMS}
        self._gauges: dict[str, Any] = {}
        for field, (name, text) in GAUGES.items():
            self._gauges[field] = metrics.Gauge(name, description=text, tag_keys=("pool",))
            self._gauges[field].set_default_tags({"pool": pool})

    @staticmethod
    def _histogram(metrics: Any, one: Histogram, pool: str) -> Any:
        keys = ("pool", *one.labels)
        metric = metrics.Histogram(one.name, description=one.text, boundaries=list(one.buckets), tag_keys=keys)
        metric.set_default_tags({"pool": pool})
        return metric

    def observe(self, histogram: Histogram, value: float, tags: Mapping[str, str] | None = None) -> None:
        """Record one value of a histogram."""
        self._histograms[histogram.name].observe(value, dict(tags or {}))

    def show(self, report: Mapping[str, float]) -> None:
        """Set the gauges that the report has: an engine that does not report a figure has no series of it."""
        for field, gauge in self._gauges.items():
            if field in report:
                gauge.set(report[field])
