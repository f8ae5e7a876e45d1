"""GenAIDeployment and placements -> `GatewaySpec` (pure); the runtime adds addresses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import get_args

from tierserve.api import GenAIDeployment
from tierserve.api.v1alpha1.traffic import Privacy
from tierserve.plan.placement import Placement
from tierserve.render.haproxy.config import GatewayClass, GatewayPool, GatewaySpec


@dataclass(frozen=True, slots=True)
class GatewayAddresses:
    """Addresses of the gateway, of its upstreams and of its sockets.

    Attributes:
        bind, port: address for clients.
        upstreams: host and port of Ray Serve's proxy for each pool; the path prefix there is the pool's name.
        admin_socket: HAProxy's admin socket.
        log_address: UDP address of the agent, host:port.
        metrics_bind, metrics_port: HAProxy's own Prometheus exporter.
        resolve: address family (ipv4 or ipv6) to prefer if upstreams are DNS names to resolve at run time; else None.
    """

    bind: str
    port: int
    upstreams: Mapping[str, tuple[str, int]]
    admin_socket: str
    log_address: str
    metrics_bind: str
    metrics_port: int
    resolve: str | None = None


def gateway_spec(gaid: GenAIDeployment, placements: Sequence[Placement], at: GatewayAddresses) -> GatewaySpec:
    """`GatewaySpec` of one service: a pool per placement, and the allowed tiers of each traffic class."""
    gateway = gaid.spec.gateway
    return GatewaySpec(
        service=gaid.name,
        version=metadata.version("tierserve"),
        cors_origins=gateway.cors.allow_origins if gateway.cors else (),
        bind=at.bind,
        port=at.port,
        pools=tuple(
            _pool(placement, at, adaptive_lifo=gateway.queue_order == "adaptiveLIFO") for placement in placements
        ),
        classes=gateway_classes(gaid),
        default_class=gaid.default_class.name,
        admin_socket=at.admin_socket,
        log_address=at.log_address,
        metrics_bind=at.metrics_bind,
        metrics_port=at.metrics_port,
        resolve=at.resolve,
        max_queue=gateway.max_queue,
        queue_timeout_s=gateway.queue_timeout.value,
        response_timeout_s=gateway.response_timeout.value,
        drain_timeout_s=gateway.response_timeout.value,
    )


def gateway_classes(gaid: GenAIDeployment) -> tuple[GatewayClass, ...]:
    """Each traffic class with its allowed tiers; without failover only the first of them."""
    count = None if gaid.spec.routing.failover else 1
    strictness = {privacy: rank for rank, privacy in enumerate(get_args(Privacy))}
    return tuple(
        GatewayClass(c.name, tuple(t.name for t in gaid.tiers_for(c))[:count], strictness[c.privacy])
        for c in gaid.spec.traffic
    )


def _pool(placement: Placement, at: GatewayAddresses, *, adaptive_lifo: bool) -> GatewayPool:
    slack_s = placement.target_s - placement.service_quantile_s
    host, port = at.upstreams[placement.pool]
    return GatewayPool(
        name=placement.pool,
        tier=placement.tier,
        host=host,
        port=port,
        path_prefix=f"/{placement.pool}",
        # Initial limit; the agent sets it to running replicas x slots.
        max_in_flight=placement.min_replicas * placement.slots,
        slots=placement.slots,
        models=(placement.model, *placement.adapters),
        service_s=placement.service_s,
        scale_to_zero=placement.min_replicas == 0 < placement.max_replicas,
        # If the service time alone exceeds the target, no request can meet it, and the order does not matter.
        slack_s=slack_s if adaptive_lifo and slack_s > 0.0 else None,
    )
