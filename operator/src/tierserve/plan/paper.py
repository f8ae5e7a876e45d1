"""The paper's own form of the model: memory pooled over all accelerators, every server as fast as a whole accelerator.

Wang, Xue, Wei, Kuo, "An Overview on Generative AI at Scale with Edge-Cloud Computing" (2023):

    c = G \\ U     servers: memory of all accelerators over the memory of a model, whole part
    mu = P / F    requests per second of one server: FLOP/s of an accelerator over the FLOPs of a request
    lambda = N    every connection asks once a second
    W = 1 / mu + C(c, lambda / mu) / (c mu - lambda)

Two things in it are kinder than machines are, and the other modules of `plan` do without them: memory does not pool
(100 accelerators of 80 GB hold 200 models of 28 GB, not 285), and requests on one accelerator share its FLOP/s.

Its three criteria say when one site cannot serve and demand must be distributed:

    memory       memory of a request x connections        > memory of the site
    bandwidth    output bit rate of one x connections      >= bandwidth of the site
    compute      FLOPs of a request x connections / deadline > FLOP/s of the site

Each is a statement about numbers, without a queue: a necessary condition, and the N at which it fails.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tierserve.api.v1alpha1.deployment import GenAIDeployment
from tierserve.api.v1alpha1.tiers import Tier
from tierserve.plan import hardware as hw
from tierserve.plan.placement import Placement, gib, tokens_on
from tierserve.queueing.erlang import log_erlang_c
from tierserve.queueing.mmc import mean_response

CONNECTIONS = {"cloud": 1000, "edge": 20, "device": 1}
"""Connections of the paper's examples, by kind of tier (a device serves its owner)."""


@dataclass(frozen=True, slots=True)
class PaperTier:
    """One site of a tier in the paper's form.

    Attributes:
        tier: its name.
        servers: c, memory pooled.
        servers_packed: models that fit with memory packed per accelerator (or per group of `perReplica`).
        rate: lambda, requests per second.
        service_rate: mu, requests per second of one server.
        offered_load: a = lambda / mu in erlangs.
        utilisation: a / c.
        log10_p_wait: log10 of C(c, a), which is far below the smallest float in the paper's examples.
        response_s: W in seconds, `inf` where a >= c.
    """

    tier: str
    servers: int
    servers_packed: int
    rate: float
    service_rate: float
    offered_load: float
    utilisation: float
    log10_p_wait: float
    response_s: float

    @property
    def p_wait(self) -> str:
        """C(c, a) as a text with twelve digits, whatever its size."""
        return power_of_ten(self.log10_p_wait)


def pooled_servers(memory_bytes: float, model_bytes: float) -> int:
    """Return c = G \\ U, the models that fit a memory that were one piece."""
    return math.floor(memory_bytes / model_bytes * (1 + 1e-12))


def packed_servers(accelerators: int, memory_bytes: float, model_bytes: float) -> int:
    """Return the models that fit `accelerators` of `memory_bytes` each, none of them cut in two."""
    return accelerators * pooled_servers(memory_bytes, model_bytes)


def service_rate(flops: float, flops_per_request: float) -> float:
    """Return mu = P / F."""
    return flops / flops_per_request


def paper_tier(name: str, servers: int, packed: int, mu: float, rate: float) -> PaperTier:
    """Return the paper's figures of a tier with `servers` servers of `mu` requests per second at `rate` per second."""
    load = rate / mu
    return PaperTier(
        tier=name,
        servers=servers,
        servers_packed=packed,
        rate=rate,
        service_rate=mu,
        offered_load=load,
        utilisation=load / servers if servers else math.inf,
        log10_p_wait=log_erlang_c(servers, load) / math.log(10.0),
        response_s=mean_response(servers, rate, mu),
    )


def pooled(gaid: GenAIDeployment, connections: float | None = None) -> tuple[PaperTier, ...]:
    """Return every tier of `gaid` in the paper's form, for one site of it with all its replicas.

    Args:
        gaid: the service; the first model of each tier counts, a server being a whole copy of its weights.
        connections: N = lambda of each tier; None takes the paper's 1,000 for the cloud, 20 for the edge, and 1 for a
            device.
    """
    return tuple(_tier(gaid, tier, connections) for tier in gaid.spec.tiers)


def _tier(gaid: GenAIDeployment, tier: Tier, connections: float | None) -> PaperTier:
    model, hardware = gaid.models_of(tier)[0], tier.hardware
    size = hw.weights_bytes(model)
    count = tier.max_replicas * hardware.per_replica
    return paper_tier(
        name=tier.name,
        servers=pooled_servers(count * hardware.memory_bytes, size),
        packed=packed_servers(tier.max_replicas, hardware.per_replica * hardware.memory_bytes, size),
        mu=service_rate(hardware.flops, hw.request_flops(model, tokens_on(gaid, tier, model))),
        rate=float(CONNECTIONS[tier.kind] if connections is None else connections),
    )


def power_of_ten(log10: float) -> str:
    """Return 10^log10 as a text such as 1.22065249154e-970."""
    if log10 == -math.inf:
        return "0"
    whole = math.floor(log10)
    return f"{10 ** (log10 - whole):.12g}e{whole:+03d}" if whole < -3 else f"{10**log10:.6g}"


@dataclass(frozen=True, slots=True)
class Criterion:
    """One criterion at one site.

    Attributes:
        name: `memory`, `bandwidth` or `compute`.
        per_connection: what one connection needs (bytes, bit/s, FLOP/s).
        available: what the site has, in the same unit.
        connections: the largest N that the site can do, `inf` where a connection needs nothing.
        message: the criterion in words, with its figures.
    """

    name: str
    per_connection: float
    available: float
    connections: float
    message: str

    def binds(self, connections: float) -> bool:
        """Return whether so many connections are more than the site can do."""
        return connections > self.connections


def memory_criterion(request_bytes: float, memory_bytes: float) -> Criterion:
    """Return the memory criterion: every connection has a request in flight, each takes `request_bytes`."""
    limit = _whole(memory_bytes, request_bytes)
    words = f"{gib(request_bytes)} a request x connections > {gib(memory_bytes)} of memory"
    return Criterion("memory", request_bytes, memory_bytes, limit, words)


def bandwidth_criterion(bitrate: float, bandwidth_bps: float) -> Criterion:
    """Return the bandwidth criterion; equality binds already, since a full link has no room for a second stream."""
    limit = math.inf if bitrate <= 0 else float(math.ceil(bandwidth_bps / bitrate * (1 - 1e-12)) - 1)
    words = f"{_si(bitrate)}bit/s of output x connections >= {_si(bandwidth_bps)}bit/s of downlink"
    return Criterion("bandwidth", bitrate, bandwidth_bps, limit, words)


def compute_criterion(request_flops: float, deadline_s: float, flops: float) -> Criterion:
    """Return the compute criterion: `request_flops` within `deadline_s` for every connection at once."""
    each = request_flops / deadline_s
    words = f"{_si(request_flops)}FLOP / {deadline_s:.3g} s x connections > {_si(flops)}FLOP/s"
    return Criterion("compute", each, flops, _whole(flops, each), words)


def criteria_of(gaid: GenAIDeployment, placement: Placement, per_connection: float = 1.0) -> tuple[Criterion, ...]:
    """Return the three criteria of one site with all the replicas it may have.

    Args:
        gaid: the service.
        placement: the pool at the site.
        per_connection: requests per second that a connection makes; the paper takes 1.
    """
    tier, model = gaid.tier(placement.tier), gaid.model(placement.model)
    tokens, hardware = tokens_on(gaid, tier, model), tier.hardware
    free = tier.max_replicas * max(0.0, hw.replica_bytes(hardware) - hw.weights_bytes(model))
    bits = 8.0 * model.output_bytes * tokens.output / model.output.tokens
    flops = tier.max_replicas * hardware.per_replica * hardware.flops
    return (
        memory_criterion(hw.request_bytes(model, tokens), free),
        bandwidth_criterion(bits * per_connection, tier.downlink_bps),
        compute_criterion(hw.request_flops(model, tokens), max(placement.target_s, 1e-9), flops),
    )


def first_to_bind(criteria: Sequence[Criterion]) -> Criterion:
    """Return the criterion that fails at the smallest N."""
    return min(criteria, key=lambda one: one.connections)


def flops_within(deadline_s: float, flops: float) -> float:
    """Return the FLOPs an accelerator does before a deadline: 3.47e12 per frame at 90 frames per second on an A100."""
    return deadline_s * flops


def memory_for_each(memory_bytes: float, connections: float) -> float:
    """Return the bytes each connection may take: 200 MB where 500,000 share 100 TB."""
    return memory_bytes / connections


def _whole(have: float, each: float) -> float:
    return math.inf if each <= 0 else float(math.floor(have / each * (1 + 1e-12)))


def _si(value: float) -> str:
    for factor, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.4g} {prefix}"
    return f"{value:.4g} "
