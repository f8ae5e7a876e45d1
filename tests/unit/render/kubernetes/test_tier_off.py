"""`replicas.max: 0` disables a tier: it has no objects and gets no requests."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import yaml

from tierserve.api import ValidationFailed, parse
from tierserve.api.warnings import hints
from tierserve.plan.capacity import limits_of
from tierserve.plan.placement import place
from tierserve.render.kubernetes.objects import kube_objects
from tierserve.render.kubernetes.settings import KubeSettings
from tierserve.status.build import Observed, status

SERVICE: dict[str, Any] = yaml.safe_load("""
apiVersion: serving.tierserve.io/v1alpha1
kind: GenAIDeployment
metadata: {name: chat, namespace: default}
spec:
  objective: {responseTime: {target: 3s}}
  models: [{name: small, engine: emulated, memory: {weights: 1Gi, perRequest: 64Mi}, profile: {alpha: 5ms}}]
  tiers:
    - {name: cloud, kind: cloud, accelerator: {preset: A100-80GB}}
    - {name: edge, kind: edge, accelerator: {preset: L4}, sites: [{name: berlin}, {name: lyon}]}
  traffic: [{name: open, privacy: public, share: 0.5}, {name: inside, privacy: site, share: 0.5}]
  routing: {overflow: [edge, cloud], defaultClass: open}
""")


def service(**replicas: Any) -> dict[str, Any]:
    """The service with the `replicas` of its tiers by name."""
    document = copy.deepcopy(SERVICE)
    for tier in document["spec"]["tiers"]:
        tier["replicas"] = replicas.get(tier["name"], {})
    return document


@pytest.mark.parametrize("replicas", [{"max": 0}, {"min": 0, "max": 0}, {"min": 3, "max": 0}])
def test_a_tier_that_is_off_has_no_pool_no_cluster_and_no_backend(replicas):
    gaid = parse(service(cloud=replicas))
    placements = place(gaid)
    assert {p.pool for p in placements} == {"edge-berlin", "edge-lyon"}, "all sites of the other tier"
    found = kube_objects(gaid, placements, KubeSettings())
    clusters = {one["metadata"]["name"] for one in found if one["kind"] == "RayService"}
    assert clusters == {"chat-edge-berlin", "chat-edge-lyon"}
    (files,) = [one["data"] for one in found if "haproxy.cfg" in one.get("data", {})]
    assert "cloud" not in files["haproxy.cfg"]
    assert {pool["tier"] for pool in json.loads(files["agent.json"])["pools"]} == {"edge"}
    assert limits_of(gaid, placements).exhausted_at.keys() == {"edge"}


def test_the_status_has_the_tier_that_is_off():
    gaid = parse(service(cloud={"max": 0}))
    assert [hint.path for hint in hints(gaid)] == ["spec.tiers[0].replicas.max"]
    found = status(gaid, place(gaid), Observed(0.0, "http://here"))
    (accepted,) = [one for one in found["conditions"] if one["type"] == "Accepted"]
    assert (accepted["status"], accepted["reason"]) == ("True", "AcceptedWithHints")
    assert "spec.tiers[0].replicas.max" in accepted["message"]
    assert {pool["tier"] for pool in found["pools"]} == {"edge"}


def test_a_class_without_an_enabled_tier_is_rejected_with_its_name():
    gaid = parse(service(edge={"max": 0}))
    with pytest.raises(ValidationFailed) as caught:
        place(gaid)
    assert [problem.path for problem in caught.value.problems] == ["spec.traffic[1]"]


def test_all_tiers_off_is_refused():
    with pytest.raises(ValidationFailed) as caught:
        parse(service(edge={"max": 0}, cloud={"max": 0}))
    assert [problem.path for problem in caught.value.problems] == ["spec.tiers"]


def test_a_class_whose_named_tier_is_off_does_not_overflow_to_other_tiers():
    document = service(edge={"max": 0})
    document["spec"]["traffic"] = [{"name": "open", "privacy": "public"}]
    document["spec"]["routing"] = {"overflow": ["edge"], "defaultClass": "open"}
    with pytest.raises(ValidationFailed) as caught:
        place(parse(document))
    assert [problem.path for problem in caught.value.problems] == ["spec.traffic[0]"]
