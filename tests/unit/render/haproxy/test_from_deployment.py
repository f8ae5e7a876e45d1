"""GenAIDeployment -> GatewaySpec."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from tierserve.api import load
from tierserve.api.errors import ValidationFailed
from tierserve.plan.placement import place
from tierserve.render.haproxy.agent_config import agent_config
from tierserve.render.haproxy.config import render_haproxy
from tierserve.render.haproxy.from_deployment import GatewayAddresses, gateway_spec
from tierserve_serving.gateway.agent_config import AgentConfig

EXAMPLE = Path(__file__).parents[4] / "examples" / "assistant.yaml"
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


def test_the_adapters_of_a_pools_model_are_models_of_the_gateway():
    gaid = load(EXAMPLE)
    placements = [replace(p, adapters={"sql": "file:///adapters/sql"}) for p in place(gaid) if p.tier == "cloud"]
    made = gateway_spec(gaid, placements, AT)
    assert made.pools[0].models == (placements[0].model, "sql")
    assert "sql" in made.models


def test_queue_order_arrival_has_no_slack(spec):
    made, _ = spec(("routing:", "gateway: {queueOrder: arrival}\n  routing:"))
    assert {p.slack_s for p in made.pools} == {None}


def test_no_slack_if_the_service_time_alone_exceeds_the_target():
    gaid = load(EXAMPLE)
    slow = [replace(p, target_s=0.9 * p.service_quantile_s) for p in place(gaid)]
    assert {p.slack_s for p in gateway_spec(gaid, slow, AT).pools} == {None}


def test_a_pool_with_min_0_may_scale_to_zero_and_starts_without_health_checks(spec):
    made, _ = spec(("{min: 1, max: 12}", "{min: 0, max: 12}"))
    assert {p.tier: p.scale_to_zero for p in made.pools}["cloud"]
    assert not any(p.scale_to_zero for p in made.pools if p.tier != "cloud")
    text = render_haproxy(made)
    server = next(line for line in text.splitlines() if line.strip().startswith("server s") and "disabled" in line)
    assert "weight 0" not in server
    assert text.count("server w unix@/run/a.sock.hold backup maxconn 1 weight 0") == 1


def test_a_service_without_scale_to_zero_has_no_waiting_room(spec):
    text = render_haproxy(spec()[0])
    assert "frontend hold" not in text
    assert "backup" not in text


def test_the_agent_configuration_has_the_pools_that_may_scale_to_zero(spec):
    made, placements = spec(("{min: 1, max: 12}", "{min: 0, max: 12}"))
    urls = {p.name: "http://127.0.0.1:1/decisions" for p in made.pools}
    file = AgentConfig.model_validate(agent_config(made, placements, urls, listen="127.0.0.1", port=0))
    assert {p.tier for p in file.pools if p.scale_to_zero} == {"cloud"}


def test_other_origins_are_allowed_only_by_the_cors_field(spec):
    assert spec()[0].cors_origins == ()
    made, _ = spec(("routing:", 'gateway: {cors: {allowOrigins: ["https://chat.example.com"]}}\n  routing:'))
    assert made.cors_origins == ("https://chat.example.com",)


@pytest.mark.parametrize("origin", ["chat.example.com", "https://chat.example.com/path", "https://a b", ""])
def test_an_origin_that_no_browser_sends_is_refused_with_its_field(spec, origin):
    with pytest.raises(ValidationFailed) as refused:
        spec(("routing:", f'gateway: {{cors: {{allowOrigins: ["{origin}"]}}}}\n  routing:'))
    assert [p.path for p in refused.value.problems] == ["spec.gateway.cors.allowOrigins[0]"]


def test_a_class_is_as_strict_as_its_privacy(spec):
    made, _ = spec()
    gaid = load(EXAMPLE)
    ranks = {"public": 0, "site": 1, "device": 2}
    assert {c.name: c.strictness for c in made.classes} == {c.name: ranks[c.privacy] for c in gaid.spec.traffic}
