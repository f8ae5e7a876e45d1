"""The chart: rendered objects, rejected values, least privilege."""

from __future__ import annotations

import json
import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from tierserve.controller.settings import PREFIX, OperatorSettings, from_environment
from tierserve.render.kubernetes.settings import KubeSettings

pytestmark = [pytest.mark.slow, pytest.mark.helm]
ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "tierserve"
GOLDEN = Path(__file__).parent / "golden"
DIGEST = f"sha256:{'0123456789abcdef' * 4}"
TERM = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0]"
FORMS = {
    "default": ("crds.enabled=false",),
    "namespaces": ("crds.enabled=false", "watchNamespaces={red,blue}", "networkPolicy.enabled=false"),
    "everything": (
        "crds.enabled=false", "imagePullSecrets[0].name=one", "imagePullSecrets[1].name=two", "image.tag=1.2.3",
        "serviceAccount.annotations.a=b", "serviceAccount.name=robot", "commonLabels.cost-centre=ml",
        "metrics.serviceMonitor.enabled=true", "metrics.serviceMonitor.labels.release=prometheus", "metrics.port=9100",
        "metrics.prometheusRule.enabled=true", "metrics.prometheusRule.labels.release=prometheus",
        "monitoring.alertLabels.team=ml",
        "nodeSelector.pool=system", "tolerations[0].key=system", "tolerations[0].operator=Exists",
        f"{TERM}.key=gpu",
        f"{TERM}.operator=DoesNotExist",
        "topologySpreadConstraints[0].maxSkew=1", "topologySpreadConstraints[0].topologyKey=zone",
        "topologySpreadConstraints[0].whenUnsatisfiable=ScheduleAnyway",
        "podAnnotations.x=y", "podLabels.team=ml", "priorityClassName=system-cluster-critical",
        "logFormat=text", "logLevel=debug", "resyncPeriod=1m30s", "livenessStaleAfter=600",
        f"serving.image.digest={DIGEST}", "serving.image.repository=registry.example/serving",
        "monitoring.labels.release=prometheus", "serving.gatewayReplicas=3",
        "serving.head.cpu=1", "serving.ipFamily=IPv6", "serving.worker.cpuLimit=",
        "serving.gcsRedis.address=redis:6379", "serving.gcsRedis.secretName=redis",
        "extraEnv[0].name=HTTPS_PROXY", "extraEnv[0].value=http://proxy:3128", "fullnameOverride=ts",
    ),
}  # fmt: skip


def test_helm_lint_passes(helm):
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("form", FORMS)
def test_rendered_objects_equal_the_golden_files(rendered, form):
    text = yaml.safe_dump_all(rendered(*FORMS[form]), sort_keys=True)
    golden = GOLDEN / f"{form}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()


def test_dashboards_are_config_maps_that_grafanas_sidecar_finds(rendered):
    found = rendered("crds.enabled=false", "metrics.dashboards.enabled=true", "metrics.dashboards.labels.team=ml")
    maps = [one for one in found if one["kind"] == "ConfigMap" and "-dashboard-" in one["metadata"]["name"]]
    assert len(maps) == 4
    for one in maps:
        labels = one["metadata"]["labels"]
        assert (labels["grafana_dashboard"], labels["team"]) == ("1", "ml")
        (text,) = one["data"].values()
        assert json.loads(text)["panels"]


def test_the_alerts_of_the_chart_have_the_labels_given_and_a_runbook_that_exists(rendered):
    (rule,) = [one for one in rendered(*FORMS["everything"]) if one["kind"] == "PrometheusRule"]
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    alerts = [one for group in rule["spec"]["groups"] for one in group["rules"]]
    assert len(alerts) > 5
    for one in alerts:
        assert one["labels"]["team"] == "ml"
        assert one["annotations"]["runbook_url"].endswith(f"/docs/runbooks/{one['alert']}.md")
        assert (CHART.parents[1] / "docs" / "runbooks" / f"{one['alert']}.md").exists()


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("logFormat=xml", "/logFormat"),
        ("monitoring.runbookUrl=runbooks", "/monitoring/runbookUrl"),
        ("serving.gatewayReplicas=0", "/serving/gatewayReplicas"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("watchNamespaces=yes", "/watchNamespaces"),
        ("watchNamespaces={Red}", "/watchNamespaces/0"),
        ("replicas=3", "replicas"),
        ("resyncPeriod=soon", "/resyncPeriod"),
        ("crds.keep=maybe", "/crds/keep"),
        ("imagePullSecrets={one}", "/imagePullSecrets/0"),
        ("image.digest=sha256:12", "/image/digest"),
        ("serving.image=registry.example/serving:1", "/serving/image"),
        ("podLabels.app\\.kubernetes\\.io/name=mine", "/podLabels"),
        ("commonLabels.app\\.kubernetes\\.io/instance=mine", "/commonLabels"),
        ("tolerations[0].keys=a", "/tolerations/0"),
        ("logLevel=chatty", "/logLevel"),
        ("enabled=yes", "/enabled"),
    ],
)
def test_an_invalid_value_is_rejected_with_its_name(helm, value, field):
    done = helm("template", "t", str(CHART), "--kube-version", "1.34.4", "--set", value)
    assert done.returncode != 0
    assert field in done.stderr


def test_the_crd_is_that_of_the_project_and_kept_at_uninstall(rendered):
    copy = CHART / "files" / "genaideployments.yaml"
    assert copy.read_bytes() == (ROOT / "crds" / "genaideployments.yaml").read_bytes(), "run `make crds`"
    (found,) = [one for one in rendered() if one["kind"] == "CustomResourceDefinition"]
    assert found["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert found["spec"] == yaml.safe_load(copy.read_text())["spec"]


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [one for one in objects if one["kind"] == kind]


def pod_of(objects: list[dict[str, Any]]) -> dict[str, Any]:
    (deployment,) = of_kind(objects, "Deployment")
    pod: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return pod


def environment(pod: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in pod["containers"][0]["env"]}


def rules(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [rule for one in objects if one["kind"] in ("Role", "ClusterRole") for rule in one["rules"]]


@pytest.mark.parametrize("form", ["default", "namespaces"])
def test_no_rule_has_a_wildcard_or_reads_secrets(rendered, form):
    found = rules(rendered(*FORMS[form]))
    assert found
    for rule in found:
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        assert "secrets" not in rule["resources"]


def test_with_a_list_of_namespaces_there_is_a_role_in_each_and_no_cluster_role_binding(rendered):
    objects = rendered(*FORMS["namespaces"])
    roles, bindings = of_kind(objects, "Role"), of_kind(objects, "RoleBinding")
    assert [one["metadata"]["namespace"] for one in roles] == [one["metadata"]["namespace"] for one in bindings]
    assert {one["metadata"]["namespace"] for one in roles} == {"red", "blue"}
    assert all(one["subjects"][0]["namespace"] == "ops" for one in bindings)
    assert not of_kind(objects, "ClusterRoleBinding")
    (deployment,) = of_kind(objects, "Deployment")
    arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    assert [one for one in arguments if "namespace" in one] == ["--namespace=red", "--namespace=blue"]


def test_cluster_scoped_names_of_releases_for_different_namespaces_differ(helm):
    def names(namespace: str) -> set[str]:
        sets = ("--set", f"crds.enabled=false,watchNamespaces={{{namespace}}}")
        done = helm("template", "tierserve", str(CHART), "-n", namespace, "--kube-version", "1.34.4", *sets)
        return {one["metadata"]["name"] for one in yaml.safe_load_all(done.stdout) if one and "Cluster" in one["kind"]}

    assert names("red")
    assert not names("red") & names("blue")


def test_the_roles_view_edit_and_admin_include_genaideployments(rendered):
    roles = {one["metadata"]["name"]: one for one in of_kind(rendered(*FORMS["default"]), "ClusterRole")}
    view, edit = roles["tierserve-operator-view"], roles["tierserve-operator-edit"]
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    assert {key for key in view["metadata"]["labels"] if prefix in key} == {
        f"{prefix}{role}" for role in ("view", "edit", "admin")
    }
    assert {key for key in edit["metadata"]["labels"] if prefix in key} == {
        f"{prefix}{role}" for role in ("edit", "admin")
    }
    assert view["rules"][0]["verbs"] == ["get", "list", "watch"]
    assert "genaideployments/status" not in edit["rules"][0]["resources"], "status is the operator's"
    without = of_kind(rendered("rbac.aggregateClusterRoles=false"), "ClusterRole")
    assert [one["metadata"]["name"] for one in without] == ["tierserve-operator"]


def test_without_rbac_create_there_are_no_roles_and_without_service_account_create_no_account(rendered):
    kinds = {one["kind"] for one in rendered("rbac.create=false", "serviceAccount.create=false")}
    assert kinds == {"CustomResourceDefinition", "Deployment", "Service", "NetworkPolicy"}


def test_common_labels_are_on_all_objects_and_pod_labels_on_the_pod(rendered):
    objects = rendered(*FORMS["everything"], "crds.enabled=true")
    assert {one["kind"] for one in objects} > {"CustomResourceDefinition", "ServiceMonitor"}
    for one in objects:
        assert one["metadata"]["labels"]["cost-centre"] == "ml", one["kind"]
        assert "team" not in one["metadata"]["labels"]
    (deployment,) = of_kind(objects, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert (labels["cost-centre"], labels["team"]) == ("ml", "ml")
    assert deployment["spec"]["selector"]["matchLabels"].keys() == {
        "app.kubernetes.io/name", "app.kubernetes.io/instance"
    }, "a selector cannot be changed afterwards"  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_pods_set_no_user_id(rendered, form):
    """OpenShift assigns each namespace a range of user ids, and rejects pods that set another."""
    (deployment,) = of_kind(rendered(*FORMS[form]), "Deployment")
    text = yaml.safe_dump(deployment)
    assert not [word for word in ("runAsUser", "runAsGroup", "fsGroup") if word in text]


@pytest.mark.parametrize(
    ("values", "image"),
    [
        ((), "ghcr.io/tierserve/{}:0.1.0"),
        (("{}.tag=v2",), "ghcr.io/tierserve/{}:v2"),
        (("{}.tag=v2", f"{{}}.digest={DIGEST}"), f"ghcr.io/tierserve/{{}}@{DIGEST}"),
    ],
)
def test_each_image_has_its_own_tag_or_digest_and_else_the_tag_of_the_chart(rendered, values, image):
    for value, name, other in (("image", "operator", "serving"), ("serving.image", "serving", "operator")):
        pod = pod_of(rendered("crds.enabled=false", *(one.format(value) for one in values)))
        images = {"operator": pod["containers"][0]["image"], "serving": environment(pod)["TIERSERVE_SERVING_IMAGE"]}
        assert images[name] == image.format(name)
        assert images[other] == f"ghcr.io/tierserve/{other}:0.1.0"


def test_pull_secrets_reach_the_operator_and_what_it_creates(rendered):
    pod = pod_of(rendered("crds.enabled=false", "imagePullSecrets[0].name=own", "global.imagePullSecrets[0].name=all"))
    assert pod["imagePullSecrets"] == [{"name": "own"}, {"name": "all"}]
    assert environment(pod)["TIERSERVE_IMAGE_PULL_SECRETS"] == "own,all"


@pytest.mark.parametrize(("level", "flag"), [("debug", ["--verbose"]), ("info", []), ("warning", ["--quiet"])])
def test_the_log_level_is_a_flag_of_kopf(rendered, level, flag):
    arguments = pod_of(rendered("crds.enabled=false", f"logLevel={level}"))["containers"][0]["args"]
    assert [one for one in arguments if one in ("--verbose", "--quiet")] == flag


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


def test_every_setting_of_the_operator_is_a_value_and_every_variable_of_the_pod_a_setting(rendered):
    variables = environment(pod_of(rendered(*FORMS["everything"])))
    own = {name for name in variables if name.startswith(PREFIX)}
    settings = {f.name for f in (*fields(OperatorSettings), *fields(KubeSettings))} - {"kube"}
    assert own == {f"{PREFIX}{name.upper()}" for name in settings}
    found = from_environment(variables)
    assert (found.log_format, found.resync_period, found.liveness_stale_after) == ("text", 90.0, 600.0)
    assert (found.kube.image_pull_secrets, found.kube.head_cpu) == (("one", "two"), "1")
    assert (found.kube.worker_cpu_limit, found.kube.gcs_redis_address) == ("", "redis:6379")


def test_extra_env_overrides_the_values(rendered):
    pod = pod_of(rendered("extraEnv[0].name=TIERSERVE_HEAD_CPU", "extraEnv[0].value=700m"))
    values = [one["value"] for one in pod["containers"][0]["env"] if one["name"] == "TIERSERVE_HEAD_CPU"]
    assert values == ["700m"]


def test_the_defaults_of_the_chart_equal_those_of_the_operator(rendered):
    found = from_environment(environment(pod_of(rendered(*FORMS["default"]))))
    image, peers = found.kube.serving_image, found.kube.scrape_from
    assert list(peers) == list(KubeSettings().scrape_from)
    assert found == OperatorSettings(kube=KubeSettings(serving_image=image, scrape_from=peers))


FREE = ("resources", "podSecurityContext", "containerSecurityContext")
"""Values that go into the pod as they are."""


def _paths(values: dict[str, Any], prefix: str = "") -> set[str]:
    """Paths of all values."""
    paths: set[str] = set()
    for name, value in values.items():
        inner = isinstance(value, dict) and value and name not in FREE
        paths |= _paths(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}"}
    return paths


def test_the_readme_lists_every_value():
    rows = [line for line in (CHART / "README.md").read_text().splitlines() if line.startswith("| `")]
    documented = {name for line in rows for name in re.findall(r"`([^`]+)`", line.split("|")[1])}
    assert documented == _paths(yaml.safe_load((CHART / "values.yaml").read_text()))
