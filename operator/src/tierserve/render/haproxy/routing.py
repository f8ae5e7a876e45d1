"""The rules that choose a pool when a request arrives: its model, free slots, else the shortest wait."""

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

_LOWEST_CLASS = 2047  # of HAProxy's queues; the highest is its negative


def routing_rules(spec: GatewaySpec) -> list[list[str]]:
    """Groups of http-request rules; after them ``txn.pool`` is the pool, and what has none has been answered."""
    return [_model(spec), _choice(spec), _turns(spec)]


def reply(status: int, message: str, code: str, condition: str, headers: str = "") -> str:
    """A rule that answers with an API error itself; `condition` is HAProxy's, starting with if or unless."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = error_body(message, kind, code)
    return f"http-request return status {status} content-type application/json string '{body}'{headers} {condition}"


def _model(spec: GatewaySpec) -> list[str]:
    """A variant's name, or ``*`` for the service's.

    HAProxy reads the body's first buffer, and of JSON neither deep nesting nor every escape. Where that gives no name
    that is known here, the agent reads the whole body (`serving/gateway/model_reader.py`): it answers what no tier can
    serve, and sends the rest back by the internal socket.
    """
    names = " ".join((spec.service, *spec.models))
    lines = [
        "http-request set-var(txn.model) req.body,json_query('$.model') unless internal",
        f"acl known_model var(txn.model) -m str {names}",
        # Gateway and agent take up a change one after the other: nothing may go back and forth between them.
        reply(404, "there is no such model", "model_not_found", "if internal !known_model"),
        "http-request allow if !known_model",
        f"http-request set-var(txn.m) str(*) if {{ var(txn.model) -m str {spec.service} }}",
        "http-request set-var(txn.m) var(txn.model) unless { var(txn.m) -m found }",
    ]
    return lines + [line for c in spec.classes for line in _closed_models(spec, c)]


def _closed_models(spec: GatewaySpec, cls: GatewayClass) -> list[str]:
    """Variants that no tier of the class serves: refused, never sent to another tier."""
    served = {m for p in spec.pools if p.tier in cls.tiers for m in p.models}
    closed = [m for m in spec.models if m not in served]
    if not closed:
        return []
    message = f"no tier that class {cls.name} may use serves this model"
    condition = f"if {{ var(txn.class) -m str {cls.name} }} {{ var(txn.m) -m str {' '.join(closed)} }}"
    return [reply(404, message, "model_not_found", condition)]


def _choice(spec: GatewaySpec) -> list[str]:
    tiers = list(enumerate(spec.tiers))
    lines = ["# Per tier: its site with the most free slots."]
    for i, tier in tiers:
        lines += chain.from_iterable(_most_free(i, p) for p in spec.pools if p.tier == tier)
    lines.append("# Per class: the first of its tiers that has a free slot.")
    for cls in spec.classes:
        lines += [_first_free(cls, i) for i in _order(spec, cls)]
    lines += [
        f"http-request set-var(txn.how) str({DIRECT}) if {{ var(txn.pool) -m found }}",
        "# All full: the shortest expected wait, (queue + 1) x service / slots, of all tiers the class may use.",
    ]
    lines += [line for p in spec.pools for line in _expected_wait(spec, p)]
    for cls in spec.classes:
        allowed = [(i, p) for i, p in enumerate(spec.pools) if p.tier in cls.tiers]
        lines += chain.from_iterable(_shortest(cls, i, p) for i, p in allowed)
    return [
        *lines,
        f"http-request set-var(txn.how) str({QUEUED}) if {{ var(txn.pool) -m found }} !{{ var(txn.how) -m found }}",
        f"http-request set-var(txn.how) str({REFUSED}) unless {{ var(txn.how) -m found }}",
        "http-request set-var(txn.pool) str(-) unless { var(txn.pool) -m found }",
        *_count(),
        *(line for cls in spec.classes for line in _refuse(spec, cls)),
    ]


def _serves(pool: GatewayPool) -> str:
    return f"{{ var(txn.m) -m str * {' '.join(pool.models)} }}".replace("  ", " ")


def _most_free(i: int, pool: GatewayPool) -> list[str]:
    # A slot that falls free while others queue belongs to the first of the queue.
    free, be = f"txn.free{i}", pool.backend
    # Where it sleeps there is none, whatever its waiting room looks like.
    awake = f" {{ srv_is_up({be}/s) }}" if pool.sleeps else ""
    more = f"{{ be_conn_free({be}),sub({free}) gt 0 }}"
    room = f"{_serves(pool)}{awake} {{ queue({be}) eq 0 }} {{ be_conn_free({be}) gt 0 }}"
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
    """In microseconds of `service_s`; a full pool's slots are the requests it has in flight.

    One that sleeps has to start a replica first, with the slots of that one.
    """
    i, be = spec.pools.index(pool), pool.backend
    service_us = max(1, round(pool.service_s * 1e6))
    up = f"{{ nbsrv({be}) gt 0 }} {{ queue({be}) lt {spec.max_queue} }}"
    condition = f"if !{{ var(txn.pool) -m found }} {_serves(pool)} {up}"
    start = f"srv_uweight({be}/{WAITING_ROOM}),mul(1000000)"
    return [
        f"http-request set-var(txn.slots{i}) int({pool.slots if pool.sleeps else 1})",
        f"http-request set-var(txn.slots{i}) srv_conn({be}/s) if {{ srv_conn({be}/s) gt 0 }}",
        f"http-request set-var(txn.wait{i}) queue({be}),add(1),mul({service_us}),div(txn.slots{i}) {condition}",
        *([f"http-request set-var(txn.start{i}) {start}"] if pool.sleeps else []),
        *([f"http-request set-var(txn.wait{i}) var(txn.wait{i}),add(txn.start{i}) {condition}"] if pool.sleeps else []),
    ]


def _shortest(cls: GatewayClass, i: int, pool: GatewayPool) -> list[str]:
    mine = f"{{ var(txn.class) -m str {cls.name} }} {{ var(txn.wait{i}) -m found }}"
    return [
        f"http-request set-var(txn.pool) str({pool.name}) if {mine} !{{ var(txn.wait) -m found }} || "
        f"{mine} {{ var(txn.wait{i}),sub(txn.wait) lt 0 }}",
        f"http-request set-var(txn.wait) var(txn.wait{i}) if {mine} {{ var(txn.pool) -m str {pool.name} }}",
    ]


def _turns(spec: GatewaySpec) -> list[str]:
    """Who waits where not all can be answered in time: those who came before, for they have missed the objective.

    Requests of one turn are answered in the order in which they came, and a later turn before an earlier one (HAProxy
    takes the lowest class first). A turn begins when the wait would be longer than the slack, and lasts no longer than
    that; so as long as all can be in time there is one turn, and the queue is first come, first served.
    """
    lines = []
    for i, pool in enumerate(spec.pools):
        if pool.slack_s is None:
            continue
        turn, slack_ms = f"proc.turn{i}", max(1, round(pool.slack_s * 1e3))
        here = f"if {{ var(txn.pool) -m str {pool.name} }}"
        # While a replica starts nobody can be in time: then only the queue before it counts.
        started = f",sub(txn.start{i})" if pool.sleeps else ""
        late = f"{{ var(txn.how) -m str {QUEUED} }} {{ var(txn.wait{i}){started},sub({slack_ms * 1000}) gt 0 }}"
        falling = f"date(0,ms),div({slack_ms}),mod({2 * _LOWEST_CLASS + 1}),sub({_LOWEST_CLASS}),neg"
        lines += [
            f"http-request set-var({turn}) {falling} {here} {late}",
            f"http-request set-priority-class var({turn}) {here}",
        ]
    return ["# Turns: the newest first where not all can be in time.", *lines] if lines else []


def _count() -> list[str]:
    """Counts the arrival before it waits: the autoscaler must not learn of it only when it is over."""
    key = route_key(*(f"%[var(txn.{name})]" for name in ("class", "m", "pool", "how")))
    return [
        f"http-request set-var-fmt(txn.key) {key}",
        f"http-request track-sc0 var(txn.key) table {OFFERED_TABLE}",
        "http-request sc-inc-gpc0(0)",
    ]


def _refuse(spec: GatewaySpec, cls: GatewayClass) -> list[str]:
    headers = f" hdr Retry-After {spec.retry_after_s}"
    pools = [p for p in spec.pools if p.tier in cls.tiers]
    refused = f"if {{ var(txn.how) -m str {REFUSED} }} {{ var(txn.class) -m str {cls.name} }}"
    none = f"no tier that class {cls.name} may use is up ({', '.join(dict.fromkeys(p.tier for p in pools))})"
    full = f"every queue that class {cls.name} may wait in is full ({spec.max_queue} requests each)"
    return [
        # One line per pool: HAProxy takes at most 64 words a line, and a service may have hundreds of pools.
        *(f"acl up-{cls.name} nbsrv({p.backend}) gt 0" for p in pools),
        reply(503, none, "tier_unavailable", f"{refused} !up-{cls.name}", headers),
        reply(503, full, "overloaded", refused, headers),
    ]
