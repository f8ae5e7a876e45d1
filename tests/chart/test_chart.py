"""The chart: what it renders, what it refuses, and that it keeps to least rights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.helm]
ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "tierserve"
GOLDEN = Path(__file__).parent / "golden"
FORMS = {
    "default": ("crds.install=false",),
    "namespaced": ("crds.install=false", "namespaced=true", "networkPolicy.enabled=false"),
    "everything": (
        "crds.install=false", "imagePullSecrets={one,two}", "image.tag=1.2.3", "serviceAccount.annotations.a=b",
        "metrics.serviceMonitor.enabled=true", "metrics.serviceMonitor.labels.team=ml", "nodeSelector.pool=system",
        "tolerations[0].key=system", "tolerations[0].operator=Exists", "podAnnotations.x=y", "logFormat=text",
        "extraEnv[0].name=TIERSERVE_HEAD_CPU", "extraEnv[0].value=1", "fullnameOverride=ts",
    ),
}  # fmt: skip


def test_helm_finds_nothing_to_complain_of(helm):
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("form", FORMS)
def test_what_is_rendered_is_as_agreed(rendered, form):
    text = yaml.safe_dump_all(rendered(*FORMS[form]), sort_keys=True)
    golden = GOLDEN / f"{form}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("logFormat=xml", "/logFormat"),
        ("serving.gatewayReplicas=0", "/serving/gatewayReplicas"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("namespaced=yes", "/namespaced"),
        ("replicas=3", "replicas"),
        ("resyncPeriod=soon", "/resyncPeriod"),
        ("crds.keep=true", "keep"),
    ],
)
def test_a_bad_value_is_refused_by_its_name(helm, value, field):
    done = helm("template", "t", str(CHART), "--kube-version", "1.34.4", "--set", value)
    assert done.returncode != 0
    assert field in done.stderr


def test_the_definition_is_the_project_s_and_is_kept_when_the_chart_goes(rendered):
    copy = CHART / "files" / "genaideployments.yaml"
    assert copy.read_bytes() == (ROOT / "crds" / "genaideployments.yaml").read_bytes(), "run `make crds`"
    (found,) = [one for one in rendered() if one["kind"] == "CustomResourceDefinition"]
    assert found["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert found["spec"] == yaml.safe_load(copy.read_text())["spec"]


def rules(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [rule for one in objects if one["kind"] in ("Role", "ClusterRole") for rule in one["rules"]]


@pytest.mark.parametrize("form", ["default", "namespaced"])
def test_no_right_is_a_wildcard_and_no_secret_is_read(rendered, form):
    found = rules(rendered(*FORMS[form]))
    assert found
    for rule in found:
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        assert "secrets" not in rule["resources"]


def test_for_one_namespace_it_takes_no_rights_in_the_cluster(rendered):
    kinds = {one["kind"] for one in rendered(*FORMS["namespaced"])}
    assert not kinds & {"ClusterRole", "ClusterRoleBinding"}


@pytest.mark.parametrize("form", FORMS)
def test_the_pod_keeps_to_the_restricted_standard(rendered, form):
    (deployment,) = [one for one in rendered(*FORMS[form]) if one["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    context = container["securityContext"]
    assert context == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
    }  # fmt: skip
    assert deployment["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"] == "tierserve-operator", (
        "the network policies of services let this one in"
    )


def test_every_variable_of_the_pod_is_a_setting_of_the_operator(rendered):
    from tierserve.controller.settings import from_environment

    (deployment,) = [one for one in rendered(*FORMS["everything"]) if one["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    found = from_environment({one["name"]: one["value"] for one in container["env"]})
    assert (found.log_format, found.kube.image_pull_secrets, found.kube.head_cpu) == ("text", ("one", "two"), "1")
