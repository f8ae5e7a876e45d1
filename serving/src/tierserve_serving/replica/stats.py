"""Counters of a replica, reported to the autoscaling policy as a dict and to Prometheus through Ray."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

from tierserve_serving.engines.base import Timing, Usage

_TIME_BUCKETS_S = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0]


class Histogram(Protocol):
    """The part of `ray.serve.metrics.Histogram` that is used."""

    def observe(self, value: float) -> None:
        """Record one value."""


@dataclass(slots=True)
class Metrics:
    """Histograms of the replica; None without Ray."""

    service_s: Histogram | None = None
    first_token_s: Histogram | None = None
    output_tokens: Histogram | None = None

    @classmethod
    def of_ray(cls, pool: str) -> Metrics:
        """Return histograms that Ray's agent exports, labelled with pool, deployment and replica."""
        from ray.serve import metrics

        def histogram(name: str, description: str, boundaries: list[float]) -> Any:
            metric = metrics.Histogram(name, description=description, boundaries=boundaries, tag_keys=("pool",))
            metric.set_default_tags({"pool": pool})
            return metric

        return cls(
            histogram("tierserve_replica_service_seconds", "Time in a slot of the engine.", _TIME_BUCKETS_S),
            histogram("tierserve_replica_first_token_seconds", "Time to first token since arrival.", _TIME_BUCKETS_S),
            histogram("tierserve_replica_output_tokens", "Output tokens per request.", [4.0**k for k in range(1, 9)]),
        )


@dataclass(slots=True)
class ReplicaStats:
    """Cumulative counters of one replica. `*_total` only grow; seconds are wall-clock seconds.

    Attributes:
        arrivals_total: valid completion requests, including refused ones.
        completions_total: completed answers; only these are in the service times and tokens.
        errors_total: other arrivals: refused, failed, or cancelled by the client.
        refused_total, cancelled_total: the parts of `errors_total` that were refused (503) and cancelled by the client.
        service_seconds_total, service_seconds_sq_total: sum and sum of squares of the time in a slot.
        replica_wait_seconds_total: time between arrival and a slot, without the emulated network.
        gateway_wait_seconds_total: time between arrival at the gateway (`X-Request-Start`) and arrival at the replica.
        prefills_total, prefill_seconds_total, prefill_batch_total: number of prefills that the engine timed, sum of
            their durations, and sum of their mean batch sizes.
        decode_steps_total, decode_seconds_total, decode_batch_total: number of steps after the prefill, sum of their
            durations, and sum of their batch sizes. All six stay 0 if the engine reports no times.
        download_seconds, load_seconds, warmup_seconds: parts of the start-up: wait for the model's files, loading them,
            the first token.
        startup_seconds: what a further replica on this node takes: without the download, unless each has its own.
    """

    arrivals_total: int = 0
    completions_total: int = 0
    errors_total: int = 0
    refused_total: int = 0
    cancelled_total: int = 0
    service_seconds_total: float = 0.0
    service_seconds_sq_total: float = 0.0
    replica_wait_seconds_total: float = 0.0
    gateway_wait_seconds_total: float = 0.0
    input_tokens_total: int = 0
    output_tokens_total: int = 0
    prefills_total: int = 0
    prefill_seconds_total: float = 0.0
    prefill_batch_total: float = 0.0
    decode_steps_total: int = 0
    decode_seconds_total: float = 0.0
    decode_batch_total: float = 0.0
    startup_seconds: float = 0.0
    download_seconds: float = 0.0
    load_seconds: float = 0.0
    warmup_seconds: float = 0.0
    metrics: Metrics = field(default_factory=Metrics)

    def started(self, download_s: float, load_s: float, warmup_s: float, *, every_replica_downloads: bool) -> None:
        """Record the parts of the start-up; `load_s` without the download."""
        self.download_seconds, self.load_seconds, self.warmup_seconds = download_s, load_s, warmup_s
        self.startup_seconds = load_s + warmup_s + (download_s if every_replica_downloads else 0.0)

    def arrived(self, gateway_wait_s: float) -> None:
        """Count a request and its wait at the gateway."""
        self.arrivals_total += 1
        self.gateway_wait_seconds_total += gateway_wait_s

    def refused(self) -> None:
        """Count a request refused because the queue was full."""
        self.errors_total += 1
        self.refused_total += 1

    def cancelled(self) -> None:
        """Count a request whose client disconnected."""
        self.errors_total += 1
        self.cancelled_total += 1

    def failed(self) -> None:
        """Count a request that failed in the engine."""
        self.errors_total += 1

    def completed(self, service_s: float, usage: Usage) -> None:
        """Count a completed answer, all its choices together."""
        self.completions_total += 1
        self.service_seconds_total += service_s
        self.service_seconds_sq_total += service_s * service_s
        self.input_tokens_total += usage.input_tokens
        self.output_tokens_total += usage.output_tokens
        for timing in usage.timings:
            self._timed(timing)
        if self.metrics.service_s is not None:
            self.metrics.service_s.observe(service_s)
        if self.metrics.output_tokens is not None:
            self.metrics.output_tokens.observe(float(usage.output_tokens))

    def _timed(self, timing: Timing) -> None:
        """Add the engine's own times; invalid ones (after a clock jump, or NaN) would corrupt the sums permanently."""
        seconds, batch = timing.prefill_s, timing.prefill_batch
        if seconds is not None and 0.0 < seconds < math.inf and 1.0 <= batch < math.inf:
            self.prefills_total += 1
            self.prefill_seconds_total += seconds
            self.prefill_batch_total += batch
        seconds, batch = timing.decode_s, timing.decode_batch
        if timing.steps > 0 and 0.0 < seconds < math.inf and 1.0 <= batch < math.inf:
            self.decode_steps_total += timing.steps
            self.decode_seconds_total += seconds
            self.decode_batch_total += batch * timing.steps

    def first_token(self, since_arrival_s: float) -> None:
        """Record the time to the first token."""
        if self.metrics.first_token_s is not None:
            self.metrics.first_token_s.observe(since_arrival_s)

    def report(self, *, running: int, waiting: int, slots: int) -> dict[str, float]:
        """Return counters and gauges under the names the autoscaling policy reads."""
        counters = {name: float(getattr(self, name)) for name in _REPORTED}
        return counters | {"running": float(running), "waiting": float(waiting), "slots": float(slots)}


_REPORTED = (
    *(name for name in ReplicaStats.__slots__ if name.endswith("_total")),
    "startup_seconds", "download_seconds", "load_seconds", "warmup_seconds",
)  # fmt: skip
