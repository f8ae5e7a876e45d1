"""Rules that choose the pool of a request on arrival: by model, then free slots, else the shortest expected wait."""

from __future__ import annotations

from itertools import chain

from tierserve.render.haproxy.model import (
    DIRECT,
    OFFERED_TABLE,
    QUEUED,
    REFUSED,
    WAITING_ROOM,
    GatewayClass,
    GatewayPool,
    GatewaySpec,
    error_body,
    route_key,
)

_LOWEST_CLASS = 2047  # range of HAProxy's priority classes: -2047 (served first) to 2047


def routing_rules(spec: GatewaySpec) -> list[list[str]]:
    """Groups of http-request rules; they set ``txn.pool``, or respond with an error if no pool can take the request."""
    return [_model(spec), _choice(spec), _adaptive_lifo(spec)]


def reply(status: int, message: str, code: str, condition: str, headers: str = "") -> str:
    """Rule that returns an API error; `condition` in HAProxy's syntax, starting with if or unless."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = error_body(message, kind, code)
    return f"http-request return status {status} content-type application/json string '{body}'{headers} {condition}"


def _model(spec: GatewaySpec) -> list[str]:
    """Sets ``txn.m``: the name of the variant, or ``*`` if the request names the service.

    HAProxy reads only the first buffer of the body, and its JSON parser supports neither deep nesting nor every escape.
    If it finds no name of a model of this service, the agent reads the whole body (`gateway/model_reader.py` of
    tierserve_serving): it returns an error if no tier can serve the request, else sends it back to the internal socket.
    """
    names = " ".join((spec.service, *spec.models))
    lines = [
        "http-request set-var(txn.model) req.body,json_query('$.model') unless internal",
        f"acl known_model var(txn.model) -m str {names}",
        # HAProxy and agent apply a new configuration at different times: else a request could loop between them.
        reply(404, "the model does not exist", "model_not_found", "if internal !known_model"),
        "http-request allow if !known_model",
        f"http-request set-var(txn.m) str(*) if {{ var(txn.model) -m str {spec.service} }}",
        "http-request set-var(txn.m) var(txn.model) unless { var(txn.m) -m found }",
    ]
    return lines + [line for c in spec.classes for line in _closed_models(spec, c)]


def _closed_models(spec: GatewaySpec, cls: GatewayClass) -> list[str]:
    """404 for variants that no allowed tier of the class serves."""
    served = {m for p in spec.pools if p.tier in cls.tiers for m in p.models}
    closed = [m for m in spec.models if m not in served]
    if not closed:
        return []
    message = f"no tier allowed for class {cls.name} serves this model"
    condition = f"if {{ var(txn.class) -m str {cls.name} }} {{ var(txn.m) -m str {' '.join(closed)} }}"
    return [reply(404, message, "model_not_found", condition)]


def _choice(spec: GatewaySpec) -> list[str]:
    tiers = list(enumerate(spec.tiers))
    lines = ["# Per tier: the site with the most free slots."]
    for i, tier in tiers:
        lines += chain.from_iterable(_most_free(i, p) for p in spec.pools if p.tier == tier)
    lines.append("# Per class: the first allowed tier that has a free slot.")
    for cls in spec.classes:
        lines += [_first_free(cls, i) for i in _order(spec, cls)]
    lines += [
        f"http-request set-var(txn.outcome) str({DIRECT}) if {{ var(txn.pool) -m found }}",
        "# All full: the shortest expected wait, (queue + 1) x service / slots, of all allowed tiers.",
    ]
    lines += [line for p in spec.pools for line in _expected_wait(spec, p)]
    for cls in spec.classes:
        allowed = [(i, p) for i, p in enumerate(spec.pools) if p.tier in cls.tiers]
        lines += chain.from_iterable(_shortest(cls, i, p) for i, p in allowed)
    return [
        *lines,
        f"http-request set-var(txn.outcome) str({QUEUED})"
        " if { var(txn.pool) -m found } !{ var(txn.outcome) -m found }",
        f"http-request set-var(txn.outcome) str({REFUSED}) unless {{ var(txn.outcome) -m found }}",
        "http-request set-var(txn.pool) str(-) unless { var(txn.pool) -m found }",
        *_count(),
        *(line for cls in spec.classes for line in _refuse(spec, cls)),
    ]


def _serves(pool: GatewayPool) -> str:
    return f"{{ var(txn.m) -m str * {' '.join(pool.models)} }}".replace("  ", " ")


def _most_free(i: int, pool: GatewayPool) -> list[str]:
    # A slot that becomes free while requests queue goes to the first of the queue.
    free, be = f"txn.free{i}", pool.backend
    # A pool scaled to zero has no slots: its server is in maintenance, but the waiting room counts in be_conn_free.
    is_up = f" {{ srv_is_up({be}/s) }}" if pool.scale_to_zero else ""
    more = f"{{ be_conn_free({be}),sub({free}) gt 0 }}"
    room = f"{_serves(pool)}{is_up} {{ queue({be}) eq 0 }} {{ be_conn_free({be}) gt 0 }}"
    return [
        f"http-request set-var(txn.site{i}) str({pool.name}) if {room} !{{ var({free}) -m found }} || {room} {more}",
        f"http-request set-var({free}) be_conn_free({be}) if {{ var(txn.site{i}) -m str {pool.name} }}",
    ]


def _order(spec: GatewaySpec, cls: GatewayClass) -> list[int]:
    index = {tier: i for i, tier in enumerate(spec.tiers)}
    return [index[t] for t in cls.tiers if t in index]


def _first_free(cls: GatewayClass, i: int) -> str:
    return (
        f"http-request set-var(txn.pool) var(txn.site{i}) if {{ var(txn.class) -m str {cls.name} }} "
        f"!{{ var(txn.pool) -m found }} {{ var(txn.site{i}) -m found }}"
    )


def _expected_wait(spec: GatewaySpec, pool: GatewayPool) -> list[str]:
    """Sets ``txn.waitN`` in microseconds: (queue + 1) x `service_s` / slots; a full pool's slots are its requests.

    A pool scaled to zero adds the start of a replica, and has the slots of that replica.
    """
    i, be = spec.pools.index(pool), pool.backend
    service_us = max(1, round(pool.service_s * 1e6))
    up = f"{{ nbsrv({be}) gt 0 }} {{ queue({be}) lt {spec.max_queue} }}"
    condition = f"if !{{ var(txn.pool) -m found }} {_serves(pool)} {up}"
    start = f"srv_uweight({be}/{WAITING_ROOM}),mul(1000000)"
    return [
        f"http-request set-var(txn.slots{i}) int({pool.slots if pool.scale_to_zero else 1})",
        f"http-request set-var(txn.slots{i}) srv_conn({be}/s) if {{ srv_conn({be}/s) gt 0 }}",
        f"http-request set-var(txn.wait{i}) queue({be}),add(1),mul({service_us}),div(txn.slots{i}) {condition}",
        *([f"http-request set-var(txn.start{i}) {start}"] if pool.scale_to_zero else []),
        *(
            [f"http-request set-var(txn.wait{i}) var(txn.wait{i}),add(txn.start{i}) {condition}"]
            if pool.scale_to_zero
            else []
        ),
    ]


def _shortest(cls: GatewayClass, i: int, pool: GatewayPool) -> list[str]:
    mine = f"{{ var(txn.class) -m str {cls.name} }} {{ var(txn.wait{i}) -m found }}"
    return [
        f"http-request set-var(txn.pool) str({pool.name}) if {mine} !{{ var(txn.wait) -m found }} || "
        f"{mine} {{ var(txn.wait{i}),sub(txn.wait) lt 0 }}",
        f"http-request set-var(txn.wait) var(txn.wait{i}) if {mine} {{ var(txn.pool) -m str {pool.name} }}",
    ]


def _adaptive_lifo(spec: GatewaySpec) -> list[str]:
    """Queue order `adaptiveLIFO`: newest batch first while the expected wait exceeds the slack.

    Requests that have waited longer than the slack have missed the objective already; serving them first would make the
    newer ones miss it too. Requests of one batch are served in their order of arrival, a later batch before an earlier
    one (HAProxy serves the lowest priority class first). A batch starts when the expected wait exceeds the slack and
    lasts at most as long as the slack; while all can meet the objective there is one batch, that is, FIFO.
    """
    lines = []
    for i, pool in enumerate(spec.pools):
        if pool.slack_s is None:
            continue
        batch, slack_ms = f"proc.batch{i}", max(1, round(pool.slack_s * 1e3))
        here = f"if {{ var(txn.pool) -m str {pool.name} }}"
        # No request can meet the objective while the first replica starts: only the queue counts.
        started = f",sub(txn.start{i})" if pool.scale_to_zero else ""
        late = f"{{ var(txn.outcome) -m str {QUEUED} }} {{ var(txn.wait{i}){started},sub({slack_ms * 1000}) gt 0 }}"
        falling = f"date(0,ms),div({slack_ms}),mod({2 * _LOWEST_CLASS + 1}),sub({_LOWEST_CLASS}),neg"
        lines += [
            f"http-request set-var({batch}) {falling} {here} {late}",
            f"http-request set-priority-class var({batch}) {here}",
        ]
    return ["# Adaptive LIFO: the newest batch first while not all can meet the objective.", *lines] if lines else []


def _count() -> list[str]:
    """Counts the arrival before it queues, so that the autoscaler does not see it only after its end."""
    key = route_key(*(f"%[var(txn.{name})]" for name in ("class", "m", "pool", "outcome")))
    return [
        f"http-request set-var-fmt(txn.key) {key}",
        f"http-request track-sc0 var(txn.key) table {OFFERED_TABLE}",
        "http-request sc-inc-gpc0(0)",
    ]


def _refuse(spec: GatewaySpec, cls: GatewayClass) -> list[str]:
    """503 with its reason, from the pools that could have served the request: those of its model."""
    pools = tuple(p for p in spec.pools if p.tier in cls.tiers)
    by_pools: dict[tuple[GatewayPool, ...], list[str]] = {}
    for model in spec.models:
        serving = tuple(p for p in pools if model in p.models)
        if serving and serving != pools:
            by_pools.setdefault(serving, []).append(model)
    refused = f"if {{ var(txn.outcome) -m str {REFUSED} }} {{ var(txn.class) -m str {cls.name} }}"
    lines: list[str] = []
    for k, (serving, models) in enumerate(by_pools.items()):
        condition = f"{refused} {{ var(txn.m) -m str {' '.join(models)} }}"
        lines += _reasons(spec, serving, f"class {cls.name} and this model", f"up.{k}.{cls.name}", condition)
    return [*lines, *_reasons(spec, pools, f"class {cls.name}", f"up-{cls.name}", refused)]


def _reasons(spec: GatewaySpec, pools: tuple[GatewayPool, ...], whom: str, is_up: str, condition: str) -> list[str]:
    headers = f" hdr Retry-After {spec.retry_after_s}"
    none = f"no tier allowed for {whom} is up ({', '.join(dict.fromkeys(p.tier for p in pools))})"
    full = f"all queues allowed for {whom} are full ({spec.max_queue} requests each)"
    return [
        # One line per pool: HAProxy takes at most 64 words a line, and a service may have hundreds of pools.
        *(f"acl {is_up} nbsrv({p.backend}) gt 0" for p in pools),
        reply(503, none, "tier_unavailable", f"{condition} !{is_up}", headers),
        reply(503, full, "overloaded", condition, headers),
    ]
