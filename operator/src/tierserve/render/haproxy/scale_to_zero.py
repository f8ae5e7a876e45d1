"""How requests wait at a pool that sleeps, that is, has no replica but may have one.

HAProxy refuses at once where no server of a backend may be used; it queues where all are full. So such a pool has a
second server, a `backup` of one slot, and the agent keeps that slot taken with a request that never ends. While the
pool sleeps, its own server is in maintenance (without health checks, which would reach Ray Serve and wake the pool) and
the backup has a weight: all slots are taken, and requests wait in the queue of the backend until the first replica is
up. The weight is the time in seconds that a start takes, as learned: it is what the wait is reckoned with, and what
Retry-After says. Without the agent's request whoever comes is answered 503.
"""

from __future__ import annotations

from tierserve.render.haproxy.model import WAITING_ROOM, GatewayPool, GatewaySpec, error_body, hold_socket, wake_socket

_FOREVER = "24d"  # HAProxy's times are milliseconds in 31 bits


def sleep_sections(spec: GatewaySpec) -> list[list[str]]:
    """The two ends of the agent's request: where it comes in, and where it stays. None where no pool sleeps."""
    if not any(pool.sleeps for pool in spec.pools):
        return []
    body = error_body("the tier sleeps; it has been told to wake", "server_error", "tier_unavailable")
    come_in = [
        "frontend wake",
        f"    bind unix@{wake_socket(spec.admin_socket)} mode 600",
        f"    timeout client {_FOREVER}",
        "    use_backend pool_%[path,field(2,/)]",
    ]
    stay = [
        "frontend hold",
        f"    bind unix@{hold_socket(spec.admin_socket)} mode 600",
        f"    timeout client {_FOREVER}",
        f"    http-request wait-for-body time {_FOREVER} at-least 1 if {{ req.hdr(X-TierServe-Hold) -m found }}",
        f"    http-request return status 503 content-type application/json string '{body}'"
        f" hdr Retry-After {spec.retry_after_s}",
    ]
    return [come_in, stay]


def sleep_lines(spec: GatewaySpec, pool: GatewayPool) -> list[str]:
    """What the backend of a pool has besides its own server."""
    if not pool.sleeps:
        return []
    start_s = f"srv_uweight({pool.backend}/{WAITING_ROOM})"
    message = "no slot came free in time: the tier is full, still starting, or cannot be reached"
    body = error_body(message, "server_error", "overloaded")
    return [
        # Without it a backup that is alone is taken though it is full, and requests wait in its own queue for good.
        "option allbackups",
        f"http-request set-timeout server {_FOREVER} if {{ fe_name wake }}",
        "http-request set-header X-TierServe-Hold 1 if { fe_name wake }",
        "http-request del-header X-TierServe-Hold unless { fe_name wake }",
        f"use-server {WAITING_ROOM} if {{ fe_name wake }}",
        f"http-error status 503 content-type application/json string '{body}' hdr Retry-After {spec.retry_after_s}",
        f"http-after-response set-header Retry-After %[{start_s}] if {{ status 503 }} {{ {start_s} gt 0 }}",
        f"server {WAITING_ROOM} unix@{hold_socket(spec.admin_socket)} backup maxconn 1 weight 0",
    ]
