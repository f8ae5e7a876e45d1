"""Counters of a replica, reported to the autoscaling policy as a dict and to Prometheus through Ray."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tierserve_serving.engines.base import Timing, Usage
from tierserve_serving.replica import metrics as names
from tierserve_serving.replica.metrics import Metrics
from tierserve_serving.semconv import attributes

_UNKNOWN = attributes("", "-")


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
    metrics: Metrics | None = None

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

    def completed(self, service_s: float, usage: Usage, tags: Mapping[str, str] = _UNKNOWN) -> None:
        """Count a completed answer, all its choices together; `tags` are those of `semconv.attributes`."""
        self.completions_total += 1
        self.service_seconds_total += service_s
        self.service_seconds_sq_total += service_s * service_s
        self.input_tokens_total += usage.input_tokens
        self.output_tokens_total += usage.output_tokens
        for timing in usage.timings:
            self._timed(timing, tags)
        if self.metrics is not None:
            self.metrics.observe(names.SERVICE, service_s)
            self.metrics.observe(names.PROMPT_TOKENS, float(usage.input_tokens))
            self.metrics.observe(names.OUTPUT_TOKENS, float(usage.output_tokens))

    def _timed(self, timing: Timing, tags: Mapping[str, str] = _UNKNOWN) -> None:
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
            if self.metrics is not None:
                self.metrics.observe(names.TIME_PER_TOKEN, seconds / timing.steps, tags)
                self.metrics.observe(names.BATCH, batch)

    def first_token(self, since_arrival_s: float) -> None:
        """Record the time to the first token."""
        if self.metrics is not None:
            self.metrics.observe(names.FIRST_TOKEN, since_arrival_s)

    def report(self, *, running: int, waiting: int, slots: int) -> dict[str, float]:
        """Return counters and gauges under the names the autoscaling policy reads."""
        counters = {name: float(getattr(self, name)) for name in _REPORTED}
        return counters | {"running": float(running), "waiting": float(waiting), "slots": float(slots)}


_REPORTED = (
    *(name for name in ReplicaStats.__slots__ if name.endswith("_total")),
    "startup_seconds", "download_seconds", "load_seconds", "warmup_seconds",
)  # fmt: skip
