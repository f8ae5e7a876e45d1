"""From the resource to what the gateway must know."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from tierserve.api import load
from tierserve.plan.placement import place
from tierserve.render.gateway_spec import GatewayAddresses, gateway_spec

EXAMPLE = Path(__file__).parents[3] / "examples" / "assistant.yaml"
UPSTREAMS = defaultdict(lambda: ("127.0.0.1", 8000))
AT = GatewayAddresses("127.0.0.1", 8080, UPSTREAMS, "/run/a.sock", "127.0.0.1:5140", "127.0.0.1", 9101)


@pytest.fixture
def spec(tmp_path):
    def of(change=("", "")):
        path = tmp_path / "service.yaml"
        path.write_text(EXAMPLE.read_text().replace(*change) if change[0] else EXAMPLE.read_text())
        gaid = load(path)
        return gateway_spec(gaid, place(gaid), AT), place(gaid)

    return of


def test_the_slack_of_a_pool_is_what_the_target_leaves_beside_service_and_network(spec):
    made, placements = spec()
    cloud = next(p for p in made.pools if p.tier == "cloud")
    placed = next(p for p in placements if p.tier == "cloud")
    assert cloud.slack_s == pytest.approx(1.5 - placed.network_s - placed.service_quantile_s)
    assert 0.3 < cloud.slack_s < 0.5


def test_a_queue_by_arrival_has_no_turns(spec):
    made, _ = spec(("routing:", "gateway: {queueOrder: arrival}\n  routing:"))
    assert {p.slack_s for p in made.pools} == {None}


def test_where_the_service_alone_misses_the_target_nobody_is_preferred():
    gaid = load(EXAMPLE)
    slow = [replace(p, target_s=0.9 * p.service_quantile_s) for p in place(gaid)]
    assert {p.slack_s for p in gateway_spec(gaid, slow, AT).pools} == {None}
