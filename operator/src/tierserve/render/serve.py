"""Placements -> the declarative configuration of Ray Serve, the same on a laptop and as serveConfigV2 in a RayService.

What changes lightly stays out of `args`: floors and ceilings may change at any time without a restart; a changed
model, slot count or profile starts new replicas.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tierserve.plan.placement import Placement

IMPORT_PATH = "tierserve_serving.app:build"
POLICY = "tierserve_serving.policy:ErlangPolicy"
# What a replica may hold beyond its slots: the gateway queues centrally, this only evens out the moment between two
# polls of the gateway's agent.
QUEUE_PER_SLOT = 2
METRICS_INTERVAL_S = 0.5
IDLE_S = 15
"""How long Ray's HAProxy keeps a connection that nobody uses. At each change of replicas it goes on as a new process,
and the old one stays until its last connection ends: a node is not given back while one of a gateway's idles there."""
RELOADS = {
    # Ray's own 120 s would cut off an answer that takes longer, whenever replicas come or go meanwhile.
    "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "3600",
    # Else so long as that and 30 s. An old process takes no new request after IDLE_S without one.
    "RAY_SERVE_PORT_QUARANTINE_S": "150",
}
"""Environment of Ray's processes: what becomes of the old process, and of the ports of replicas that it knew."""


SURGE_PERCENT = 20
"""Of the replicas, rounded up, that start before old ones stop: as many as Serve replaces at once."""


@dataclass(frozen=True, slots=True)
class ServeTarget:
    """What the runtime adds to a placement.

    Attributes:
        http_host, http_port: where Serve's proxy listens.
        decisions_address: where the policies publish their decisions, host:port.
        demand_urls: the gateway agent's demand feed per pool.
        emulate_network: delay requests by t_UL and t_DL, where no real network lies between gateway and tier.
        drain_s: how long a replica that was told to go may finish what it serves.
        proxy_location: on which nodes Serve's proxies run.
        replica_resources: Ray's custom resources that a replica takes of its node, by name.
        replica_gpus: accelerators that Ray hands to a replica.
        surge: whether there may be room for a replica more than wanted while a new version replaces the old one.
    """

    http_host: str
    http_port: int
    decisions_address: str
    demand_urls: Mapping[str, str]
    emulate_network: bool = False
    drain_s: float = 30.0
    proxy_location: str = "HeadOnly"
    replica_resources: Mapping[str, float] = field(default_factory=dict)
    replica_gpus: int = 0
    surge: bool = False


def labels(placement: Placement, service: str) -> dict[str, str]:
    """Labels of the node on which a placement's replicas run."""
    return {
        "tierserve.io/deployment": service,
        "tierserve.io/tier": placement.tier,
        "tierserve.io/site": placement.site,
    }


def serve_config(service: str, placements: Sequence[Placement], target: ServeTarget) -> dict[str, Any]:
    """One Serve application per pool, behind one proxy on the head.

    Returns:
        The body of `PUT /api/serve/applications/`.
    """
    return {
        "proxy_location": target.proxy_location,
        "http_options": {"host": target.http_host, "port": target.http_port, "keep_alive_timeout_s": IDLE_S},
        "applications": [application(service, placement, target) for placement in placements],
    }


def application(service: str, placement: Placement, target: ServeTarget) -> dict[str, Any]:
    """The Serve application of one pool; its name and route are the pool's."""
    return {
        "name": placement.pool,
        "route_prefix": f"/{placement.pool}",
        "import_path": IMPORT_PATH,
        "args": _args(service, placement, target),
        "deployments": [_deployment(service, placement, target)],
    }


def _args(service: str, placement: Placement, target: ServeTarget) -> dict[str, Any]:
    return {
        "service": service,
        "tier": placement.tier,
        "site": placement.site,
        "model": placement.model,
        "engine": placement.engine,
        "source": placement.source,
        "slots": placement.slots,
        "max_queue": QUEUE_PER_SLOT * placement.slots,
        "profile": _profile(placement),
        "input_tokens": placement.input_tokens,
        "output_tokens": placement.output_tokens,
        "context_tokens": placement.context_tokens,
        "uplink_s": placement.uplink_s if target.emulate_network else 0.0,
        "downlink_s": placement.downlink_s if target.emulate_network else 0.0,
        "response_target_s": placement.target_s,
    }


def _profile(placement: Placement) -> dict[str, float]:
    profile = placement.profile
    return {"alpha": profile.alpha, "beta": profile.beta, "gamma": profile.gamma}


def _deployment(service: str, placement: Placement, target: ServeTarget) -> dict[str, Any]:
    return {
        "name": "replica",
        "ray_actor_options": _actor_options(service, placement, target),
        "graceful_shutdown_timeout_s": target.drain_s + 5.0,
        "graceful_shutdown_wait_loop_s": 0.5,
        "health_check_period_s": 5,
        "health_check_timeout_s": 30,
        **({"max_surge_percent": SURGE_PERCENT} if target.surge else {}),
        "autoscaling_config": _autoscaling(service, placement, target),
    }


def _actor_options(service: str, placement: Placement, target: ServeTarget) -> dict[str, Any]:
    options: dict[str, Any] = {"num_cpus": 0, "label_selector": labels(placement, service)}
    if target.replica_resources:
        options["resources"] = dict(target.replica_resources)
    if target.replica_gpus:
        options["num_gpus"] = target.replica_gpus
    return options


def _autoscaling(service: str, placement: Placement, target: ServeTarget) -> dict[str, Any]:
    # Serve's own delays are off: when to follow load up and down is the policy's business.
    return {
        "min_replicas": placement.min_replicas,
        "max_replicas": max(placement.max_replicas, 1),
        "upscale_delay_s": 0,
        "downscale_delay_s": 0,
        "metrics_interval_s": METRICS_INTERVAL_S,
        "look_back_period_s": 2.0,
        "policy": {"policy_function": POLICY, "policy_kwargs": _policy_kwargs(service, placement, target)},
    }


def _policy_kwargs(service: str, placement: Placement, target: ServeTarget) -> dict[str, Any]:
    return {
        "pool": placement.pool,
        "response_target_s": placement.target_s,
        "percentile": placement.percentile,
        "service_s": placement.service_s,
        "profile": _profile(placement),
        "input_tokens": placement.input_tokens,
        "output_tokens": placement.output_tokens,
        "slots": placement.slots,
        "startup_s": placement.startup_s,
        "headroom": placement.headroom,
        "idle_window_s": placement.scale_to_zero_after_s,
        "learn_reserve": placement.standby,
        "demand_url": target.demand_urls.get(placement.pool),
        "decisions_address": target.decisions_address,
        "only_version": _only_version(service, placement, target),
    }


def _only_version(service: str, placement: Placement, target: ServeTarget) -> str | None:
    """Of a replica that has none beside it while it is replaced; None where there is one."""
    if target.surge or placement.max_replicas > 1:
        return None
    return hashlib.sha256(json.dumps(_args(service, placement, target), sort_keys=True).encode()).hexdigest()[:12]
