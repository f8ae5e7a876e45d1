"""Inputs and outputs of a scaling decision: frozen values with derived properties."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple, Self

from tierserve.queueing.batching.profile import BatchProfile
from tierserve.queueing.sizing import Objective


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one pool's autoscaler; times in seconds.

    Attributes:
        target_s: response-time target for `percentile` % of the requests, without the network share.
        percentile: in (0, 100).
        max_wait_s: longest wait of a request that still has its first token in time, at the same percentile; inf: none.
        service_s: prior of the mean service time at a full batch, used until `prior_completions` requests finished.
        slots: requests that a replica can hold at once.
        startup_s: prior of the time from a raised target to a running replica.
        stabilization_window_s: what was needed within it is kept; None: by the start-up time and what happens
            (autoscale/stabilization.py).
        idle_window_s: idle time before a pool with min_replicas 0 scales to zero; None: as long as a restart
            takes (autoscale/scale_to_zero.py).
        headroom: share by which the load may grow at once: slots are kept for it.
        stale_after_s: age at which a replica's or the gateway's figures are no longer believed.
        scale_up_factor: the largest ratio of one decision's target to the replicas that run.
        prior_completions: finished requests from which the observed service time replaces the prior.
        sampling_jitter_s: spread of the times at which replicas are sampled (no matter with the gateway's figures).
        profile: batching profile; with `input_tokens` and `output_tokens` it gives the service time, as corrected by
            the step times that replicas report (autoscale.calibration).
    """

    target_s: float
    percentile: float = 95.0
    max_wait_s: float = math.inf
    service_s: float = 1.0
    slots: int = 1
    startup_s: float = 10.0
    stabilization_window_s: float | None = None
    idle_window_s: float | None = None
    headroom: float = 0.0
    stale_after_s: float = 5.0
    scale_up_factor: float = 16.0
    prior_completions: int = 20
    sampling_jitter_s: float = 0.3
    profile: BatchProfile | None = None
    input_tokens: float = 0.0
    output_tokens: float = 0.0

    def __post_init__(self) -> None:
        for name in (
            "target_s",
            "max_wait_s",
            "service_s",
            "slots",
            "stale_after_s",
            "scale_up_factor",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)!r}")
        for name in ("startup_s", "headroom", "sampling_jitter_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)!r}")
        if not 0 < self.percentile < 100:
            raise ValueError(f"percentile must be between 0 and 100, got {self.percentile!r}")
        for name in ("stabilization_window_s", "idle_window_s"):
            given = getattr(self, name)
            if given is not None and not given >= 0:
                raise ValueError(f"{name} must be at least 0, got {given!r}")

    @property
    def objective(self) -> Objective:
        """The response-time objective."""
        return Objective(self.target_s, self.percentile, self.max_wait_s)


@dataclass(frozen=True, slots=True)
class ReplicaSample:
    """The last figures of one replica: counters since its start, gauges now; `t`: Unix seconds when they were taken."""

    t: float
    arrivals: float
    completions: float = 0.0
    service_s: float = 0.0
    service_sq_s2: float = 0.0
    gateway_wait_s: float = 0.0
    running: float = 0.0
    waiting: float = 0.0
    startup_s: float | None = None


class StepCounts(NamedTuple):
    """Step counters of a replica since its start: sums over finished requests, from entering the engine.

    Attributes:
        completions, input_tokens, output_tokens: requests and their tokens.
        prefills, prefill_seconds, prefill_batch: requests whose prefill was timed, its seconds, and the mean batch that
            each was in meanwhile, itself among them.
        decode_steps, decode_seconds, decode_batch: steps after the prefill, their seconds, and the batch of each.
    """

    completions: float
    input_tokens: float
    output_tokens: float
    prefills: float
    prefill_seconds: float
    prefill_batch: float
    decode_steps: float
    decode_seconds: float
    decode_batch: float


@dataclass(frozen=True, slots=True)
class GatewaySample:
    """What a gateway reports of a pool: built by the gateway's agent and by the simulator, read by the policy.

    No field has a default, so that what one of them leaves out does not go unnoticed.

    Attributes:
        t: Unix seconds.
        arrivals: requests offered to the pool, a counter since the gateway's start.
        queued, in_flight: in its queue and in the replicas now.
        answered, late: counters of answers, and of those that missed the objective; 0 where it does not report them.
        bypassed: requests that other pools served while this one was scaled to zero, a counter; not among the arrivals.
    """

    t: float
    arrivals: float
    queued: float
    in_flight: float
    answered: float
    late: float
    bypassed: float

    def to_json(self) -> dict[str, float]:
        """Return the document of `GET /pools/NAME`; counters end in `_total`."""
        return {f"{name}_total" if name in COUNTERS else name: value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """Return the sample in such a document; gateways of others may leave out `answered`, `late` and `bypassed`.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        arrivals, queued, in_flight = (float(body[name]) for name in ("arrivals_total", "queued", "in_flight"))
        optional = {name: float(body.get(f"{name}_total", 0.0)) for name in COUNTERS[1:]}
        return cls(t=float(body.get("t", 0.0)), arrivals=arrivals, queued=queued, in_flight=in_flight, **optional)


COUNTERS = ("arrivals", "answered", "late", "bypassed")
"""Fields of a `GatewaySample` that only grow while the gateway runs."""


@dataclass(frozen=True, slots=True)
class Observation:
    """Metrics of a pool at time `t` (Unix seconds).

    Attributes:
        running: replicas that serve now.
        target: target of the last decision.
        min_replicas, max_replicas: bounds of the target.
        replicas: samples by replica name, of running replicas; as columns (`autoscale.replica_metrics.ReplicaMetrics`)
            they cost a decision over thousands of replicas least.
        gateway: the gateway's figures, if it is there.
        ongoing: requests in the pool as Ray counts them (running and queued), None if unknown.
        queued: requests that wait outside the replicas as Ray counts them, None if unknown.
        steps: step counters by replica name, of replicas that report them; a decision reads a few.
        downloading: a replica downloads its model into a cache that later replicas share.
    """

    t: float
    running: int
    target: int
    min_replicas: int
    max_replicas: int
    replicas: Mapping[str, ReplicaSample] = field(default_factory=dict)
    gateway: GatewaySample | None = None
    ongoing: float | None = None
    queued: float | None = None
    steps: Mapping[str, StepCounts] = field(default_factory=dict)
    downloading: bool = False


SetBy = Literal[
    "erlang_c",
    "connections",
    "replay",
    "backlog",
    "idle",
    "stabilization",
    "min_replicas",
    "max_replicas",
    "scale_up_factor",
    "held",
]
"""What set the number of replicas: a box of the drawing in docs/erlang-policy.md, a bound, or the last decision."""


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The batching profile as measured in operation.

    Attributes:
        alpha, beta, gamma: seconds, as in `BatchProfile`.
        samples: mean times that it was learned from; times held for outliers are not among them.
        error: relative standard deviation of these times around the fit.
        relative_std: relative standard deviation of the service time of a full batch as estimated.
        drift: the machine became slower or faster within the last 200 times.
        used: decisions are made with a measured profile, not with the configured one.
        profile_error: service time of a full batch by the configured profile over the measured one, less 1.
    """

    alpha: float
    beta: float
    gamma: float
    samples: int
    error: float
    relative_std: float
    drift: bool
    used: bool
    profile_error: float


@dataclass(frozen=True, slots=True)
class Decision:
    """The desired replicas and the reason.

    Attributes:
        t: Unix seconds of the decision.
        replicas, target: desired replicas (`target` is the name in Ray Serve).
        running, pending: replicas that serve; desired replicas that do not serve yet.
        slots, servers: requests at once per replica; c = replicas x slots.
        arrival_rate: lambda, requests per second (offered, if the gateway reports it).
        service_rate: mu = 1 / service_s of one slot.
        service_s, service_sd_s: mean and standard deviation of the service time that was planned with.
        offered_load: a = lambda S in erlangs, with the share that guards against its own error.
        in_system, backlog: requests in the pool now; those beyond the slots of running replicas.
        peakedness: z of the arrivals.
        rho: carried load over servers, at most 1: the share of the slots that are busy on average.
        offered_load_ratio: a / c; above 1 the servers cannot carry what is offered, save from few connections that
            wait for their answers.
        p_wait: P(a request waits) with `replicas`.
        predicted_p95_s: response time that `percentile` % stay under with `replicas`; None if they cannot bear the
            load.
        percentile, target_s: the objective.
        startup_s: learned time from a raised target to running replicas.
        set_by: what set the number.
        reason: one sentence that says it with figures.
        stale: no data was there, the last decision is held.
        calibration: the profile as measured; None without a configured profile or reports of steps.
        rate_error: mean absolute error of forecasts of the arrival rate one start-up time ahead, requests per second.
        late_share: share of late responses over the recent past, as the gateway counts them; None without reports.
        caution: factor by which late responses have lengthened the stabilization window; 1 while few are late.
        margin: factor on the load, where full slots have served fewer requests than the settings promise; else 1.
        stabilization_window_s: what was needed within it is kept.
    """

    t: float
    replicas: int
    target: int
    running: int
    pending: int
    slots: int
    servers: int
    arrival_rate: float
    service_rate: float
    service_s: float
    service_sd_s: float
    offered_load: float
    in_system: float
    backlog: float
    peakedness: float
    rho: float
    offered_load_ratio: float
    p_wait: float
    predicted_p95_s: float | None
    percentile: float
    target_s: float
    startup_s: float
    set_by: SetBy
    reason: str
    stale: bool = False
    calibration: Calibrated | None = None
    rate_error: float = 0.0
    late_share: float | None = None
    caution: float = 1.0
    margin: float = 1.0
    stabilization_window_s: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the decision with the names of the field: lambda and mu for the two rates."""
        out = asdict(self)
        out["lambda"], out["mu"] = out.pop("arrival_rate"), out.pop("service_rate")
        return out
