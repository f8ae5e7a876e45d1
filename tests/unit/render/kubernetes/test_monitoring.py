"""ServiceMonitor and PrometheusRule of a service, checked with promtool."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tierserve.api import parse
from tierserve.render.kubernetes.metadata import agents_name
from tierserve.render.kubernetes.monitoring import monitoring_objects, rules
from tierserve.render.kubernetes.settings import KubeSettings

ROOT = Path(__file__).parents[4]
EXAMPLE = yaml.safe_load((ROOT / "examples" / "assistant.yaml").read_text())
SERIES = '{namespace="chat",service="assistant-gateway-agents"'


def gaid(**objective: Any) -> Any:
    spec = {**EXAMPLE["spec"], "objective": {"responseTime": {"percentile": 95, "target": "1500ms"} | objective}}
    return parse({**EXAMPLE, "metadata": {"name": "assistant", "namespace": "chat", "uid": "1"}, "spec": spec})


@pytest.fixture(scope="module")
def promtool() -> Path:
    """Path of promtool, downloaded by scripts/kube_binaries.py if it is missing."""
    spec = importlib.util.spec_from_file_location("kube_binaries", ROOT / "scripts" / "kube_binaries.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kube_binaries"] = module
    spec.loader.exec_module(module)
    try:
        found: Path = module.promtool()
    except SystemExit as error:
        pytest.skip(str(error))
    return found


def run(promtool: Path, *words: str, folder: Path) -> str:
    done = subprocess.run([promtool, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


SLO_SUMMARY = "assistant: p95 of the response time is 1.975s, above the target of 1.5 s"
HELD_SUMMARY = "assistant: no scaling decision for pool cloud for 15m 0s; the number of replicas stays as it is"


def written(folder: Path, service: Any) -> Path:
    path = folder / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules(service)}]}))
    return path


@pytest.mark.parametrize("objective", [{}, {"percentile": 99.9, "target": "250ms"}])
def test_promtool_accepts_the_rules(tmp_path: Path, promtool: Path, objective: dict[str, Any]) -> None:
    assert "4 rules found" in run(
        promtool, "check", "rules", str(written(tmp_path, gaid(**objective))), folder=tmp_path
    )


def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path, promtool: Path) -> None:
    written(tmp_path, gaid())
    bucket = f"tierserve_gateway_request_duration_seconds_bucket{SERIES}"
    slow = [  # ten requests a second, all between 1.5 and 2 s
        {"series": f'{bucket},pool="edge",le="1.5"}}', "values": "0x20"},
        {"series": f'{bucket},pool="edge",le="2.0"}}', "values": "0+600x20"},
        {"series": f'{bucket},pool="edge",le="+Inf"}}', "values": "0+600x20"},
        # Up at one gateway, down at the other: no alert.
        {"series": f'tierserve_gateway_up{SERIES},pool="edge",pod="a"}}', "values": "1x20"},
        {"series": f'tierserve_gateway_up{SERIES},pool="edge",pod="b"}}', "values": "0x20"},
        {"series": f'tierserve_gateway_up{SERIES},pool="cloud",pod="a"}}', "values": "0x20"},
        {"series": f'tierserve_gateway_decision_age_seconds{SERIES},pool="edge"}}', "values": "1x20"},
        {"series": f'tierserve_gateway_decision_age_seconds{SERIES},pool="cloud"}}', "values": "0+60x20"},
    ]
    fast = [{"series": f'{bucket},pool="edge",le="{le}"}}', "values": "0+600x20"} for le in ("1.5", "2.0", "+Inf")]

    def expects(firing: bool) -> list[dict[str, Any]]:
        words = "See: kubectl tierserve status assistant --namespace chat"
        slo = {
            "exp_labels": {"severity": "warning", "namespace": "chat", "service": "assistant-gateway-agents"},
            "exp_annotations": {"summary": SLO_SUMMARY, "description": words},
        }
        down = {
            "exp_labels": {"severity": "critical", "pool": "cloud"},
            "exp_annotations": {"summary": "assistant: pool cloud is down at every gateway", "description": words},
        }
        held = {
            "exp_labels": {"severity": "warning", "pool": "cloud"},
            "exp_annotations": {
                "summary": HELD_SUMMARY,
                "description": words,
            },
        }
        names = {"TierServeSLOMissed": slo, "TierServePoolDown": down, "TierServeScalingHeld": held}
        return [
            {"eval_time": "15m", "alertname": name, "exp_alerts": [alert] if firing else []}
            for name, alert in names.items()
        ]

    tests = [
        {"interval": "1m", "input_series": slow, "alert_rule_test": expects(True)},
        {"interval": "1m", "input_series": fast, "alert_rule_test": expects(False)},
    ]
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": tests}))
    run(promtool, "test", "rules", "tests.yaml", folder=tmp_path)


def test_the_gateway_is_scraped_by_the_ports_of_its_headless_service() -> None:
    monitor, rule = monitoring_objects(gaid(), KubeSettings())
    assert (monitor["kind"], rule["kind"]) == ("ServiceMonitor", "PrometheusRule")
    assert [one["port"] for one in monitor["spec"]["endpoints"]] == ["agent", "metrics"]
    assert agents_name("assistant") in rule["spec"]["groups"][0]["rules"][0]["expr"]
