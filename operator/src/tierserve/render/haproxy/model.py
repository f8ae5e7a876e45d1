"""What the gateway knows: pools, classes, addresses and bounds; and the names that its file and the agent share."""

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
"""In place of an address to listen on: all of IPv6 and IPv4. The gateway's entry point sets the variable to [::] where
the kernel has IPv6 (without it HAProxy would not start), and HAProxy reads an empty one as all of IPv4."""

OFFERED_TABLE = "offered"
"""Name of the stick-table that counts arrivals; its keys are ``class|model|pool|how``, see `route_key`."""

DIRECT, QUEUED, REFUSED = "d", "q", "r"
"""How a request fared on arrival: a slot was free; it waits at the pool; every queue was full or every tier down."""

COMPLETION_PATHS = ("/v1/chat/completions", "/v1/completions")
"""What replicas serve, all by POST; every other path is answered by the gateway itself."""

INTERNAL = "internal"
"""Name of the socket on which requests come back from the agent, with their model in `MODEL_HEADER`."""

WAITING_ROOM = "w"
"""Name of the second server of a pool that may sleep, see `render/haproxy/scale_to_zero.py`."""


@dataclass(frozen=True, slots=True)
class GatewayPool:
    """One tier at one site behind the gateway.

    Args:
        name: pool name, ``tier-site``.
        host, port: where Ray Serve's proxy of this pool listens.
        path_prefix: put in front of the path of each request, e.g. ``/edge-default``; empty for none.
        max_in_flight: requests let in at once until the agent says otherwise: replicas x slots; 0 starts drained.
        slots: requests one replica holds at once.
        models: names of the variants served here.
        service_s: expected seconds of service, to compare the waits of pools when all are full.
        slack_s: longest wait that still keeps the objective. When the queue would take longer, the newest are answered
            first; None: always first come, first served.
        health_path: asked without a class or model, behind the prefix; 2xx or 3xx is healthy.
        sleeps: it may have no replica; then requests that nobody else serves wait for one in its queue.
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
    sleeps: bool = False

    @property
    def backend(self) -> str:
        """Name of the pool's HAProxy backend."""
        return backend_name(self.name)


@dataclass(frozen=True, slots=True)
class GatewayClass:
    """A traffic class and the only tiers it may use, in the order in which it overflows.

    Args:
        name: as clients give it in `CLASS_HEADER`.
        tiers: tiers it may use.
        strictness: rank of its privacy, 0 for public; a header may not choose a class of less than the default's.
    """

    name: str
    tiers: tuple[str, ...]
    strictness: int = 0


@dataclass(frozen=True, slots=True)
class GatewaySpec:
    """All that the gateway of one service needs to know.

    Args:
        service: name of the GenAIDeployment; as a model name it means any variant.
        version: what ``GET /version`` shows.
        cors_origins: origins whose pages may call the gateway, or ``*``; none switches CORS off.
        max_queue: requests that may wait at one pool; above it the answer is 503 with Retry-After.
        queue_timeout_s: longest wait for a slot. connect_timeout_s: to reach a pool.
        response_timeout_s: longest silence of a pool before and between the parts of its answer.
        client_timeout_s: longest silence of a client that should be sending or reading.
        log_address: where the agent listens, ``host:port`` (UDP) or the absolute path of a Unix datagram socket.
        metrics_port: HAProxy's own Prometheus exporter; None leaves it out.
        retries: how often a request that got no answer is sent again.
        max_connections: None lets HAProxy derive it from the limit of open files.
        tls_certificate: path of a PEM file with certificate and key; None serves plain HTTP.
        plain_port: port on which plain HTTP is redirected to https, or refused; None where nothing listens beside TLS.
        plain_http: `redirect` or `refuse`.
        drain_timeout_s: how long a process may finish its streams after a reload.
        bind, metrics_bind: addresses to listen on, or `ANY_ADDRESS`.
        resolve: pools' hosts are names to be resolved as long as the gateway runs, by the servers of /etc/resolv.conf,
            to addresses of this family (ipv4, ipv6) first; None where they are no such names;
            one that is not known yet does not keep it from starting.
        states_file: where a reload leaves which pools are down or drained, for the process that takes over. It keeps
            ports too: only where those of pools never change.
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
    states_file: str | None = None

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
    """A host as it stands before a port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def backend_name(pool: str) -> str:
    """Name of the HAProxy backend of a pool; its server is always called ``s``."""
    return f"pool_{pool}"


def read_socket(admin_socket: str) -> str:
    """Path of the Unix socket where the agent reads the model of requests that HAProxy cannot read."""
    return f"{admin_socket}.read"


def internal_socket(admin_socket: str) -> str:
    """Path of the Unix socket on which such requests come back."""
    return f"{admin_socket}.{INTERNAL}"


def wake_socket(admin_socket: str) -> str:
    """Path of the Unix socket that takes the agent's requests to hold sleeping pools."""
    return f"{admin_socket}.wake"


def hold_socket(admin_socket: str) -> str:
    """Path of the Unix socket behind which they stay."""
    return f"{admin_socket}.hold"


def route_key(cls: str, model: str, pool: str, how: str) -> str:
    """Key of the arrival table: ``model`` is ``*`` for any, ``pool`` is ``-`` when the request was refused."""
    return f"{cls}|{model}|{pool}|{how}"


def error_body(message: str, kind: str, code: str) -> str:
    """An error in the shape of the OpenAI API, safe inside single quotes of an HAProxy file."""
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return json.dumps(body, ensure_ascii=True).replace("'", "\\u0027")
