"""What keeps pods from running is said in the words of those who know."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from tierserve.api import parse
from tierserve.api.loading import to_document
from tierserve.observe.pod_failures import pod_problems
from tierserve.plan.placement import place

GAID = parse(yaml.safe_load((Path(__file__).parents[3] / "examples" / "assistant.yaml").read_text()))
POOLS = place(GAID)
NOW = 1_800_000_000.0
NO_NODE = "0/5 nodes are available: 1 node(s) were unschedulable."


def pod(name: str, tier: str = "edge", age_s: float = 60.0, **status: Any) -> dict[str, Any]:
    created = datetime.fromtimestamp(NOW - age_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    labels = {"tierserve.io/tier": tier, "tierserve.io/site": "default"} if tier else {}
    return {"metadata": {"name": name, "creationTimestamp": created, "labels": labels}, "status": status}


def unscheduled(name: str, **more: Any) -> dict[str, Any]:
    conditions = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": NO_NODE}]
    return pod(name, conditions=conditions, **more)


def waiting(name: str, reason: str, tier: str = "edge") -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": "Back-off"}}
    return pod(name, tier, containerStatuses=[{"name": "ray-head", "state": state}])


def test_a_pod_without_a_node_is_named_with_its_pool_and_the_words_of_the_scheduler() -> None:
    assert pod_problems(GAID, [unscheduled("a")], POOLS, NOW) == [f"edge-default: pod a cannot be scheduled: {NO_NODE}"]


def test_pods_with_the_same_trouble_are_one_line() -> None:
    found = pod_problems(GAID, [unscheduled(name) for name in "cab"], POOLS, NOW)
    assert found == [f"edge-default: pod a and 2 more cannot be scheduled: {NO_NODE}"]


def test_a_young_pod_may_still_find_its_node() -> None:
    assert pod_problems(GAID, [unscheduled("a", age_s=5.0)], POOLS, NOW) == []


def test_a_terminating_pod_is_no_error() -> None:
    going = unscheduled("a")
    going["metadata"]["deletionTimestamp"] = "2027-01-15T08:00:00Z"
    assert pod_problems(GAID, [going], POOLS, NOW) == []


def test_image_errors_and_crashes_are_reported_and_an_ordinary_start_is_not() -> None:
    pods = [waiting("a", "ImagePullBackOff"), waiting("b", "ContainerCreating"), waiting("g", "CrashLoopBackOff", "")]
    assert pod_problems(GAID, pods, POOLS, NOW) == [
        "edge-default: pod a does not run: ray-head: ImagePullBackOff Back-off",
        "gateway: pod g does not run: ray-head: CrashLoopBackOff Back-off",
    ]


def test_an_out_of_memory_container_is_reported() -> None:
    state = {"terminated": {"reason": "OOMKilled"}}
    killed = pod("a", containerStatuses=[{"name": "ray-worker", "state": state}])
    assert pod_problems(GAID, [killed], POOLS, NOW) == ["edge-default: pod a does not run: ray-worker: OOMKilled"]


def test_a_pending_pod_is_named_with_the_labels_that_its_node_must_have() -> None:
    pending = unscheduled("a") | {"spec": {"nodeSelector": {"tierserve.io/tier": "edge"}}}
    (problem,) = pod_problems(GAID, [pending], POOLS, NOW)
    assert "tierserve.io/tier=edge" in problem


@pytest.mark.parametrize("full", ["1 Insufficient cpu", "1 Insufficient ephemeral-storage", "1 Too many pods"])
def test_a_node_that_has_the_labels_and_no_room_is_not_said_to_lack_them(full: str) -> None:
    message = f"0/2 nodes are available: {full}, 1 node(s) didn't match Pod's node affinity/selector."
    pending = unscheduled("a") | {"spec": {"nodeSelector": {"tierserve.io/tier": "edge"}}}
    pending["status"]["conditions"][0]["message"] = message
    assert pod_problems(GAID, [pending], POOLS, NOW) == [f"edge-default: pod a cannot be scheduled: {message}"]


@pytest.mark.parametrize("resource", ["nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "google.com/tpu"])
def test_an_accelerator_that_no_node_has_is_named_with_the_labels_of_the_nodes_and_the_field(resource: str) -> None:
    message = (
        f"0/5 nodes are available: 1 Insufficient cpu, 1 Insufficient {resource}, 4 node(s) had untolerated taint."
    )
    pending = unscheduled("a") | {"spec": {"nodeSelector": {"tierserve.io/tier": "edge"}}}
    pending["status"]["conditions"][0]["message"] = message
    (problem,) = pod_problems(GAID, [pending], POOLS, NOW)
    assert f"no node with the labels tierserve.io/tier=edge has a free {resource}" in problem
    assert "accelerator.resource" in problem


def test_where_nodes_come_on_demand_a_pending_pod_is_a_problem_only_when_no_node_came() -> None:
    document = to_document(GAID)
    document["spec"]["tiers"][1]["placement"] = {"nodesOnDemand": True}
    on_demand = parse(document)

    def problems(age_s: float, tier: str = "edge") -> int:
        return len(pod_problems(on_demand, [unscheduled("a", tier=tier, age_s=age_s)], place(on_demand), NOW))

    assert problems(600.0) == 0, "a node is being added"
    assert problems(1000.0) == 1, "the autoscaler has given up"
    assert problems(600.0, tier="cloud") == 1, "another tier has its nodes"
