"""The gateway's configuration: from pools and classes to one HAProxy file (pure text, no I/O).

One frontend, one backend per pool. A pool's server carries ``maxconn`` = replicas x slots, so HAProxy lets in exactly
what the replicas can hold and keeps the rest in the backend's own FIFO queue: the slots of all replicas pool, as the
c servers of one M/M/c queue do. Which pool a request goes to is decided when it arrives, see ``docs/gateway.md``.

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
from tierserve.render.haproxy.scale_to_zero import sleep_lines, sleep_sections
from tierserve.render.haproxy.validation import check_spec

__all__ = ["GatewayClass", "GatewayPool", "GatewaySpec", "render_haproxy"]


def render_haproxy(spec: GatewaySpec) -> str:
    """The whole HAProxy file for `spec`.

    Raises:
        ValueError: a name that is not safe in the file, a class without a tier that has a pool, a default class or
            port that does not exist; the message names the field and the value.
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
    sections += [_read_model(spec), *sleep_sections(spec)]
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
    if spec.states_file is not None:
        lines.append(f"server-state-file {spec.states_file}")
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
            # A token is a small write: without it HAProxy holds it back for up to 200 ms, to fill a packet.
            "option http-no-delay",
            "timeout http-request 30s",
            "timeout http-keep-alive 60s",
            f"timeout client {_ms(spec.client_timeout_s)}",
            f"timeout connect {_ms(spec.connect_timeout_s)}",
            f"timeout server {_ms(spec.response_timeout_s)}",
            f"timeout queue {_ms(spec.queue_timeout_s)}",
            "timeout check 5s",
            *(["load-server-state-from-file global"] if spec.states_file is not None else []),
            *_own_errors(spec),
        ],
    )


def _own_errors(spec: GatewaySpec) -> list[str]:
    """What HAProxy answers by itself, as JSON in place of its HTML pages."""
    retry = f" hdr Retry-After {spec.retry_after_s}"
    table = [
        (400, "the request is not valid HTTP", "invalid_request_error", "bad_request", ""),
        (403, "this request is not allowed", "invalid_request_error", "forbidden", ""),
        (408, "the request took too long to arrive", "invalid_request_error", "request_timeout", ""),
        (413, "the request is too large", "invalid_request_error", "request_too_large", ""),
        (500, "the gateway failed", "server_error", "internal_error", ""),
        (502, "the tier closed the connection without a valid answer", "server_error", "bad_gateway", ""),
        (503, "no slot came free in time, or the tier cannot be reached", "server_error", "overloaded", retry),
        (504, "the tier gave no answer in time", "server_error", "gateway_timeout", ""),
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
    # Without expiry, and never purged: the agent reads differences of these counters.
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
        "http-request return status 404 content-type text/plain string 'see /metrics'",
    ]
    return [_section("frontend metrics", lines)]


def _plain(spec: GatewaySpec) -> list[list[str]]:
    """The port of plain HTTP beside TLS."""
    if spec.tls_certificate is None or spec.plain_port is None:
        return []
    # The port of plain HTTP may stand in the Host header; that of https is another. 308 keeps method and body.
    host = r"%[req.hdr(host),regsub(:[0-9]+\$,)]"
    answer = {
        "redirect": f'http-request redirect code 308 location "https://{host}%[pathq]"',
        "refuse": reply(403, "this service is served over https only", "https_required", "if TRUE"),
    }
    return [_section("frontend plain", [_bind(spec.bind, spec.plain_port), answer[spec.plain_http]])]


def _frontend(spec: GatewaySpec) -> list[str]:
    tls = f" ssl crt {spec.tls_certificate} alpn h2,http/1.1" if spec.tls_certificate else ""
    lines = [
        _bind(spec.bind, spec.port) + tls,
        f"bind unix@{internal_socket(spec.admin_socket)} mode 600 name {INTERNAL}",
    ]
    # At a reload an idle client keeps its connection until its next answer: else its next request meets a closed one.
    lines.append("option idle-close-on-response")
    if spec.log_address is not None:
        # Not in the defaults: backends would add notices about their servers, which are not requests.
        lines += ["log global", f"log-format '{LOG_FORMAT}'"]
    for group in (*entry_rules(spec), *routing_rules(spec), _use()):
        lines += ["", *group]
    return [line.rstrip() for line in _section("frontend gateway", lines)]


def _use() -> list[str]:
    return ["use_backend read_model unless { var(txn.pool) -m found }", "use_backend pool_%[var(txn.pool)]"]


# Times in ms as HAProxy defines them: TR to receive the request, Tw in queue, Tc to connect, Tr to the first byte of
# the answer, Ta from the first byte of the request to the last of the answer; -1 where a phase was not reached.
LOG_FORMAT = (
    '{"t":"%[var(txn.us)]","class":"%[var(txn.class)]","model":"%[var(txn.m)]","pool":"%[var(txn.pool)]",'
    '"how":"%[var(txn.how)]","code":%ST,"TR":%TR,"Tw":%Tw,"Tc":%Tc,"Tr":%Tr,"Ta":%Ta,"bytes":%B,"end":"%ts",'
    '"retries":"%rc","id":"%[var(txn.rid)]"}'
)


def _read_model(spec: GatewaySpec) -> list[str]:
    """The agent, for requests whose model HAProxy cannot read; it sends them back by the internal socket."""
    # The wait for a slot and for the answer are bounded there: this must not end first.
    longest = spec.queue_timeout_s + (spec.retries + 1) * (spec.connect_timeout_s + spec.response_timeout_s)
    body = error_body("the gateway cannot read the model of this request at present", "server_error", "overloaded")
    lines = [
        "retries 1",
        f"timeout server {_ms(longest)}",
        f"http-error status 503 content-type application/json string '{body}' hdr Retry-After {spec.retry_after_s}",
        # One request is one line of the log: that of its second passage, where it was sent to a pool.
        "http-request set-log-level silent",
        f"http-response set-log-level info unless {{ res.hdr({POOL_HEADER}) -m found }}",
        "http-response del-header Server",
        f"server agent unix@{read_socket(spec.admin_socket)}",
    ]
    return _section("backend read_model", lines)


def _backend(spec: GatewaySpec, pool: GatewayPool) -> list[str]:
    health, address = pool.path_prefix + pool.health_path, f"{bracketed(pool.host)}:{pool.port}"
    # Sent again only while no byte of the answer has arrived. 500 is what Ray Serve makes of a replica that died, 404
    # what it says on a node that has just come and does not know the application yet.
    retry = "retry-on conn-failure empty-response 404 500 502 503" if spec.retries else "retry-on none"
    checks = f"inter {_ms(spec.health_interval_s)} fastinter 250ms downinter 500ms fall 3 rise 1"
    start = f"maxconn {pool.max_in_flight}" if pool.max_in_flight else "maxconn 1 weight 0"
    if pool.sleeps:  # no health check reaches it, for it would wake it, until the agent says that a replica runs
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
        *sleep_lines(spec, pool),
        f"server s {address} check {checks} observe layer4 error-limit 1 on-error sudden-death {start}",
    ]
    return _section(f"backend {pool.backend}", lines)


def _plain_errors(spec: GatewaySpec) -> list[str]:
    """Proxies between here and the replica answer in plain text: clients get the API's error shape instead."""
    not_json = "!{ res.hdr(Content-Type) -m beg application/json }"
    rows = (
        (404, 503, "this tier does not serve the application at present", "tier_unavailable"),
        (500, 502, "the tier failed", "bad_gateway"),
        (502, 502, "the tier failed", "bad_gateway"),
        (503, 503, "the tier is not available", "tier_unavailable"),
        (504, 504, "the tier gave no answer in time", "gateway_timeout"),
    )
    lines = []
    for seen, status, message, code in rows:
        retry = f" hdr Retry-After {spec.retry_after_s}" if status == 503 else ""
        body = error_body(message, "server_error", code)
        lines.append(
            f"http-response return status {status} content-type application/json string '{body}'{retry} "
            f"if {{ status {seen} }} {not_json}"
        )
    return lines
