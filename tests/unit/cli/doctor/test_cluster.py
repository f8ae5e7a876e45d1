"""`kubectl tierserve doctor`: verdicts on documents of an API server (the reading itself: tests/contract)."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tierserve.api.schema.crd import crd
from tierserve.cli.doctor import cluster

EXAMPLES = Path(__file__).parents[4] / "examples"


def node(kind: str, **changes: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": kind, "labels": {"tierserve.io/tier": kind}},
        "spec": {"taints": [{"key": "tierserve.io/tier", "value": kind, "effect": "NoSchedule"}]} | changes,
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"cpu": "4"}},
    }


def service(name: str = "assistant") -> dict[str, Any]:
    return yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())


def states(resource: dict[str, Any], nodes: list[dict[str, Any]]) -> dict[str, str]:
    return {check.name.rpartition(" ")[2]: check.state for check in cluster.of_service(resource, nodes)}


ALL = [node("cloud"), node("edge"), node("device")]


def test_nodes_with_label_and_tolerated_taint_are_enough_for_engines_without_accelerators() -> None:
    assert states(service(), ALL) == {"cloud": "ok", "edge": "ok", "device": "ok"}


@pytest.mark.parametrize(
    "change",
    [
        {"labels": {}},
        {"taints": [{"key": "other", "effect": "NoSchedule"}]},
        {"taints": [{"key": "tierserve.io/tier", "value": "edge", "effect": "NoExecute"}]},
        {"unschedulable": True},
        {"ready": "False"},
    ],
    ids=str,
)
def test_a_node_that_pods_of_the_tier_cannot_use_does_not_count(change: dict[str, Any]) -> None:
    other = node("cloud")
    if "labels" in change:
        other["metadata"]["labels"] = change["labels"]
    elif "ready" in change:
        other["status"]["conditions"][0]["status"] = change["ready"]
    else:
        other["spec"].update(change)
    (check,) = [c for c in cluster.of_service(service(), [other, *ALL[1:]]) if c.name.endswith(" cloud")]
    assert (check.state, "tierserve.io/tier=cloud" in check.hint) == ("missing", True)


@pytest.mark.parametrize("effect", ["PreferNoSchedule", None])
def test_a_taint_that_does_not_keep_pods_away_is_ignored(effect: str | None) -> None:
    other = node("cloud", taints=[{"key": "other", "effect": effect}])
    assert states(service(), [other, *ALL[1:]])["cloud"] == "ok"


def test_vllm_needs_as_many_accelerators_on_one_node_as_a_replica_has() -> None:
    resource = service()
    resource["spec"]["models"][0] = {"name": "large", "engine": "vllm", "source": "hf://org/model-8b"}
    resource["spec"]["tiers"][2]["accelerator"] = {"preset": "A100-80GB", "perReplica": 2}
    nodes = deepcopy(ALL)
    for free, state in ((0, "missing"), (1, "missing"), (2, "ok")):
        nodes[0]["status"]["allocatable"]["nvidia.com/gpu"] = str(free)
        assert states(resource, nodes)["cloud"] == state


def test_nodes_on_demand_are_a_warning_while_there_are_none() -> None:
    resource = service()
    resource["spec"]["tiers"][2]["placement"] = {"nodesOnDemand": True}
    assert states(resource, ALL[1:])["cloud"] == "warning"


def test_a_resource_that_cannot_be_placed_is_named() -> None:
    resource = service()
    resource["spec"]["objective"]["responseTime"]["target"] = "1ms"
    (check,) = cluster.of_service(resource, ALL)
    assert (check.state, check.name) == ("missing", "default/assistant")


def test_the_crd_is_compared_with_that_of_this_version() -> None:
    assert cluster.crd(None, "not found").state == "missing"
    assert cluster.crd(deepcopy(crd())).state == "ok"
    older = deepcopy(crd())
    del older["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["routing"]
    assert cluster.crd(older).state == "warning"
    other = deepcopy(crd())
    other["spec"]["versions"][0]["name"] = "v2"
    assert cluster.crd(other).state == "missing"


@pytest.mark.parametrize(("version", "state"), [("v1.29.4", "missing"), ("v1.30.0", "ok"), ("v1.36.2+k3s1", "ok")])
def test_the_version_of_the_api_server_is_that_of_the_chart_or_newer(version: str, state: str) -> None:
    assert cluster.api_server({"serverVersion": {"gitVersion": version}}).state == state


def deployment(available: int) -> dict[str, Any]:
    pod = {"spec": {"containers": [{"image": "registry.example/operator:0.1.0"}]}}
    return {
        "metadata": {"name": "operator", "namespace": "tierserve-system"},
        "spec": {"template": pod},
        "status": {"availableReplicas": available},
    }


def test_the_operator_must_be_available_and_what_may_not_be_read_is_a_warning() -> None:
    assert cluster.operator([deployment(1)]).state == "ok"
    assert cluster.operator([deployment(0)]).state == "missing"
    assert cluster.operator([]).state == "missing"
    assert cluster.operator(None, "forbidden").state == "warning"
    assert cluster.kuberay([]).state == "warning"
    assert cluster.kuberay([deployment(0)]).state == "missing"


def test_without_the_prometheus_operator_services_run_and_without_kuberay_they_do_not() -> None:
    assert cluster.monitoring("servicemonitors.monitoring.coreos.com", None).state == "warning"
    assert cluster.installed("rayservices.ray.io", None, "install it").state == "missing"


@pytest.mark.parametrize(
    ("values", "flags"),
    [
        ("default", [("--all-namespaces",)]),
        ("namespaces", [("--namespace", "red"), ("--namespace", "blue")]),
    ],
)
def test_rights_are_checked_where_the_operator_watches(values: str, flags: list[tuple[str, ...]]) -> None:
    rendered = (EXAMPLES.parent / "tests" / "chart" / "golden" / f"{values}.yaml").read_text()
    (deployment,) = [one for one in yaml.safe_load_all(rendered) if one and one["kind"] == "Deployment"]
    assert cluster.watched(deployment) == flags


def test_what_the_operator_may_not_do_is_missing_and_what_this_user_may_not_do_is_a_warning() -> None:
    allowed: dict[tuple[str, str], bool | None] = dict.fromkeys(cluster.OPERATOR_NEEDS, True)
    user, (first, *_) = "system:serviceaccount:system:operator", cluster.OPERATOR_NEEDS
    assert cluster.operator_permissions(user, allowed, "red").state == "ok"
    assert cluster.operator_permissions(user, allowed | {first: None}, "red").state == "warning"
    denied = cluster.operator_permissions(user, allowed | {first: False}, "red")
    assert (denied.state, first[1] in denied.message, "red" in denied.message) == ("missing", True, True)
    assert [cluster.user_permission(may).state for may in (True, False, None)] == ["ok", "warning", "warning"]


def test_least_version_and_rights_are_those_of_the_chart() -> None:
    chart = EXAMPLES.parent / "charts" / "tierserve"
    least = yaml.safe_load((chart / "Chart.yaml").read_text())["kubeVersion"]
    assert least == f">={'.'.join(map(str, cluster.LEAST_KUBERNETES))}.0-0"
    lines = (chart / "templates" / "_rules.tpl").read_text().splitlines()
    rules = yaml.safe_load("\n".join(line for line in lines if not line.startswith("{{")))
    granted = {
        (verb, f"{resource}.{group}" if group and "/" not in resource else resource.replace("/", f".{group}/", 1))
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert set(cluster.OPERATOR_NEEDS) <= granted
