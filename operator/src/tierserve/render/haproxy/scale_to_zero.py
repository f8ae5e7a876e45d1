"""Queueing at a pool that is scaled to zero.

HAProxy refuses a request at once if no server of the backend is usable, and queues it if all servers are full. So such
a pool has a second server, a `backup` with maxconn 1 (the waiting room), and the agent occupies it with a request that
never ends. While the pool is scaled to zero, its own server is in maintenance (without health checks, which Ray Serve
would count as demand) and the backup has a weight: all servers are full, and requests wait in the queue of the backend
until the first replica is up. The weight is the measured start-up time in seconds: it is used for the expected wait and
for Retry-After. Without the agent's request the response is 503.
"""

from __future__ import annotations

from tierserve.render.haproxy.model import (
    WAITING_ROOM,
    GatewayPool,
    GatewaySpec,
    error_body,
    hold_entry_socket,
    hold_socket,
)

_FOREVER = "24d"  # HAProxy's times are milliseconds in 31 bits


def scale_to_zero_sections(spec: GatewaySpec) -> list[list[str]]:
    """Frontends for the agent's request: `hold_entry` receives it, `hold` never answers it. Empty if not needed."""
    if not any(pool.scale_to_zero for pool in spec.pools):
        return []
    body = error_body("the tier is scaled to zero; a replica is starting", "server_error", "tier_unavailable")
    entry = [
        "frontend hold_entry",
        f"    bind unix@{hold_entry_socket(spec.admin_socket)} mode 600",
        f"    timeout client {_FOREVER}",
        "    use_backend pool_%[path,field(2,/)]",
    ]
    hold = [
        "frontend hold",
        f"    bind unix@{hold_socket(spec.admin_socket)} mode 600",
        f"    timeout client {_FOREVER}",
        f"    http-request wait-for-body time {_FOREVER} at-least 1 if {{ req.hdr(X-TierServe-Hold) -m found }}",
        f"    http-request return status 503 content-type application/json string '{body}'"
        f" hdr Retry-After {spec.retry_after_s}",
    ]
    return [entry, hold]


def scale_to_zero_lines(spec: GatewaySpec, pool: GatewayPool) -> list[str]:
    """Lines of the backend of a pool that may scale to zero, besides its own server; empty for other pools."""
    if not pool.scale_to_zero:
        return []
    start_s = f"srv_uweight({pool.backend}/{WAITING_ROOM})"
    message = "queue timeout: the tier is full, is starting, or cannot be reached"
    body = error_body(message, "server_error", "overloaded")
    return [
        # Without it a single backup is chosen though it is full, and requests stay in the queue of that server.
        "option allbackups",
        f"http-request set-timeout server {_FOREVER} if {{ fe_name hold_entry }}",
        "http-request set-header X-TierServe-Hold 1 if { fe_name hold_entry }",
        "http-request del-header X-TierServe-Hold unless { fe_name hold_entry }",
        f"use-server {WAITING_ROOM} if {{ fe_name hold_entry }}",
        f"http-error status 503 content-type application/json string '{body}' hdr Retry-After {spec.retry_after_s}",
        f"http-after-response set-header Retry-After %[{start_s}] if {{ status 503 }} {{ {start_s} gt 0 }}",
        f"server {WAITING_ROOM} unix@{hold_socket(spec.admin_socket)} backup maxconn 1 weight 0",
    ]
