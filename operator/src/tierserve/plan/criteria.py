"""The paper's three criteria that say when one site cannot do and demand must be distributed.

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
from tierserve.plan import hardware as hw
from tierserve.plan.placement import Placement, gib, tokens_on


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
