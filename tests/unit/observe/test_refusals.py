"""Refused pods and objects, from the events of KubeRay and the status of the gateway's Deployment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tierserve.api import parse
from tierserve.observe.refusals import LONGEST, gateway_refusals, is_upgrading, pool_refusals, start_failures
from tierserve.plan.placement import place

GAID = parse(yaml.safe_load((Path(__file__).parents[3] / "examples" / "assistant.yaml").read_text()))
POOLS = place(GAID)
EDGE, CLUSTER = "assistant-edge-default", "assistant-edge-default-x2x9c"
RAY = {
    "kind": "RayService", "metadata": {"name": EDGE},
    "status": {"pendingServiceStatus": {"rayClusterName": CLUSTER}},
}  # fmt: skip


def event(kind: str, name: str, reason: str, message: str, at: str = "2027-01-15T08:00:10Z") -> dict[str, Any]:
    regarding = {"kind": kind, "name": name}
    return {"metadata": {}, "involvedObject": regarding, "reason": reason, "message": message, "lastTimestamp": at}


def pod(at: str) -> dict[str, Any]:
    labels = {"tierserve.io/tier": "edge", "tierserve.io/site": "default"}
    return {"metadata": {"name": "p", "labels": labels, "creationTimestamp": at}}


def refusals(*events: dict[str, Any], pods: tuple[dict[str, Any], ...] = ()) -> list[str]:
    return pool_refusals(GAID, POOLS, [RAY], events, pods)


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("RayCluster", CLUSTER, "FailedToCreateHeadPod"),
        ("RayCluster", CLUSTER, "FailedToCreateWorkerPod"),
        ("RayCluster", CLUSTER, "FailedToCreateServiceAccount"),
        ("RayService", EDGE, "FailedToCreateRayCluster"),
        ("RayService", EDGE, "FailedToCreateService"),
    ],
)
def test_what_kuberay_may_not_create_is_named_with_its_pool_and_the_reason(kind: str, name: str, reason: str) -> None:
    (text,) = refusals(event(kind, name, reason, "is forbidden: exceeded quota: team"))
    assert text.startswith("edge-default: ")
    assert reason in text
    assert "exceeded quota: team" in text


def test_only_the_last_refusal_of_a_pool_is_shown() -> None:
    early = event("RayCluster", CLUSTER, "FailedToCreateHeadPod", "early", "2027-01-15T08:00:00Z")
    late = event("RayCluster", CLUSTER, "FailedToCreateHeadPod", "late", "2027-01-15T08:00:20Z")
    for events in ((early, late), (late, early)):
        (text,) = refusals(*events)
        assert "late" in text


def test_a_refusal_is_over_when_a_pod_has_been_created_since() -> None:
    refused = event("RayCluster", CLUSTER, "FailedToCreateHeadPod", "forbidden", "2027-01-15T08:00:10Z")
    assert refusals(refused, pods=(pod("2027-01-15T08:00:11Z"),)) == []
    assert len(refusals(refused, pods=(pod("2027-01-15T08:00:09Z"),))) == 1


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("RayCluster", "another-x2x9c", "FailedToCreateHeadPod"),
        ("Pod", CLUSTER, "FailedToCreateHeadPod"),
        ("RayCluster", CLUSTER, "Unhealthy"),
    ],
)
def test_events_of_others_and_of_other_matters_are_no_refusals(kind: str, name: str, reason: str) -> None:
    assert refusals(event(kind, name, reason, "x")) == []


def test_a_refused_pod_of_the_gateway_is_in_the_status_of_its_deployment() -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "violates PodSecurity"}
    deployment = {"kind": "Deployment", "metadata": {"name": "assistant-gateway"}, "status": {"conditions": [failure]}}
    (text,) = gateway_refusals([RAY, deployment])
    assert "gateway" in text
    assert "FailedCreate" in text
    assert "violates PodSecurity" in text


def test_messages_are_bounded() -> None:
    (text,) = refusals(event("RayCluster", CLUSTER, "FailedToCreateHeadPod", "x" * 5000))
    assert len(text) <= LONGEST


def test_a_cluster_beside_one_that_serves_is_an_upgrade() -> None:
    assert not is_upgrading([RAY])
    both = {"pendingServiceStatus": {"rayClusterName": "b"}, "activeServiceStatus": {"rayClusterName": "a"}}
    assert is_upgrading([{**RAY, "status": both}])


def test_a_secret_that_is_not_there_is_named_while_the_pod_waits_for_it() -> None:
    def failures(phase: str) -> list[str]:
        waiting = {"metadata": {"name": "gateway-1", "labels": {}}, "status": {"phase": phase}}
        missing = event("Pod", "gateway-1", "FailedMount", 'secret "cert" not found')
        return start_failures(POOLS, [missing, event("Pod", "other", "FailedMount", "x")], [waiting])

    (text,) = failures("Pending")
    assert text.startswith("gateway: FailedMount")
    assert 'secret "cert" not found' in text
    assert failures("Running") == []
