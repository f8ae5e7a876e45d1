"""Alerts are silent before, fire after, and are silent again; each has a runbook. Checked with promtool."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tierserve.api import parse
from tierserve.render.kubernetes.alerts import rules
from tierserve.render.kubernetes.settings import RUNBOOKS, KubeSettings

ROOT = Path(__file__).parents[4]
EXAMPLE = yaml.safe_load((ROOT / "examples" / "assistant.yaml").read_text())
OF_ALL = yaml.safe_load((ROOT / "charts" / "tierserve" / "files" / "alerts.yaml").read_text())
SERVICE = 'namespace="chat",service="assistant-gateway-agents"'
RESOURCE = 'namespace="chat",name="assistant"'


def gaid(**objective: Any) -> Any:
    spec = {**EXAMPLE["spec"], "objective": {"responseTime": {"percentile": 95, "target": "1500ms"} | objective}}
    return parse({**EXAMPLE, "metadata": {"name": "assistant", "namespace": "chat", "uid": "1"}, "spec": spec})


def of_service(**objective: Any) -> list[dict[str, Any]]:
    return rules(gaid(**objective), KubeSettings(alert_labels={"team": "serving"}))


ALERTS = [
    *(one for one in of_service() if "alert" in one),
    *(one for group in OF_ALL["groups"] for one in group["rules"]),
]


@pytest.fixture(scope="module")
def promtool(binaries: ModuleType) -> Path:
    """Path of promtool, downloaded if it is missing."""
    found: Path = binaries.promtool()
    return found


def run(promtool: Path, *words: str, folder: Path) -> str:
    done = subprocess.run([promtool, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def written(folder: Path, **objective: Any) -> Path:
    path = folder / "rules.yaml"
    groups = [{"name": "service", "rules": of_service(**objective)}, *OF_ALL["groups"]]
    path.write_text(yaml.safe_dump({"groups": groups}))
    return path


@pytest.mark.parametrize("objective", [{}, {"percentile": 99.9, "target": "250ms"}, {"percentile": 90}])
def test_promtool_accepts_the_rules(tmp_path: Path, promtool: Path, objective: dict[str, Any]) -> None:
    run(promtool, "check", "rules", str(written(tmp_path, **objective)), folder=tmp_path)


def test_a_large_budget_can_burn_fast_enough_to_page() -> None:
    page = next(one for one in of_service(percentile=90) if one.get("labels", {}).get("severity") == "critical")
    assert 0.1 < float(re.findall(r"> ([0-9.]+)", page["expr"])[0]) < 1.0


@dataclass(frozen=True)
class Case:
    """Series by the minute, and the minutes at which the alert is silent, fires, and is silent again."""

    alert: str
    series: dict[str, str]
    at: tuple[int, int, int]
    severity: str = ""


def of(metric: str, more: str = 'pool="cloud",tier="cloud"') -> str:
    return f"tierserve_{metric}{{{SERVICE},{more}}}"


def all_of(metric: str, more: str) -> str:
    return f"tierserve_{metric}{{{RESOURCE},{more}}}" if more else f"tierserve_{metric}"


def bucket(le: str) -> str:
    return of("gateway_request_duration_seconds_bucket", f'pool="cloud",tier="cloud",le="{le}"')


LATE_FOR_AN_HOUR = {
    of("gateway_responses_total"): "0+600x300",
    of("gateway_late_responses_total"): "0x60 600+600x59 36000x180",
}
CASES = (
    Case("TierServeErrorBudgetBurn", LATE_FOR_AN_HOUR, (59, 115, 130), "critical"),
    Case("TierServeErrorBudgetBurn", LATE_FOR_AN_HOUR, (59, 118, 160), "warning"),
    Case(
        "TierServePoolDown",
        {
            of("gateway_up", 'pool="cloud",pod="a"'): "1x10 0x9 1x20",
            of("gateway_up", 'pool="cloud",pod="b"'): "0x40",  # one gateway that cannot reach it is no outage
        },
        (9, 18, 25),
    ),
    Case(
        "TierServeGatewayErrors",
        {
            of("gateway_requests_total", 'pool="cloud",code="200"'): "0+90x60",
            of("gateway_requests_total", 'pool="cloud",code="500"'): "0x20 10+10x19 200x20",
        },
        (19, 39, 55),
    ),
    Case("TierServeNoMetrics", {of("gateway_up"): "1x10 _x30 1x20"}, (9, 38, 50)),
    *(
        Case(
            "TierServeCertificateExpiry",
            {of("gateway_certificate_not_after_timestamp_seconds", 'pod="a"'): f"{days * 86400 + 1800}x179 9999999x60"},
            (29, 60 + minutes, 190),
            severity,
        )
        for days, minutes, severity in ((21, 35, "warning"), (3, 0, "critical"))
    ),
    Case("TierServePoolSaturated", {of("policy_at_maximum"): "0x10 1x20 0x20"}, (9, 28, 40)),
    Case("TierServeScalingHeld", {of("gateway_decision_age_seconds"): "1x10 60+60x20 1x20"}, (9, 28, 40)),
    Case("TierServeScalingHeld", {of("policy_stale"): "0x10 1x20 0x20"}, (9, 28, 40)),
    Case(
        "TierServeFlapping",
        {of("policy_replicas_desired"): f"4x60 {'4x2 3x2 ' * 20}4x200"},
        (59, 150, 300),
    ),
    Case(
        "TierServePredictionOff",
        {  # ten requests a second, all under 1.5 s, then between 1.5 and 2 s, then again under
            bucket("1.0"): "0x220",
            bucket("1.5"): "0+600x60 36000x79 36600+600x80",
            bucket("2.0"): "0+600x220",
            bucket("+Inf"): "0+600x220",
            of("policy_predicted_response_seconds"): "1x220",
        },
        (59, 130, 200),
    ),
    Case(
        "TierServeOperatorDown",
        {"tierserve_reconcile_last_success_timestamp_seconds": "0+60x10 _x30 2400+60x20"},
        (9, 38, 50),
    ),
    Case(
        "TierServeReconcileStale",
        {"tierserve_reconcile_last_success_timestamp_seconds": "60+60x20 1200x20 2460+60x20"},
        (19, 39, 50),
    ),
    Case(
        "TierServeReconcileErrors",
        {
            'tierserve_reconcile_total{result="success"}': "0+6x120",
            'tierserve_reconcile_total{result="error"}': "0x20 6+6x39 240x60",
        },
        (19, 55, 80),
    ),
    Case("TierServeNotReady", {all_of("deployment_condition", 'condition="Ready"'): "1x10 0x30 1x20"}, (9, 38, 50)),
    Case("TierServeDegraded", {all_of("deployment_condition", 'condition="Degraded"'): "0x10 1x30 0x20"}, (9, 38, 50)),
    Case(
        "TierServeCapExceeded", {all_of("deployment_condition", 'condition="CapsMet"'): "1x10 0x30 1x20"}, (9, 38, 50)
    ),
    Case(
        "TierServeCarbonSourceDown",
        {
            all_of("pool_carbon_intensity_grams_per_kwh", 'pool="cloud",source="uk"'): "200x10 _x80 150x20",
            all_of("pool_carbon_intensity_grams_per_kwh", 'pool="cloud",source="uk, last value"'): "_x10 200x79 _x20",
        },
        (9, 85, 100),
    ),
    Case(
        "TierServePodsPending",
        {
            all_of("pool_replicas", 'pool="cloud"'): "2x60 5x40",
            all_of("pool_replicas_desired", 'pool="cloud"'): "2x10 5x90",
        },
        (9, 58, 70),
    ),
    Case(
        "TierServeDownloadStuck",
        {
            all_of("pool_download_done_bytes", 'pool="cloud"'): "0+100x20 2000x39 2000+100x40",
            all_of("pool_download_total_bytes", 'pool="cloud"'): "15000x100",
        },
        (19, 58, 80),
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert}-{case.severity or len(case.series)}")
def test_it_is_silent_before_fires_after_and_is_silent_again(tmp_path: Path, promtool: Path, case: Case) -> None:
    written(tmp_path)
    which = f'alertname="{case.alert}",alertstate="firing"'
    if case.severity:
        which += f',severity="{case.severity}"'
    checks = [
        {
            "eval_time": f"{minute}m",
            "expr": f"count(ALERTS{{{which}}}) or vector(0)",
            "exp_samples": [{"labels": "{}", "value": float(firing)}],
        }
        for minute, firing in zip(case.at, (False, True, False), strict=True)
    ]
    series = [{"series": name, "values": values} for name, values in case.series.items()]
    test = {"interval": "1m", "input_series": series, "promql_expr_test": checks}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": [test]}))
    run(promtool, "test", "rules", "tests.yaml", folder=tmp_path)


def test_every_alert_has_a_case() -> None:
    assert {case.alert for case in CASES} == {one["alert"] for one in ALERTS}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda one: f"{one['alert']}-{one['labels']['severity']}")
def test_every_alert_names_its_severity_what_to_do_and_a_runbook_that_exists(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert {"summary", "description"} <= alert["annotations"].keys()
    page = (ROOT / "docs" / "runbooks" / f"{alert['alert']}.md").read_text()
    for heading in ("## Meaning", "## First three commands", "## Usual causes"):
        assert heading in page


def test_alerts_of_a_service_have_the_labels_that_alertmanager_routes_by() -> None:
    for one in of_service():
        if "alert" in one:
            assert one["labels"]["team"] == "serving"
            assert one["labels"]["deployment"] == "assistant"
            assert one["annotations"]["runbook_url"] == f"{RUNBOOKS}/{one['alert']}.md"


def test_alerts_use_only_metrics_that_are_exported() -> None:
    """docs/metrics.md is made from what the processes export, and `make check` compares it."""
    catalogue = set(re.findall(r"`(tierserve_\w+)`", (ROOT / "docs" / "metrics.md").read_text()))
    catalogue |= {f"{name}_bucket" for name in catalogue}
    used = {name for one in [*of_service(), *ALERTS] for name in re.findall(r"\btierserve_\w+", one["expr"])}
    assert len(used) > 10
    assert used <= catalogue


def test_dashboards_ask_for_what_is_exported_and_prometheus_reads_their_queries(tmp_path: Path, promtool: Path) -> None:
    catalogue = set(re.findall(r"`(tierserve_\w+)`", (ROOT / "docs" / "metrics.md").read_text()))
    catalogue |= {f"{name}_bucket" for name in catalogue}
    found = sorted((ROOT / "charts" / "tierserve" / "files" / "dashboards").glob("*.json"))
    assert len(found) == 4
    queries = [
        target["expr"]
        for path in found
        for panel in json.loads(path.read_text())["panels"]
        for target in panel["targets"]
    ]
    recorded = {one["record"] for one in of_service() if "record" in one}
    for query in queries:
        assert set(re.findall(r"\btierserve:\w+(?::\w+)?", query)) <= recorded, query
        assert set(re.findall(r"\btierserve_\w+", query)) <= catalogue, query
    exprs = [query.replace("$__rate_interval", "5m").replace("$", "") for query in queries]
    records = [{"record": f"query:{number}", "expr": expr} for number, expr in enumerate(exprs)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": records}]}))
    run(promtool, "check", "rules", "rules.yaml", folder=tmp_path)
