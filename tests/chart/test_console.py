"""The console in the chart: off unless enabled, read only, and reachable for those who are named only."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from tierserve.cli.main import app

pytestmark = [pytest.mark.slow, pytest.mark.helm]
CHART = Path(__file__).resolve().parents[2] / "charts" / "tierserve"
GOLDEN = Path(__file__).parent / "golden"
FORMS = {
    "console": ("crds.enabled=false", "console.enabled=true"),
    "console-namespaces": (
        "crds.enabled=false", "console.enabled=true", "watchNamespaces={red,blue}", "imagePullSecrets[0].name=one",
        "console.allowedHosts={console.example.com}", "console.serviceAccount.name=viewer", "priorityClassName=low",
        "console.allowFrom[0].namespaceSelector.matchLabels.name=ingress", "nodeSelector.pool=system",
        "tolerations[0].key=system", "tolerations[0].operator=Exists", "commonLabels.cost-centre=ml",
    ),
}  # fmt: skip


def own(objects):
    return [one for one in objects if one["metadata"]["labels"]["app.kubernetes.io/name"] == "tierserve-console"]


def of_kind(objects, kind):
    return [one for one in objects if one["kind"] == kind]


@pytest.mark.parametrize("form", FORMS)
def test_rendered_objects_equal_the_golden_files(rendered, form):
    text = yaml.safe_dump_all(own(rendered(*FORMS[form])), sort_keys=True)
    golden = GOLDEN / f"{form}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_it_is_off_by_default_and_changes_no_object_of_the_operator(rendered):
    without, with_it = rendered("crds.enabled=false"), rendered(*FORMS["console"])
    assert own(without) == []
    assert [one for one in with_it if one not in own(with_it)] == without


@pytest.mark.parametrize("form", FORMS)
def test_it_may_only_read_genaideployments(rendered, form):
    objects = own(rendered(*FORMS[form]))
    rules = [rule for kind in ("Role", "ClusterRole") for one in of_kind(objects, kind) for rule in one["rules"]]
    assert rules
    for rule in rules:
        assert rule == {
            "apiGroups": ["serving.tierserve.io"], "resources": ["genaideployments"], "verbs": ["get", "list", "watch"]
        }  # fmt: skip
    (deployment,) = of_kind(objects, "Deployment")
    account = deployment["spec"]["template"]["spec"]["serviceAccountName"]
    bindings = of_kind(objects, "RoleBinding") + of_kind(objects, "ClusterRoleBinding")
    assert {one["subjects"][0]["name"] for one in bindings} == {account}
    (operator,) = [one for one in of_kind(rendered(*FORMS[form]), "Deployment") if one not in objects]
    assert operator["spec"]["template"]["spec"]["serviceAccountName"] != account


def test_with_a_list_of_namespaces_it_reads_no_other(rendered):
    objects = own(rendered(*FORMS["console-namespaces"]))
    assert {one["metadata"]["namespace"] for one in of_kind(objects, "Role")} == {"red", "blue"}
    assert not of_kind(objects, "ClusterRoleBinding")
    (deployment,) = of_kind(objects, "Deployment")
    arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    assert [one for one in arguments if "namespace" in one] == ["--namespace=red", "--namespace=blue"]


@pytest.mark.parametrize("form", FORMS)
def test_no_pod_can_connect_but_those_that_are_named(rendered, form):
    (policy,) = of_kind(own(rendered(*FORMS[form])), "NetworkPolicy")
    ingress = policy["spec"]["ingress"]
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    assert policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/name"] == "tierserve-console"
    assert [rule["from"] for rule in ingress] == (
        [[{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}]] if form == "console-namespaces" else []
    )
    (service,) = of_kind(own(rendered(*FORMS[form])), "Service")
    assert service["spec"]["type"] == "ClusterIP"


@pytest.mark.parametrize("form", FORMS)
def test_the_pod_keeps_to_the_restricted_standard_and_is_of_the_image_of_the_operator(rendered, form):
    objects = rendered(*FORMS[form])
    (deployment,) = of_kind(own(objects), "Deployment")
    (operator,) = [one for one in of_kind(objects, "Deployment") if one is not deployment]
    pod, other = deployment["spec"]["template"]["spec"], operator["spec"]["template"]["spec"]
    for name in ("securityContext", "nodeSelector", "tolerations", "priorityClassName", "imagePullSecrets"):
        assert pod.get(name) == other.get(name), name
    for name in ("image", "imagePullPolicy", "securityContext"):
        assert pod["containers"][0][name] == other["containers"][0][name], name
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"]


@pytest.mark.parametrize("form", FORMS)
def test_its_arguments_are_options_of_the_command(rendered, form):
    (deployment,) = of_kind(own(rendered(*FORMS[form])), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    command = get_command(app).commands["console"]
    assert container["command"][-1] == "console"
    with command.make_context("console", list(container["args"])) as context:
        given = context.params
    assert (given["kubernetes"], given["allow_remote"]) == (True, True)
    assert given["port"] == container["ports"][0]["containerPort"]
    assert list(given["allowed_host"] or []) == (["console.example.com"] if form == "console-namespaces" else [])


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("console.enabled=maybe", "/console/enabled"),
        ("console.allowedHosts={https://a}", "/console/allowedHosts/0"),
        ("console.allowFrom[0].pods=a", "/console/allowFrom/0"),
        ("console.replicas=2", "/console"),
        ("console.resources.limit.memory=1Gi", "/console/resources"),
    ],
)
def test_an_invalid_value_is_rejected_with_its_name(helm, value, field):
    done = helm("template", "t", str(CHART), "--kube-version", "1.34.4", "--set", value)
    assert done.returncode != 0
    assert re.search(re.escape(field), done.stderr)
