"""Placements -> the declarative configuration of Ray Serve, the same on a laptop and as serveConfigV2 in a RayService.

Ray Serve (2.60) replaces every replica when `args`, `policy_kwargs` or `ray_actor_options` change, so they hold only
what a replica's process is made from: model, source, engine, slots, context, resources. Everything else is in fields
that replicas outlive: bounds in `autoscaling_config`, the policy's settings in the `user_config` of the deployment
`autoscaling`, what a replica emulates in its own `user_config`. docs/decisions/0010-what-restarts-a-replica.md.
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
SETTINGS_DEPLOYMENT = "autoscaling"
"""Deployment of `tierserve_serving.app` without replicas, whose `user_config` holds the policy's settings."""
# What a replica may hold beyond its slots: the gateway queues centrally, this only evens out the moment between two
# polls of the gateway's agent.
QUEUE_PER_SLOT = 2
METRICS_INTERVAL_S = 0.5
IDLE_S = 15
"""How long Ray's HAProxy keeps a connection that nobody uses. At each change of replicas it goes on as a new process,
and the old one stays until its last connection ends: a node is not given back while one of a gateway's idles there."""
LINGER_S = 5
"""How long a replica that stops takes new requests: longer than Ray's HAProxy takes to leave it."""
STOP_MARGIN_S = 5
"""Beyond linger and responseTimeout, for a replica to end by itself before Ray kills it."""
RELOADS = {
    # Ray's own 120 s would cut off an answer that takes longer, whenever replicas come or go meanwhile. A day, since it
    # cannot follow `gateway.responseTimeout`: another value here would make a new Ray cluster.
    "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "86400",
    # Else so long as that and 30 s. An old process takes no new request after IDLE_S without one.
    "RAY_SERVE_PORT_QUARANTINE_S": "150",
    # Ray's own 30 s keep the node from the replica that takes its place.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(LINGER_S),
    # How long the proxy of a node without replicas stays, and with it the node and its accelerators. Ray's own is 30 s;
    # a readiness probe of KubeRay (every 5 s, one failure) takes the pod out of its Service in less than half of that.
    "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": "15",
}
"""Environment of Ray's processes: what becomes of the old process, of the ports of replicas that it knew, and of a
replica that stops."""


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
        response_timeout_s: how long a replica that stops may go on with what it has begun.
        proxy_location: on which nodes Serve's proxies run.
        replica_resources: Ray's custom resources that a replica takes of its node, by name.
        replica_gpus: accelerators that Ray hands to a replica.
        surge: whether there may be room for a replica more than wanted while a new version replaces the old one.
    """

    http_host: str
    http_port: int
    decisions_address: str
    demand_urls: Mapping[str, str]
    response_timeout_s: float
    emulate_network: bool = False
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
        "args": _args(service, placement),
        "deployments": [
            _deployment(service, placement, target),
            {"name": SETTINGS_DEPLOYMENT, "user_config": _policy_settings(placement, target)},
        ],
    }


def _args(service: str, placement: Placement) -> dict[str, Any]:
    return {
        "service": service,
        "tier": placement.tier,
        "site": placement.site,
        "model": placement.model,
        "engine": placement.engine,
        "source": placement.source,
        "slots": placement.slots,
        "max_queue": QUEUE_PER_SLOT * placement.slots,
        "context_tokens": placement.context_tokens,
    }


def _live_config(placement: Placement, target: ServeTarget) -> dict[str, Any]:
    """What a replica emulates; empty where nothing is, since a replica leaves Ray's proxy while it takes it up."""
    # Rounded: a mean request that is a few bytes longer is no change of the network.
    times = {"uplink_s": round(placement.uplink_s, 4), "downlink_s": round(placement.downlink_s, 4)}
    network = times if target.emulate_network else {}
    if placement.engine != "emulated":
        return network
    return {**network, "profile": _profile(placement), "output_tokens": placement.output_tokens}


def _profile(placement: Placement) -> dict[str, float]:
    profile = placement.profile
    return {"alpha": profile.alpha, "beta": profile.beta, "gamma": profile.gamma}


def _deployment(service: str, placement: Placement, target: ServeTarget) -> dict[str, Any]:
    live = _live_config(placement, target)
    return {
        "name": "replica",
        **({"user_config": live} if live else {}),
        "ray_actor_options": _actor_options(service, placement, target),
        # An upper bound: Ray ends the replica when its last request has.
        "graceful_shutdown_timeout_s": LINGER_S + target.response_timeout_s + STOP_MARGIN_S,
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
        "max_replicas": placement.max_replicas,
        "upscale_delay_s": 0,
        "downscale_delay_s": 0,
        "metrics_interval_s": METRICS_INTERVAL_S,
        "look_back_period_s": 2.0,
        "policy": {"policy_function": POLICY, "policy_kwargs": _policy_kwargs(service, placement, target)},
    }


def _policy_kwargs(service: str, placement: Placement, target: ServeTarget) -> dict[str, Any]:
    """What stays the same as long as the replicas do."""
    return {
        "pool": placement.pool,
        "settings_deployment": SETTINGS_DEPLOYMENT,
        "demand_url": target.demand_urls.get(placement.pool),
        "decisions_address": target.decisions_address,
        "process_version": _process_version(service, placement, target),
    }


def _policy_settings(placement: Placement, target: ServeTarget) -> dict[str, Any]:
    """What the policy takes up while replicas run, within about a second; what it has learned stays."""
    return {
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
        "adaptive_standby": placement.standby,
        "surge": target.surge,
    }


def _process_version(service: str, placement: Placement, target: ServeTarget) -> str:
    """A word that changes when replicas are replaced: the policy then lets gateways leave a pool of one replica."""
    process = [_args(service, placement), _actor_options(service, placement, target)]
    return hashlib.sha256(json.dumps(process, sort_keys=True).encode()).hexdigest()[:12]
