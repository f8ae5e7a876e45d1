"""What `tierserve status` shows people."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from tierserve.cli.view import service_view

POOL = {"pool": "edge-default", "model": "large", "maxReplicas": 3, "running": 1, "desired": 1, "scaledToZero": False}


def shown(reason: str, *pools: dict[str, Any], width: int = 140) -> str:
    ready = {"type": "Ready", "status": "True", "reason": reason, "message": "x"}
    document = {"name": "s", "status": {"conditions": [ready], "pools": list(pools), "endpoint": "http://x"}}
    console = Console(file=io.StringIO(), width=width)
    console.print(*service_view(document))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_pool_that_sleeps_is_shown_with_0_replicas_and_the_reason():
    decision = {"reason": "0 replicas: scaled to zero, no request for 95 s; start-up takes about 12 s"}
    text = shown("Serving", POOL | {"running": 0, "desired": 0, "scaledToZero": True, "decision": decision})
    assert "0 of 3" in text
    assert "edge: 0 replicas: scaled to zero, no request for 95 s; start-up takes about 12 s" in text
    assert "Ready" in text


def test_an_offered_load_above_the_servers_is_shown_under_its_own_name():
    decision = {"reason": "2 replicas: the ceiling", "rho": 1.0, "offered_load_ratio": 2.21}
    assert "offered load ratio 2.21" in shown("Serving", POOL | {"decision": decision})
    assert "offered load" not in shown("Serving", POOL | {"decision": decision | {"offered_load_ratio": 0.7}})


def test_one_that_wakes_is_shown_on_its_way():
    text = shown("Serving", POOL | {"running": 0, "desired": 1})
    assert "0 to 1 of 3" in text
    assert "scaled to zero" not in text


def test_a_service_that_sleeps_as_a_whole_says_so_in_its_headline():
    assert "Ready, scaled to zero" in shown("ScaledToZero", POOL)


def test_every_head_and_figure_is_whole_at_80_columns():
    decision = {"lambda": 123.45, "servers": 12.0, "rho": 0.93, "p_wait": 0.123, "predicted_p95_s": 12.34}
    figures = {"decision": decision, "gateway": {"p95_s": 11.87, "queued": 1234}}
    names = {"pool": "cloud-frankfurt-am-main", "model": "qwen2.5-coder-32b-instruct-awq"}
    busy = POOL | names | figures | {"running": 12, "desired": 16, "maxReplicas": 128}
    asleep = POOL | {"running": 0, "desired": 0, "scaledToZero": True, "decision": figures["decision"]}
    text = shown("Serving", busy, asleep, width=80)
    lines = text.splitlines()
    words = text.split()
    assert "\u2026" not in text
    assert max(map(len, lines)) <= 80
    for head in ("tier", "model", "replicas", "lambda", "servers", "rho", "P(wait)", "pred.", "obs.", "queue"):
        assert head in words, head
    for cell in ("12 to 16 of 128", "0 of 3", "123.45", "0.93", "0.123", "12.34 s", "11.87 s", "1234"):
        assert any(cell in line for line in lines), cell
