"""ServiceMonitor and PrometheusRule of a service."""

from __future__ import annotations

from pathlib import Path

import yaml

from tierserve.api import parse
from tierserve.render.kubernetes.metadata import agents_name
from tierserve.render.kubernetes.monitoring import monitoring_objects
from tierserve.render.kubernetes.settings import KubeSettings

EXAMPLE = yaml.safe_load((Path(__file__).parents[4] / "examples" / "assistant.yaml").read_text())


def test_the_gateway_is_scraped_by_the_ports_of_its_headless_service() -> None:
    gaid = parse({**EXAMPLE, "metadata": {"name": "assistant", "namespace": "chat", "uid": "1"}})
    monitor, rule = monitoring_objects(gaid, KubeSettings(monitoring_labels={"release": "prometheus"}))
    assert (monitor["kind"], rule["kind"]) == ("ServiceMonitor", "PrometheusRule")
    assert [one["port"] for one in monitor["spec"]["endpoints"]] == ["agent", "metrics"]
    assert agents_name("assistant") in rule["spec"]["groups"][0]["rules"][0]["expr"]
    for one in (monitor, rule):
        assert one["metadata"]["labels"]["release"] == "prometheus"
