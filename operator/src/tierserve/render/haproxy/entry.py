"""Rules before routing: requests that the gateway answers itself, so that they are no demand on any tier.

They need only the headers. The body is still read before the response: many clients lose a response that arrives while
they are sending, since they see a connection reset. Bodies that do not fit in a buffer are read and refused by the
agent.
"""

from __future__ import annotations

import json

from tierserve.render.haproxy.model import (
    CLASS_HEADER,
    COMPLETION_PATHS,
    INTERNAL,
    MODEL_HEADER,
    POOL_HEADER,
    REQUEST_ID_HEADER,
    REQUEST_START_HEADER,
    GatewayClass,
    GatewaySpec,
)
from tierserve.render.haproxy.routing import reply

_PREFLIGHT_MAX_AGE_S = 600  # browsers cache the preflight response so long; Chromium's maximum is two hours
_BODY_TIMEOUT_S = 30  # the same as `timeout http-request` for the headers
_BUFFERED_BYTES = 16 * 2**10  # a body of this size always fits in the 64 KiB buffer beside the largest headers
_JSON_TYPE = "^(application/json|[^;]+[+]json)[[:space:]]*(;|$)"  # the same types that replicas accept


def entry_rules(spec: GatewaySpec) -> list[list[str]]:
    """Groups of http-request rules; a request that passes them is a completion and has its class and headers set."""
    return [
        _acls(),
        _logged(),
        _identity(),
        _wait_for_body(),
        _cors(spec),
        _health(spec),
        _models(spec),
        _paths(),
        _limits(spec),
        _class(spec),
        _headers(),
    ]


def _acls() -> list[str]:
    return [
        f"acl internal so_name -m str {INTERNAL}",
        f"acl completion path {' '.join(COMPLETION_PATHS)}",
        "acl own path /health /healthz /readyz /version /v1/models",
        "acl own path_beg /v1/models/",
    ]


def _logged() -> list[str]:
    """Variables for the log: when its line is written HAProxy no longer has the path and the headers."""
    return [
        "http-request set-var(txn.path) path if completion",  # other paths may hold anything
        "http-response set-var(txn.streamed) int(1) if { res.hdr(Content-Type) -m beg text/event-stream }",
    ]


def _identity() -> list[str]:
    rid = f"req.hdr({REQUEST_ID_HEADER})"
    return [
        "http-request set-var-fmt(txn.us) %[date(0,us)]",
        "http-request set-var-fmt(txn.start) t=%[var(txn.us),bytes(0,10)].%[var(txn.us),bytes(10)] unless internal",
        f"http-request set-var(txn.start) req.hdr({REQUEST_START_HEADER}) if internal",
        f"http-request set-var(txn.rid) {rid} if {{ {rid} -m reg ^[A-Za-z0-9._:-]{{1,128}}$ }}",
        "http-request set-var(txn.rid) uuid() unless { var(txn.rid) -m found }",
        f"http-after-response set-header {REQUEST_ID_HEADER} %[var(txn.rid)]",
    ]


def _cors(spec: GatewaySpec) -> list[str]:
    """CORS headers and preflight responses (Fetch standard, section 3.3)."""
    if not spec.cors_origins:
        return []
    any_origin = "*" in spec.cors_origins
    match = "-m found" if any_origin else f"-m str {' '.join(spec.cors_origins)}"
    origin = "str(*)" if any_origin else "req.fhdr(Origin)"
    allowed = "{ var(txn.origin) -m found }"
    return [
        f"http-request set-var(txn.origin) {origin} if {{ req.fhdr(Origin) {match} }}",
        # `*` would not cover Authorization, so the requested headers are allowed by name.
        "http-request return status 204 hdr Access-Control-Allow-Methods 'GET, POST, OPTIONS'"
        " hdr Access-Control-Allow-Headers '%[req.fhdr(Access-Control-Request-Headers)]'"
        f" hdr Access-Control-Max-Age {_PREFLIGHT_MAX_AGE_S}"
        f" if METH_OPTIONS {{ req.hdr(Access-Control-Request-Method) -m found }} {allowed}",
        f"http-after-response set-header Access-Control-Allow-Origin %[var(txn.origin)] if {allowed}",
        f"http-after-response set-header Access-Control-Expose-Headers"
        f" '{REQUEST_ID_HEADER}, {POOL_HEADER}, Retry-After' if {allowed}",
        *([] if any_origin else ["http-after-response add-header Vary Origin unless internal"]),
    ]


def _ok(body: object, condition: str) -> str:
    text = json.dumps(body, ensure_ascii=True)
    return f"http-request return status 200 content-type application/json string '{text}' {condition}"


def _health(spec: GatewaySpec) -> list[str]:
    return [
        # One line per pool: HAProxy takes at most 64 words a line, and a service may have hundreds of pools.
        *(f"acl ready nbsrv({p.backend}) gt 0" for p in spec.pools),
        "http-request set-log-level silent if { path /health /healthz /readyz }",
        _ok({"status": "ok"}, "if METH_GET { path /healthz }"),
        _ok({"status": "ready"}, "if METH_GET { path /health /readyz } ready"),
        reply(503, "no tier is ready", "unavailable", "if METH_GET { path /health /readyz }"),
        _ok({"version": spec.version}, "if METH_GET { path /version }"),
    ]


def _models(spec: GatewaySpec) -> list[str]:
    models = [{"id": m, "object": "model", "created": 0, "owned_by": "tierserve"} for m in (spec.service, *spec.models)]
    return [
        _ok({"object": "list", "data": models}, "if METH_GET { path /v1/models }"),
        # Clients percent-encode the slash of org/name.
        *(_ok(m, f"if METH_GET {{ path,url_dec -m str /v1/models/{m['id']} }}") for m in models),
        reply(404, "the model does not exist", "model_not_found", "if METH_GET { path_beg /v1/models/ }"),
    ]


def _refuse(status: int, message: str, code: str, condition: str, headers: str = "") -> list[str]:
    return [f"http-request allow {condition} unread", reply(status, message, code, condition, headers)]


def _paths() -> list[str]:
    posts = ", ".join(f"POST {path}" for path in COMPLETION_PATHS)
    unknown = f"unknown path; this API has {posts} and GET /v1/models"
    return [
        *_refuse(404, unknown, "unknown_url", "if !completion !own"),
        *_refuse(405, "the method must be GET", "method_not_allowed", "if own", " hdr Allow 'GET, HEAD'"),
        *_refuse(405, "the method must be POST", "method_not_allowed", "if completion !METH_POST", " hdr Allow POST"),
    ]


def _wait_for_body() -> list[str]:
    # The wait ends when the body is complete or the buffer is full.
    return [f"http-request wait-for-body time {_BODY_TIMEOUT_S}s", f"acl unread req.body_len gt {_BUFFERED_BYTES}"]


def _limits(spec: GatewaySpec) -> list[str]:
    too_large = f"the body must be at most {spec.max_body_bytes} bytes"
    not_json = f"if {{ req.hdr(Content-Type) -m found }} !{{ req.fhdr(Content-Type) -m reg -i '{_JSON_TYPE}' }}"
    return [
        # A chunked body has no Content-Length: agent and replica check its size.
        *_refuse(413, too_large, "request_too_large", f"if {{ req.hdr_val(Content-Length) gt {spec.max_body_bytes} }}"),
        *_refuse(415, "Content-Type must be application/json", "unsupported_media_type", not_json),
    ]


def _class(spec: GatewaySpec) -> list[str]:
    """Class of a request: the default one, or by header one whose privacy is at least as strict."""
    default = next(c for c in spec.classes if c.name == spec.default_class)
    value, count = f"req.fhdr({CLASS_HEADER})", f"req.fhdr_cnt({CLASS_HEADER})"
    unknown = f"{CLASS_HEADER} must occur once and be one of: {', '.join(c.name for c in spec.classes)}"
    looser = f"{CLASS_HEADER} must not name a class with weaker privacy than the default class {default.name}"
    return [
        f"http-request set-var(txn.class) {value} if {{ {count} eq 1 }} {{ {value} -m str {_names(spec.classes)} }}",
        f"http-request set-var(txn.class) str({default.name}) if {{ {count} eq 0 }}",
        reply(400, unknown, "unknown_class", "unless { var(txn.class) -m found }"),
        *(
            reply(403, looser, "class_not_allowed", f"if {{ var(txn.class) -m str {c.name} }}")
            for c in spec.classes
            if c.strictness < default.strictness
        ),
    ]


def _names(classes: tuple[GatewayClass, ...]) -> str:
    return " ".join(c.name for c in classes)


def _headers() -> list[str]:
    return [
        # Only the agent may set the model by a header: it has read the whole body.
        f"http-request set-var(txn.model) req.hdr({MODEL_HEADER}) if internal",
        f"http-request del-header {POOL_HEADER}",
        f"http-request del-header {MODEL_HEADER}",
        "http-request del-header X-Forwarded-For unless internal",
        f"http-request set-header {CLASS_HEADER} %[var(txn.class)]",
        f"http-request set-header {REQUEST_ID_HEADER} %[var(txn.rid)]",
        f"http-request set-header {REQUEST_START_HEADER} %[var(txn.start)]",
    ]
