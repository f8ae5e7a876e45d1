"""Ray Serve configuration (declarative), the same for the local runtime and as serveConfigV2 of a RayService.

Ray Serve (2.60) replaces every replica if `args`, `policy_kwargs` or `ray_actor_options` change, so these contain only
what a replica's process is started with: model, source, engine, slots, context, resources. All else is in fields that
change without a restart: minimum and maximum in `autoscaling_config`, the policy's settings in the `user_config` of the
deployment `autoscaling`, parameters of emulation in the replica's `user_config`. See
docs/decisions/0010-what-restarts-a-replica.md.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tierserve.plan.placement import Placement

IMPORT_PATH = "tierserve_serving.app:build"
POLICY = "tierserve_serving.policy:ErlangPolicy"
SETTINGS_DEPLOYMENT = "autoscaling"
"""Deployment of `tierserve_serving.app` without replicas, whose `user_config` holds the policy's settings."""
# Queue of a replica per slot. Requests queue at the gateway; this only absorbs the excess until the gateway's agent has
# polled the number of replicas.
QUEUE_PER_SLOT = 2
METRICS_INTERVAL_S = 0.5
KEEP_ALIVE_S = 15
"""Keep-alive timeout of Ray's HAProxy, in seconds. At each change of replicas a new process replaces it, and the old
one stays until its last connection is closed: a node is not released while a gateway has an idle connection to it."""
LINGER_S = 5
"""How long a stopping replica accepts new requests, in seconds: longer than Ray's HAProxy takes to remove it."""
STOP_MARGIN_S = 5
"""Seconds beyond linger and responseTimeout for a replica to exit by itself before Ray kills it."""
RAY_HAPROXY_ENV = {
    # Ray's default of 120 s would cut off longer responses whenever the set of replicas changes. A day, since it cannot
    # be `gateway.responseTimeout`: a change of this value would replace the Ray cluster.
    "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "86400",
    # The default is the value above plus 30 s. An old process gets no new request after KEEP_ALIVE_S without one.
    "RAY_SERVE_PORT_QUARANTINE_S": "150",
    # Ray's default of 30 s would delay the replica that replaces it on the same node.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(LINGER_S),
    # How long the proxy of a node without replicas stays, and with it the node and its accelerators. The default is
    # 30 s; KubeRay's readiness probe (every 5 s, one failure) removes the pod from its Service in less than half of it.
    "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": "15",
}
"""Environment of Ray's processes: timeouts of old HAProxy processes, of replicas' ports, and of stopping replicas."""


SURGE_PERCENT = 20
"""Percentage of the replicas, rounded up, that start before old ones stop: as many as Serve replaces at once."""


@dataclass(frozen=True, slots=True)
class ServeTarget:
    """Settings of the runtime for the Serve applications.

    Attributes:
        http_host, http_port: address of Serve's proxy.
        decisions_address: address at which the policies publish their decisions, host:port.
        demand_urls: URL of the gateway agent's sample, by pool.
        response_timeout_s: how long a stopping replica may finish the requests it has, in seconds.
        emulate_network: delay requests by t_UL and t_DL, if there is no real network between gateway and tier.
        proxy_location: nodes on which Serve's proxies run.
        replica_resources: custom resources of Ray that a replica requires, by name.
        replica_gpus: accelerators per replica.
        replica_threads: CPU threads per replica; 0 for the CPUs that it may use.
        surge: whether a rollout may run more replicas than desired.
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
    replica_threads: int = 0
    surge: bool = False


def node_labels(placement: Placement, service: str) -> dict[str, str]:
    """Ray node labels that a placement's replicas require."""
    return {
        "tierserve.io/deployment": service,
        "tierserve.io/tier": placement.tier,
        "tierserve.io/site": placement.site,
    }


def serve_config(service: str, placements: Sequence[Placement], target: ServeTarget) -> dict[str, Any]:
    """Serve configuration with one application per pool: the body of `PUT /api/serve/applications/`."""
    return {
        "proxy_location": target.proxy_location,
        "http_options": {"host": target.http_host, "port": target.http_port, "keep_alive_timeout_s": KEEP_ALIVE_S},
        "applications": [application(service, placement, target) for placement in placements],
    }


def application(service: str, placement: Placement, target: ServeTarget) -> dict[str, Any]:
    """Serve application of one pool; application name and route are the name of the pool."""
    return {
        "name": placement.pool,
        "route_prefix": f"/{placement.pool}",
        "import_path": IMPORT_PATH,
        "args": _args(service, placement, target),
        "deployments": [
            _deployment(service, placement, target),
            {"name": SETTINGS_DEPLOYMENT, "user_config": _policy_settings(placement, target)},
        ],
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
        "context_tokens": placement.context_tokens,
        **({"engine_args": dict(placement.engine_args)} if placement.engine_args else {}),
        **({"adapters": dict(placement.adapters)} if placement.adapters else {}),
        **({"tensor_parallel": placement.per_replica} if placement.engine == "vllm" else {}),
        **({"threads": target.replica_threads} if target.replica_threads else {}),
    }


def _replica_user_config(placement: Placement, target: ServeTarget) -> dict[str, Any]:
    """Parameters of emulation; empty if there are none, since Ray's proxy drops a replica while it reconfigures."""
    # Rounded, so that a mean request that is a few bytes longer does not reconfigure replicas.
    times = {"uplink_s": round(placement.uplink_s, 4), "downlink_s": round(placement.downlink_s, 4)}
    network = times if target.emulate_network else {}
    if placement.engine != "emulated":
        return network
    return {**network, "profile": _profile(placement), "output_tokens": placement.output_tokens}


def _profile(placement: Placement) -> dict[str, float]:
    profile = placement.profile
    return {"alpha": profile.alpha, "beta": profile.beta, "gamma": profile.gamma}


def _deployment(service: str, placement: Placement, target: ServeTarget) -> dict[str, Any]:
    user_config = _replica_user_config(placement, target)
    return {
        "name": "replica",
        **({"user_config": user_config} if user_config else {}),
        "ray_actor_options": _actor_options(service, placement, target),
        # An upper bound: Ray stops the replica after its last request.
        "graceful_shutdown_timeout_s": LINGER_S + target.response_timeout_s + STOP_MARGIN_S,
        "graceful_shutdown_wait_loop_s": 0.5,
        "health_check_period_s": 5,
        "health_check_timeout_s": 30,
        **({"max_surge_percent": SURGE_PERCENT} if target.surge else {}),
        "autoscaling_config": _autoscaling(service, placement, target),
    }


def _actor_options(service: str, placement: Placement, target: ServeTarget) -> dict[str, Any]:
    options: dict[str, Any] = {"num_cpus": 0, "label_selector": node_labels(placement, service)}
    if target.replica_resources:
        options["resources"] = dict(target.replica_resources)
    if target.replica_gpus:
        options["num_gpus"] = target.replica_gpus
    return options


def _autoscaling(service: str, placement: Placement, target: ServeTarget) -> dict[str, Any]:
    # Serve's own delays are 0: the policy decides when to scale up and down.
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
    """Arguments of the policy that change only together with the replicas."""
    return {
        "pool": placement.pool,
        "settings_deployment": SETTINGS_DEPLOYMENT,
        "demand_url": target.demand_urls.get(placement.pool),
        "decisions_address": target.decisions_address,
        "process_version": _process_version(service, placement, target),
    }


def _policy_settings(placement: Placement, target: ServeTarget) -> dict[str, Any]:
    """Settings that the policy applies without a restart, within about a second; it keeps its learned state."""
    window_s = placement.stabilization_window_s
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
        **({"max_wait_s": placement.max_wait_s} if math.isfinite(placement.max_wait_s) else {}),
        **({"stabilization_window_s": window_s} if window_s is not None else {}),
        "idle_window_s": placement.scale_to_zero_after_s,
        "surge": target.surge,
    }


def _process_version(service: str, placement: Placement, target: ServeTarget) -> str:
    """Hash that changes if replicas are replaced: the policy then has gateways drain a pool of one replica."""
    process = [_args(service, placement, target), _actor_options(service, placement, target)]
    return hashlib.sha256(json.dumps(process, sort_keys=True).encode()).hexdigest()[:12]
