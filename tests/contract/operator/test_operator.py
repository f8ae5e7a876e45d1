"""The operator on a real API server: what it makes of a GenAIDeployment, and what it leaves alone."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.apiserver]
GATEWAY = "assistant-gateway"
POOLS = {"assistant-device-default", "assistant-edge-default", "assistant-cloud-default"}


@pytest.fixture
def served(operator: Any, kuberay: None, space: Any, assistant: Any, eventually: Any) -> Any:
    """The example, applied, with all that the operator makes of it."""
    space.create(assistant)
    eventually(lambda: space.names("RayService") >= POOLS, "a RayService for each pool")
    eventually(lambda: space.condition("assistant", "Ready"), "a status")
    return space


def bounds(space: Any, ray_service: str) -> tuple[int, int]:
    """Minimum and maximum of replicas in the Serve configuration."""
    config = json.loads(space.get("RayService", ray_service)["spec"]["serveConfigV2"])
    scaling = config["applications"][0]["deployments"][0]["autoscaling_config"]
    return scaling["min_replicas"], scaling["max_replicas"]


def test_a_resource_becomes_a_ray_service_for_each_pool_and_a_gateway(served):
    for kind, name in (
        ("Deployment", GATEWAY), ("ConfigMap", GATEWAY), ("PodDisruptionBudget", GATEWAY), ("Service", GATEWAY),
        ("Service", "assistant-gateway-agents"), ("NetworkPolicy", "assistant-tier"),
        ("NetworkPolicy", "assistant-gateway"), *(("RayService", pool) for pool in POOLS),
    ):  # fmt: skip
        found = served.get(kind, name)
        assert found, f"{kind} {name}"
        owner = found["metadata"]["ownerReferences"][0]
        assert (owner["kind"], owner["name"]) == ("GenAIDeployment", "assistant"), "it goes with its owner"
    ready = served.condition("assistant", "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "ComponentsNotReady"), (
        "no kubelet: no pod of the gateway runs"
    )


def test_nothing_is_finalized_so_deletion_needs_no_operator(served):
    assert "finalizers" not in served.get("GenAIDeployment", "assistant")["metadata"]


def test_the_status_of_kuberay_is_in_the_status(served, eventually):
    path = served.path("RayService", "assistant-cloud-default")
    ray = served.get("RayService", "assistant-cloud-default")
    app = {"cloud-default": {"status": "DEPLOY_FAILED", "message": "no such model"}}
    ray["status"] = {"activeServiceStatus": {"applicationStatuses": app}}
    code, reply = served.server.replace_status(path, ray)
    assert code == 200, reply
    degraded = eventually(
        lambda: "no such model" in (c := served.condition("assistant", "Degraded")).get("message", "") and c, "told"
    )
    assert degraded["status"] == "True"


def test_minimum_and_maximum_change_without_a_new_ray_cluster(served, eventually):
    before = served.get("RayService", "assistant-cloud-default")["spec"]["rayClusterConfig"]
    tiers = copy.deepcopy(served.get("GenAIDeployment", "assistant")["spec"]["tiers"])
    tiers[2]["replicas"] = {"min": 2, "max": 20}
    served.edit("GenAIDeployment", "assistant", {"spec": {"tiers": tiers}})

    eventually(lambda: bounds(served, "assistant-cloud-default") == (2, 20), "the new bounds")
    after = served.get("RayService", "assistant-cloud-default")["spec"]["rayClusterConfig"]
    for one in (before, after):
        one["workerGroupSpecs"][0].pop("replicas")  # KubeRay looks at it only when it makes the cluster
    assert after == before


def test_a_tier_that_leaves_the_file_leaves_the_cluster(served, eventually):
    spec = copy.deepcopy(served.get("GenAIDeployment", "assistant")["spec"])
    tiers = [tier for tier in spec["tiers"] if tier["name"] != "edge"]
    patch = {"spec": {"tiers": tiers, "routing": {**spec["routing"], "overflow": ["cloud"]}}}
    served.edit("GenAIDeployment", "assistant", patch)
    eventually(lambda: served.names("RayService") == POOLS - {"assistant-edge-default"}, "the pool of edge is gone")
    eventually(
        lambda: "edge" not in served.get("ConfigMap", GATEWAY)["data"]["haproxy.cfg"], "the gateway knows no edge"
    )


def test_what_somebody_changes_by_hand_is_set_right_again(served, eventually):
    path = {"spec": {"upgradeStrategy": {"type": "None"}}}
    served.edit("RayService", "assistant-cloud-default", path)
    eventually(
        lambda: served.get("RayService", "assistant-cloud-default")["spec"]["upgradeStrategy"]["type"] == "NewCluster",
        "the strategy is as rendered",
    )


def test_a_resource_that_is_made_anew_gets_a_status_of_its_own(served, assistant, eventually):
    uid = served.get("GenAIDeployment", "assistant")["metadata"]["uid"]
    served.server.delete(served.path("GenAIDeployment", "assistant"))
    served.create(assistant)  # at once, as kubectl replace --force does
    assert served.get("GenAIDeployment", "assistant")["metadata"]["uid"] != uid
    eventually(lambda: served.condition("assistant", "Ready"), "a status")


def test_what_is_deleted_by_hand_comes_back(served, eventually):
    served.server.delete(served.path("RayService", "assistant-edge-default"))
    eventually(lambda: served.get("RayService", "assistant-edge-default"), "the RayService is back")


def test_paused_means_that_nothing_is_written_but_the_status(served, eventually):
    served.edit("GenAIDeployment", "assistant", {"spec": {"paused": True}})
    eventually(lambda: served.condition("assistant", "Progressing").get("reason") == "Paused", "it says so")
    served.edit("RayService", "assistant-cloud-default", {"spec": {"upgradeStrategy": {"type": "None"}}})
    generation = served.get("GenAIDeployment", "assistant")["metadata"]["generation"]
    served.edit("GenAIDeployment", "assistant", {"spec": {"gateway": {"maxQueue": 7}}})
    eventually(
        lambda: served.get("GenAIDeployment", "assistant")["status"]["observedGeneration"] > generation, "a pass"
    )
    assert served.get("RayService", "assistant-cloud-default")["spec"]["upgradeStrategy"]["type"] == "None"


def test_a_spec_that_cannot_be_planned_is_not_accepted_with_field_and_hint(operator, space, assistant, eventually):
    assistant["spec"]["objective"]["responseTime"]["target"] = "300ms"
    space.create(assistant)
    degraded = eventually(
        lambda: (c := space.condition("assistant", "Degraded")).get("status") == "True" and c, "Degraded"
    )
    assert degraded["reason"] == "CannotBePlanned"
    assert "spec.objective.responseTime.target: must be at least " in degraded["message"]
    assert "give at least 1055ms" in degraded["message"], "the smallest change that would do"
    assert space.names("Deployment") == set(), "nothing half done"


def named(assistant: dict[str, Any], name: str, tier: str) -> dict[str, Any]:
    """A service of one tier at site b."""
    spec = assistant["spec"]
    one = {**spec["tiers"][2], "name": tier, "sites": [{"name": "b"}]}
    spec = {"objective": spec["objective"], "models": spec["models"][:1], "tiers": [one]}
    return {**assistant, "metadata": {**assistant["metadata"], "name": name}, "spec": spec}


def test_of_two_services_with_the_same_object_name_the_second_is_degraded(
    operator, kuberay, space, assistant, eventually
):
    space.create(named(assistant, "chat", "edge-a"))
    uid = eventually(lambda: space.get("RayService", "chat-edge-a-b"), "the first")["metadata"]["uid"]
    space.create(named(assistant, "chat-edge", "a"))
    degraded = eventually(
        lambda: (c := space.condition("chat-edge", "Degraded")).get("status") == "True" and c, "Degraded of the second"
    )
    assert "RayService chat-edge-a-b: already exists and belongs to GenAIDeployment chat" in degraded["message"]
    found = space.get("RayService", "chat-edge-a-b")["metadata"]
    assert (found["uid"], found["labels"]["tierserve.io/deployment"]) == (uid, "chat")


def test_an_operator_killed_during_a_change_completes_it_after_a_restart(operator, served, eventually):
    before = {pool: served.get("RayService", pool)["metadata"]["uid"] for pool in POOLS}
    operator.kill()
    tiers = copy.deepcopy(served.get("GenAIDeployment", "assistant")["spec"]["tiers"])
    tiers[2]["replicas"] = {"min": 1, "max": 33}
    served.edit("GenAIDeployment", "assistant", {"spec": {"tiers": tiers}})
    operator.start()

    eventually(lambda: bounds(served, "assistant-cloud-default") == (1, 33), "the change made while it was down", 90.0)
    assert {pool: served.get("RayService", pool)["metadata"]["uid"] for pool in POOLS} == before
    assert served.names("RayService") == POOLS, "no duplicates"


def test_a_tick_without_change_writes_nothing(operator, served, eventually):
    eventually(lambda: served.condition("assistant", "Degraded"), "settled")
    kinds = ("RayService", "Deployment", "ConfigMap", "Service", "NetworkPolicy", "PodDisruptionBudget")

    def versions() -> dict[str, str]:
        found = {}
        for kind in kinds:
            for name in served.names(kind):
                found[f"{kind}/{name}"] = served.get(kind, name)["metadata"]["resourceVersion"]
        found["status"] = served.get("GenAIDeployment", "assistant")["metadata"]["resourceVersion"]
        return found

    def reconciled(times: int) -> None:
        goal = operator.reconciles() + times
        eventually(lambda: operator.reconciles() >= goal, f"{times} reconciles", 90.0)

    reconciled(3)
    before = versions()
    reconciled(4)
    assert versions() == before


def test_events_tell_of_transitions_and_only_of_those(served, eventually):
    def told():  # an event is sent beside the status, not before it
        code, found = served.server.get(served.path("Event"))
        assert code == 200
        mine = [e for e in found["items"] if e["involvedObject"]["name"] == "assistant"]
        return mine if {e["reason"] for e in mine} >= {"ComponentsNotReady"} else None

    mine = eventually(told, "the event")
    assert all(e["source"]["component"] == "tierserve-operator" for e in mine)
    assert len(mine) <= 4
