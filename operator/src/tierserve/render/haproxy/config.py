"""HAProxy configuration of the gateway, from pools and traffic classes (pure text, no I/O).

One frontend, one backend per pool. The server of a pool has ``maxconn`` = replicas x slots, so HAProxy sends at most
as many requests as the replicas can hold and keeps the others in the backend's FIFO queue: all replicas share one
queue, as the c servers of an M/M/c queue do. The pool is chosen when a request arrives, see ``docs/gateway.md``.

Checked against HAProxy 2.8 (configuration manual, sections 4.2 and 7.3); needs 2.6 or newer.
"""

from __future__ import annotations

from collections.abc import Iterable

from tierserve.render.haproxy.entry import entry_rules
from tierserve.render.haproxy.model import (
    ANY_ADDRESS,
    INTERNAL,
    OFFERED_TABLE,
    POOL_HEADER,
    GatewayClass,
    GatewayPool,
    GatewaySpec,
    bracketed,
    error_body,
    internal_socket,
    read_socket,
)
from tierserve.render.haproxy.routing import reply, routing_rules
from tierserve.render.haproxy.scale_to_zero import scale_to_zero_lines, scale_to_zero_sections
from tierserve.render.haproxy.validation import check_spec

__all__ = ["GatewayClass", "GatewayPool", "GatewaySpec", "render_haproxy"]


def render_haproxy(spec: GatewaySpec) -> str:
    """HAProxy configuration file for `spec`.

    Raises:
        ValueError: a name has characters that the file cannot hold, no tier of a class has a pool, the default class
            does not exist, or a port is out of range; the message names the field and the value.
    """
    check_spec(spec)
    sections = [
        _global(spec),
        _defaults(spec),
        *_resolvers(spec),
        _table(),
        *_metrics(spec),
        *_plain(spec),
        _frontend(spec),
    ]
    sections += [_read_model(spec), *scale_to_zero_sections(spec)]
    sections += [_backend(spec, pool) for pool in spec.pools]
    return "\n\n".join("\n".join(s) for s in sections) + "\n"


def _section(head: str, lines: Iterable[str]) -> list[str]:
    return [head, *(f"    {line}" for line in lines)]


def _ms(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"


def _global(spec: GatewaySpec) -> list[str]:
    lines = [
        f"nbthread {spec.threads}",
        f"stats socket {spec.admin_socket} mode 600 level admin expose-fd listeners",
        "stats timeout 30s",
        f"tune.bufsize {spec.buffer_bytes}",
        f"hard-stop-after {_ms(spec.drain_timeout_s)}",
    ]
    if spec.server_state_file is not None:
        lines.append(f"server-state-file {spec.server_state_file}")
    if spec.max_connections is not None:
        lines.append(f"maxconn {spec.max_connections}")
    if spec.log_address is not None:
        lines.append(f"log {spec.log_address} len 2048 format raw local0 info")
    return _section("global", lines)


def _defaults(spec: GatewaySpec) -> list[str]:
    return _section(
        "defaults",
        [
            "mode http",
            "option dontlognull",
            "option abortonclose",
            "option forwardfor",
            # A token is a small write: without this option HAProxy delays it by up to 200 ms, to fill a packet.
            "option http-no-delay",
            "timeout http-request 30s",
            "timeout http-keep-alive 60s",
            f"timeout client {_ms(spec.client_timeout_s)}",
            f"timeout connect {_ms(spec.connect_timeout_s)}",
            f"timeout server {_ms(spec.response_timeout_s)}",
            f"timeout queue {_ms(spec.queue_timeout_s)}",
            "timeout check 5s",
            *(["load-server-state-from-file global"] if spec.server_state_file is not None else []),
            *_own_errors(spec),
        ],
    )


def _own_errors(spec: GatewaySpec) -> list[str]:
    """Errors that HAProxy itself returns, as JSON in place of its HTML pages."""
    retry = f" hdr Retry-After {spec.retry_after_s}"
    table = [
        (400, "the request is not valid HTTP", "invalid_request_error", "bad_request", ""),
        (403, "the request is forbidden", "invalid_request_error", "forbidden", ""),
        (408, "timeout while receiving the request", "invalid_request_error", "request_timeout", ""),
        (413, "the request is too large", "invalid_request_error", "request_too_large", ""),
        (500, "internal error of the gateway", "server_error", "internal_error", ""),
        (502, "the tier closed the connection without a valid response", "server_error", "bad_gateway", ""),
        (503, "queue timeout, or the tier cannot be reached", "server_error", "overloaded", retry),
        (504, "the tier did not respond in time", "server_error", "gateway_timeout", ""),
    ]
    return [
        f"http-error status {status} content-type application/json string '{error_body(text, kind, code)}'{extra}"
        for status, text, kind, code, extra in table
    ]


def _resolvers(spec: GatewaySpec) -> list[list[str]]:
    if not spec.resolve:
        return []
    lines = ["parse-resolv-conf", "accepted_payload_size 8192", "hold valid 5s", "hold nx 2s", "timeout retry 1s"]
    return [_section("resolvers names", lines)]


def _table() -> list[str]:
    # No expiry and nopurge: the agent computes differences of these counters.
    return _section(f"backend {OFFERED_TABLE}", ["stick-table type string len 256 size 64k nopurge store gpc0"])


def _bind(address: str, port: int) -> str:
    if address == ANY_ADDRESS:
        return f'bind "{address}:{port}" v4v6'
    return f"bind {bracketed(address)}:{port}"


def _metrics(spec: GatewaySpec) -> list[list[str]]:
    if spec.metrics_port is None:
        return []
    lines = [
        _bind(spec.metrics_bind, spec.metrics_port),
        "http-request use-service prometheus-exporter if { path /metrics }",
        "http-request return status 404 content-type text/plain string 'metrics are at /metrics'",
    ]
    return [_section("frontend metrics", lines)]


def _plain(spec: GatewaySpec) -> list[list[str]]:
    """Frontend for plain HTTP where the gateway has TLS: redirects to https, or refuses."""
    if spec.tls_certificate is None or spec.plain_port is None:
        return []
    # The Host header may contain the port of plain HTTP, which is not that of https. 308 keeps method and body.
    host = r"%[req.hdr(host),regsub(:[0-9]+\$,)]"
    answer = {
        "redirect": f'http-request redirect code 308 location "https://{host}%[pathq]"',
        "refuse": reply(403, "plain HTTP is not accepted; use https", "https_required", "if TRUE"),
    }
    return [_section("frontend plain", [_bind(spec.bind, spec.plain_port), answer[spec.plain_http]])]


def _frontend(spec: GatewaySpec) -> list[str]:
    tls = f" ssl crt {spec.tls_certificate} alpn h2,http/1.1" if spec.tls_certificate else ""
    lines = [
        _bind(spec.bind, spec.port) + tls,
        f"bind unix@{internal_socket(spec.admin_socket)} mode 600 name {INTERNAL}",
    ]
    # After a reload, idle client connections stay open until their next response: a client whose connection is closed
    # at the moment it sends a request gets an error.
    lines.append("option idle-close-on-response")
    if spec.log_address is not None:
        # Not in the defaults section: backends would log state changes of their servers, which are not requests.
        lines += ["log global", f"log-format '{LOG_FORMAT}'"]
    for group in (*entry_rules(spec), *routing_rules(spec), _use()):
        lines += ["", *group]
    return [line.rstrip() for line in _section("frontend gateway", lines)]


def _use() -> list[str]:
    return ["use_backend read_model unless { var(txn.pool) -m found }", "use_backend pool_%[var(txn.pool)]"]


# Times in ms as HAProxy defines them: TR to receive the request, Tw in queue, Tc to connect, Tr to the first byte of
# the response, Ta from the first byte of the request to the last of the response; -1 if a phase was not reached.
LOG_FORMAT = (
    '{"t":"%[var(txn.us)]","class":"%[var(txn.class)]","model":"%[var(txn.m)]","pool":"%[var(txn.pool)]",'
    '"path":"%[var(txn.path)]","streamed":"%[var(txn.streamed)]","outcome":"%[var(txn.outcome)]",'
    '"code":%ST,"TR":%TR,"Tw":%Tw,"Tc":%Tc,"Tr":%Tr,"Ta":%Ta,"bytes":%B,"end":"%ts",'
    '"retries":"%rc","id":"%[var(txn.rid)]"}'
)


def _read_model(spec: GatewaySpec) -> list[str]:
    """Backend of the agent, for requests whose model HAProxy cannot read; they return through the internal socket."""
    # Queueing and response are bounded on the second pass: this timeout must not end before them.
    longest = spec.queue_timeout_s + (spec.retries + 1) * (spec.connect_timeout_s + spec.response_timeout_s)
    message = "the gateway agent, which reads the model of large requests, is not available"
    body = error_body(message, "server_error", "overloaded")
    lines = [
        "retries 1",
        f"timeout server {_ms(longest)}",
        f"http-error status 503 content-type application/json string '{body}' hdr Retry-After {spec.retry_after_s}",
        # One log line per request: that of the second pass, which has the pool.
        "http-request set-log-level silent",
        f"http-response set-log-level info unless {{ res.hdr({POOL_HEADER}) -m found }}",
        "http-response del-header Server",
        f"server agent unix@{read_socket(spec.admin_socket)}",
    ]
    return _section("backend read_model", lines)


def _backend(spec: GatewaySpec, pool: GatewayPool) -> list[str]:
    health, address = pool.path_prefix + pool.health_path, f"{bracketed(pool.host)}:{pool.port}"
    # HAProxy retries only while no byte of the response has arrived. Ray Serve returns 500 if the replica died, and 404
    # on a new node whose proxy does not have the application's route yet.
    retry = "retry-on conn-failure empty-response 404 500 502 503" if spec.retries else "retry-on none"
    checks = f"inter {_ms(spec.health_interval_s)} fastinter 250ms downinter 500ms fall 3 rise 1"
    start = f"maxconn {pool.max_in_flight}" if pool.max_in_flight else "maxconn 1 weight 0"
    if pool.scale_to_zero:  # no health checks until the agent enables it: they would count as demand in Ray Serve
        start = f"maxconn {max(pool.max_in_flight, 1)} disabled"
    start += f" resolvers names init-addr last,libc,none resolve-prefer {spec.resolve}" if spec.resolve else ""
    lines = [
        f"retries {spec.retries}",
        retry,
        "http-reuse always",
        f"option httpchk GET {health}",
        "http-check expect rstatus ^[23]",
        *([f"http-request set-path {pool.path_prefix}%[path]"] if pool.path_prefix else []),
        f"http-response set-header {POOL_HEADER} {pool.name}",
        *_plain_errors(spec),
        *scale_to_zero_lines(spec, pool),
        f"server s {address} check {checks} observe layer4 error-limit 1 on-error sudden-death {start}",
    ]
    return _section(f"backend {pool.backend}", lines)


def _plain_errors(spec: GatewaySpec) -> list[str]:
    """Replaces plain-text errors of Ray's proxies by JSON errors of the API."""
    not_json = "!{ res.hdr(Content-Type) -m beg application/json }"
    rows = (
        (404, 503, "the tier is not ready to serve the model", "tier_unavailable"),
        (500, 502, "the tier failed", "bad_gateway"),
        (502, 502, "the tier failed", "bad_gateway"),
        (503, 503, "the tier is not available", "tier_unavailable"),
        (504, 504, "the tier did not respond in time", "gateway_timeout"),
    )
    lines = []
    for upstream_status, status, message, code in rows:
        retry = f" hdr Retry-After {spec.retry_after_s}" if status == 503 else ""
        body = error_body(message, "server_error", code)
        lines.append(
            f"http-response return status {status} content-type application/json string '{body}'{retry} "
            f"if {{ status {upstream_status} }} {not_json}"
        )
    return lines
