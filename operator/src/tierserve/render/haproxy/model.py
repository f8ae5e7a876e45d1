"""Input of the HAProxy configuration: pools, classes, addresses and limits; and names that the agent uses too."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import chain

CLASS_HEADER = "X-TierServe-Class"
MODEL_HEADER = "X-TierServe-Model"
POOL_HEADER = "X-TierServe-Pool"
REQUEST_ID_HEADER = "X-Request-ID"
REQUEST_START_HEADER = "X-Request-Start"

ANY_ADDRESS = "${TIERSERVE_BIND_ADDRESS}"
"""Bind address for all of IPv6 and IPv4. The gateway's entry point sets the variable to [::] if the kernel has IPv6
(without IPv6 HAProxy would not start with [::]); HAProxy reads an empty one as all of IPv4."""

OFFERED_TABLE = "offered"
"""Name of the stick-table that counts arrivals; its keys are ``class|model|pool|outcome``, see `route_key`."""

DIRECT, QUEUED, REFUSED = "d", "q", "r"
"""Outcome of routing: direct (a slot was free), queued at the pool, refused (all queues full or all tiers down)."""

COMPLETION_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
"""Paths that replicas serve (POST); the gateway itself responds to every other path."""

INTERNAL = "internal"
"""Name of the socket on which the agent sends requests back, with their model in `MODEL_HEADER`."""

WAITING_ROOM = "w"
"""Name of the backup server of a pool that may scale to zero, see `render/haproxy/scale_to_zero.py`."""


@dataclass(frozen=True, slots=True)
class GatewayPool:
    """One tier at one site behind the gateway.

    Args:
        name: pool name, ``tier-site``.
        host, port: where Ray Serve's proxy of this pool listens.
        path_prefix: prepended to the path of each request, e.g. ``/edge-default``; empty for none.
        max_in_flight: initial limit of concurrent requests, replicas x slots, until the agent sets it; 0 is drained.
        slots: concurrent requests per replica.
        models: names of the variants that the pool serves.
        service_s: expected service time in seconds, to compare the waits of pools if all are full.
        slack_s: longest wait in seconds that still meets the objective. If the wait would be longer, the newest
            requests are served first (adaptive LIFO); None: always first come, first served.
        health_path: path of the health check, after the prefix; 2xx or 3xx is healthy.
        scale_to_zero: the pool may have no replica; requests that no other pool serves then wait in its queue.
    """

    name: str
    tier: str
    host: str
    port: int
    path_prefix: str = ""
    max_in_flight: int = 1
    slots: int = 1
    models: tuple[str, ...] = ()
    service_s: float = 1.0
    slack_s: float | None = None
    health_path: str = "/healthz"
    scale_to_zero: bool = False

    @property
    def backend(self) -> str:
        """Name of the pool's HAProxy backend."""
        return backend_name(self.name)


@dataclass(frozen=True, slots=True)
class GatewayClass:
    """A traffic class and its allowed tiers, in the order of preference.

    Args:
        name: value of `CLASS_HEADER`.
        tiers: allowed tiers.
        strictness: rank of its privacy, 0 for public; the header must not name a class below the default's rank.
    """

    name: str
    tiers: tuple[str, ...]
    strictness: int = 0


@dataclass(frozen=True, slots=True)
class GatewaySpec:
    """Input of the HAProxy configuration of one service; times in seconds.

    Args:
        service: name of the GenAIDeployment; as a model name it means any variant.
        version: response of ``GET /version``.
        cors_origins: origins whose pages may call the gateway, or ``*``; empty disables CORS.
        max_queue: maximum queue length of a pool; above it the response is 503 with Retry-After.
        queue_timeout_s: maximum wait for a slot (`timeout queue`). connect_timeout_s: `timeout connect`.
        response_timeout_s: maximum time without data from a pool (`timeout server`).
        client_timeout_s: maximum time without data from or to a client (`timeout client`).
        log_address: log receiver of the agent, ``host:port`` (UDP) or the absolute path of a Unix datagram socket.
        metrics_port: port of HAProxy's Prometheus exporter; None disables it.
        retries: number of retries of a request without a response.
        max_connections: `maxconn` of the process; None lets HAProxy derive it from the limit of open files.
        tls_certificate: path of a PEM file with certificate and key; None serves plain HTTP.
        plain_port: port on which plain HTTP is redirected to https, or refused; None for no such port.
        plain_http: `redirect` or `refuse`.
        drain_timeout_s: maximum time for the old process to finish its streams after a reload (`hard-stop-after`).
        bind, metrics_bind: addresses to listen on, or `ANY_ADDRESS`.
        resolve: hosts of pools are DNS names, resolved at run time by the servers of /etc/resolv.conf, addresses of
            this family (ipv4, ipv6) preferred; a name without an address does not prevent the start. None: they are
            addresses, or names resolved at the start.
        server_state_file: file in which a reload saves which pools are down or drained, for the new process. It
            includes ports, so it is only for deployments whose pools keep their ports.
    """

    service: str
    port: int
    pools: tuple[GatewayPool, ...]
    classes: tuple[GatewayClass, ...]
    default_class: str
    admin_socket: str
    version: str = "unknown"
    cors_origins: tuple[str, ...] = ()
    bind: str = "127.0.0.1"
    log_address: str | None = None
    metrics_bind: str = "127.0.0.1"
    metrics_port: int | None = None
    max_queue: int = 1000
    queue_timeout_s: float = 30.0
    connect_timeout_s: float = 2.0
    response_timeout_s: float = 120.0
    client_timeout_s: float = 60.0
    drain_timeout_s: float = 600.0
    retries: int = 1
    retry_after_s: int = 1
    max_body_bytes: int = 8 * 2**20
    buffer_bytes: int = 64 * 2**10
    threads: int = 1
    max_connections: int | None = None
    tls_certificate: str | None = None
    plain_port: int | None = None
    plain_http: str = "redirect"
    health_interval_s: float = 2.0
    resolve: str | None = None
    server_state_file: str | None = None

    @property
    def tiers(self) -> tuple[str, ...]:
        """Tiers that have a pool, in the order of the pools."""
        return tuple(dict.fromkeys(p.tier for p in self.pools))

    @property
    def models(self) -> tuple[str, ...]:
        """Variants of all pools, each once, without the service's own name."""
        names = dict.fromkeys(chain.from_iterable(p.models for p in self.pools))
        return tuple(m for m in names if m != self.service)


def bracketed(host: str) -> str:
    """Host for use before a port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def backend_name(pool: str) -> str:
    """Name of the HAProxy backend of a pool; its server is always called ``s``."""
    return f"pool_{pool}"


def read_socket(admin_socket: str) -> str:
    """Path of the Unix socket on which the agent receives requests whose model HAProxy cannot read."""
    return f"{admin_socket}.read"


def internal_socket(admin_socket: str) -> str:
    """Path of the Unix socket on which the agent sends such requests back."""
    return f"{admin_socket}.{INTERNAL}"


def hold_entry_socket(admin_socket: str) -> str:
    """Path of the Unix socket to which the agent sends the requests that occupy waiting rooms."""
    return f"{admin_socket}.entry"


def hold_socket(admin_socket: str) -> str:
    """Path of the Unix socket of the frontend that never answers these requests."""
    return f"{admin_socket}.hold"


def route_key(cls: str, model: str, pool: str, outcome: str) -> str:
    """Key of the arrival table: ``model`` is ``*`` for any, ``pool`` is ``-`` if the request was refused."""
    return f"{cls}|{model}|{pool}|{outcome}"


def error_body(message: str, kind: str, code: str) -> str:
    """Error object of the OpenAI API as JSON, safe inside single quotes of an HAProxy file."""
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return json.dumps(body, ensure_ascii=True).replace("'", "\\u0027")
