"""Configuration of the gateway agent (JSON), from that of the gateway (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tierserve.plan.placement import Placement
from tierserve.render.haproxy.model import GatewaySpec


def agent_config(
    spec: GatewaySpec,
    placements: Sequence[Placement],
    decisions_urls: Mapping[str, str],
    *,
    listen: str,
    port: int,
    gateways: int = 1,
    certificate: str | None = None,
) -> dict[str, Any]:
    """Content of the agent's configuration file.

    Args:
        spec: the gateway that the agent configures.
        placements: its pools.
        decisions_urls: URL at which the policy of each pool publishes its decisions.
        listen, port: address of the agent's HTTP endpoints.
        gateways: number of gateways that share the slots of the pools.
        certificate: path of the gateway's certificate, None without TLS.
    """
    targets = {p.pool: p.target_s + p.network_s for p in placements}
    return {
        "service": spec.service,
        "listen": listen,
        "port": port,
        "log_address": spec.log_address,
        "admin_socket": spec.admin_socket,
        "gateways": gateways,
        "certificate": certificate,
        "max_body_bytes": spec.max_body_bytes,
        "classes": [{"name": c.name, "tiers": c.tiers} for c in spec.classes],
        "pools": [
            {
                "name": p.name,
                "tier": p.tier,
                "slots": p.slots,
                "models": p.models,
                "decisions_url": decisions_urls[p.name],
                "target_s": targets[p.name],
                "scale_to_zero": p.scale_to_zero,
            }
            for p in spec.pools
        ],
    }
