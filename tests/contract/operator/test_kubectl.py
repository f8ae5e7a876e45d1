"""`kubectl tierserve`, and what `kubectl get` and `explain` show, with a real kubectl on a real API server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.apiserver]


@pytest.fixture(scope="module")
def kubectl(request: pytest.FixtureRequest, operator: Any, kuberay: None, script: Any, tmp_path_factory: Any) -> Any:
    """Runs kubectl with the plugin on its path; returns (exit status, stdout, stderr)."""
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        binary: Path = script("kube_binaries").kubectl()
    folder: Path = tmp_path_factory.mktemp("plugin")
    plugin = folder / "kubectl-tierserve"
    plugin.write_text(f'#!/bin/sh\nexec {sys.executable} -m tierserve.cli.kubectl "$@"\n')
    plugin.chmod(0o755)
    completion = folder / "kubectl_complete-tierserve"
    completion.write_text(f'#!/bin/sh\nexec {sys.executable} -m tierserve.cli.kubectl_complete "$@"\n')
    completion.chmod(0o755)
    (folder / "kubectl").symlink_to(binary)
    path = f"{folder}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "KUBECONFIG": str(operator.kubeconfig), "COLUMNS": "200"}

    def run(*arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [str(folder / "kubectl"), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    assert shutil.which("kubectl", path=path)
    return run


@pytest.fixture
def applied(kubectl: Any, space: Any, assistant: Any, eventually: Any) -> Any:
    space.create(assistant)
    eventually(lambda: space.condition("assistant", "Ready"), "a status")
    return space


def test_get_gaid_answers_whether_it_is_well(kubectl, applied):
    code, out, _ = kubectl("get", "gaid", "-n", applied.name)
    assert code == 0
    header, row = out.splitlines()
    assert header.split() == ["NAME", "READY", "TIERS", "REPLICAS", "P95", "TARGET", "CONNECTIONS", "DOWNLOAD", "AGE"]
    assert row.split()[:3] == ["assistant", "False", "0/3"]
    assert "1500ms" in row


def test_explain_reads_well(kubectl, applied):
    code, out, _ = kubectl("explain", "gaid.spec.tiers.replicas")
    assert code == 0
    for words in (
        "headroom",
        "Minimum and maximum number of replicas per site",
        "with 0 an idle tier scales to zero until the next request",
    ):
        assert words in " ".join(out.split())


def test_the_plugin_shows_pools_reasons_and_what_is_wrong(kubectl, applied):
    code, out, err = kubectl("tierserve", "status", "assistant", "-n", applied.name)
    assert code == 0, err
    for words in ("assistant", "target p95 1500ms", "cloud", "edge", "device", "ScalingActive: MetricsMissing"):
        assert words in out
    code, out, _ = kubectl("tierserve", "status", "-n", applied.name, "-o", "json")
    assert json.loads(out)[0]["tiers"] == "0/3"


def test_the_plugin_plans_for_the_service_as_it_is_in_the_cluster(kubectl, applied):
    code, out, err = kubectl("tierserve", "plan", "assistant", "-n", applied.name, "--connections", "50", "-o", "json")
    assert code == 0, err
    assert json.loads(out)["connections"] == 50


def test_the_plugin_explains_each_pool_or_says_that_no_decision_is_known(kubectl, applied):
    code, out, err = kubectl("tierserve", "explain", "assistant", "-n", applied.name, "-o", "json")
    assert code == 0, err
    (service,) = json.loads(out)
    assert {pool["pool"] for pool in service["pools"]} == {"cloud-default", "edge-default", "device-default"}
    assert all("no current decision" in pool["message"] for pool in service["pools"])


def test_top_has_a_row_for_each_pool_and_names_the_namespace_where_there_are_several(kubectl, applied):
    for flags, name in ((("-n", applied.name), "assistant"), (("-A",), f"{applied.name}/assistant")):
        code, out, err = kubectl("tierserve", "top", *flags, "--once", "-o", "json")
        assert code == 0, err
        assert {row["pool"] for row in json.loads(out) if row["service"] == name} == {"cloud", "edge", "device"}


def test_a_report_of_a_resource_has_its_conditions(kubectl, applied, tmp_path):
    words = ("--for", "0", "--out", str(tmp_path), "-o", "yaml")
    code, out, err = kubectl("tierserve", "report", "assistant", "-n", applied.name, *words)
    assert code == 0, err
    data = json.loads(Path(yaml.safe_load(out)["data"]).read_text())
    assert {"Ready", "ScalingActive"} <= {condition["type"] for condition in data["conditions"]}


def test_the_doctor_names_what_the_cluster_lacks_and_ends_with_1(kubectl, applied):
    """The operator of these tests is a process beside the API server, which has no nodes."""
    code, out, err = kubectl("tierserve", "doctor", "-n", applied.name, "-o", "json")
    assert code == 1, err
    states = {check["name"]: check["state"] for check in json.loads(out)["checks"]}
    for name in (
        "API server",
        "CRD GenAIDeployment",
        "CRD rayservices.ray.io",
        "CRD rayclusters.ray.io",
        "permissions",
    ):
        assert states[name] == "ok", (name, out)
    assert states["operator"] == "missing"
    assert states["KubeRay"] == "warning"
    for tier in ("cloud", "edge", "device"):
        assert states[f"{applied.name}/assistant {tier}"] == "missing"


def test_the_doctor_ends_with_1_where_no_api_server_answers(kubectl):
    code, out, _ = kubectl("tierserve", "doctor", "--context", "nowhere", "-o", "json")
    assert code == 1
    assert [(check["name"], check["state"]) for check in json.loads(out)["checks"]] == [("API server", "missing")]


def test_kubectl_completes_commands_of_the_plugin_and_names_of_its_namespace(kubectl, applied):
    code, out, err = kubectl("__complete", "tierserve", "exp")
    assert (code, out.split()) == (0, ["explain", ":4"]), err
    code, out, err = kubectl("__complete", "tierserve", "explain", "--namespace", applied.name, "assi")
    assert (code, out.split()) == (0, ["assistant", ":4"]), err


def test_the_plugin_lists_events(kubectl, applied, eventually):
    eventually(
        lambda: "ComponentsNotReady" in kubectl("tierserve", "events", "assistant", "-n", applied.name)[1], "the event"
    )


def test_all_namespaces_are_those_of_the_context_that_is_named(kubectl, applied):
    code, out, err = kubectl("tierserve", "status", "-A", "--context", "here")
    assert code == 0, err
    assert "assistant" in out
    code, _, err = kubectl("tierserve", "status", "-A", "--context", "nowhere")
    assert code != 0
    assert "nowhere" in err


def test_a_missing_resource_is_reported_as_by_kubectl_with_a_hint(kubectl, applied):
    code, _, err = kubectl("tierserve", "status", "absent", "-n", applied.name)
    assert code != 0
    assert "not found" in err
    assert "kubectl get gaid -A" in err
