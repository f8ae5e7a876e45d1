"""Objects and agents of a cluster, as one observation."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tierserve.api import parse
from tierserve.api.loading import to_document
from tierserve.observe.kubernetes import has_caught_up, observed

GAID = parse(yaml.safe_load((Path(__file__).parents[3] / "examples" / "assistant.yaml").read_text()))
POOL = "cloud-default"
LABELS = {"tierserve.io/tier": "cloud", "tierserve.io/site": "default"}


def ray(**status):
    metadata = {"name": "assistant-cloud-default", "labels": LABELS, "generation": 3}
    metadata["annotations"] = {"tierserve.io/revision": "abc"}
    return {"kind": "RayService", "metadata": metadata, "status": status}


def agent(**pool):
    return {"pools": {POOL: pool}}


def seen(children=(), agents=(), settled=("assistant-cloud-default",)):
    return observed(GAID, children, agents, now=100.0, settled=settled)


def test_what_is_not_reported_is_unknown_and_not_zero():
    pool = seen([ray()]).pools[POOL]
    assert (pool.app, pool.running, pool.desired, pool.gateway, pool.decision) == (None, None, None, None, None)
    assert (pool.decision_age_s, pool.revision, pool.previous) == (None, None, None)
    assert seen().pools == {}
    assert seen().components == {"gateway": False}


def test_an_application_is_that_of_the_cluster_that_serves_and_the_one_on_its_way_is_apart():
    apps = {"applicationStatuses": {POOL: {"status": "RUNNING"}}}
    coming = {"applicationStatuses": {POOL: {"status": "DEPLOY_FAILED", "serveDeploymentStatuses": {
        "replica": {"status": "DEPLOY_FAILED", "message": "ValueError: no"}}}}}  # fmt: skip
    told = agent(decision={"running": 2, "target": 2}, decision_age_s=0.5)
    pool = seen([ray(activeServiceStatus=apps, pendingServiceStatus=coming)], [told]).pools[POOL]
    assert (pool.app, pool.update, pool.message, pool.previous) == ("RUNNING", "DEPLOY_FAILED", "ValueError: no", 2)
    first = seen([ray(pendingServiceStatus=coming)]).pools[POOL]
    assert (first.app, first.update) == ("DEPLOY_FAILED", None)
    # As KubeRay 1.6 writes it: during an upgrade it keeps no applications of the cluster that serves.
    upgrade = ray(activeServiceStatus={"rayClusterName": "a"}, pendingServiceStatus={"rayClusterName": "b"})
    assert (seen([upgrade]).pools[POOL].app, seen([upgrade]).pools[POOL].update) == ("RUNNING", "STARTING")


@pytest.mark.parametrize(
    ("status", "caught_up"),
    [
        ({"observedGeneration": 3, "activeServiceStatus": {"rayClusterName": "a"}}, True),
        ({"observedGeneration": 3, "pendingServiceStatus": {}}, True),
        ({"observedGeneration": 2, "activeServiceStatus": {"rayClusterName": "a"}}, False),
        ({"observedGeneration": 3, "pendingServiceStatus": {"rayClusterName": "b"}}, False),
        ({"activeServiceStatus": {"rayClusterName": "a"}}, False),
        ({}, False),
    ],
)
def test_a_revision_is_observed_once_kuberay_has_caught_up_with_it(status, caught_up):
    assert has_caught_up(ray(**status)) is caught_up
    assert seen([ray(**status)]).pools[POOL].revision == ("abc" if caught_up else None)
    assert seen([ray(**status)], settled=()).pools[POOL].revision is None


def test_a_ray_service_without_a_status_names_kuberay():
    assert "KubeRay" in seen([{**ray(), "status": {}}]).pools[POOL].message


def test_several_gateways_are_added_up_and_the_worst_percentile_counts():
    older = {"t": 99.0, "running": 1, "target": 1}
    newer = {"t": 90.0, "running": 2, "target": 3}  # the clocks of two machines may differ: the age counts
    pool = seen([ray()], [
        agent(in_flight=3, queued=1, p95_s=0.8, within_target=1.0, up=False, decision=newer, decision_age_s=0.1),
        agent(in_flight=4, queued=0, p95_s=None, within_target=0.9, up=True, decision=older, decision_age_s=9.0),
    ]).pools[POOL]  # fmt: skip
    assert pool.gateway == {"in_flight": 7, "queued": 1, "p95_s": 0.8, "within_target": 0.9, "up": True}
    assert (pool.running, pool.desired, pool.decision, pool.decision_age_s) == (2, 3, newer, 0.1)


def test_a_pool_is_down_where_no_gateway_finds_it_up():
    assert seen([ray()], [agent(up=False), agent(up=False)]).pools[POOL].gateway == {"up": False}


def deployment(**status):
    return {"kind": "Deployment", "metadata": {"name": "assistant-gateway"}, "status": status}


def test_the_gateway_is_alive_when_a_pod_of_it_is_available():
    assert seen([deployment(availableReplicas=1)]).components == {"gateway": True}


@pytest.mark.parametrize(
    ("replicas", "agents", "routed"),
    [
        (2, [{"routed": ["a"]}, {"routed": ["a", "b"]}], frozenset({"a", "b"})),
        (2, [{"routed": ["a"]}], None),
        (1, [{"routed": None}], None),
        (0, [], frozenset()),
    ],
)
def test_pools_that_gateways_send_to_are_known_when_every_gateway_reports_them(replicas, agents, routed):
    assert seen([deployment(replicas=replicas)], agents).routed == routed


def test_where_tls_is_switched_on_the_gateway_serves_only_when_a_pod_with_tls_is_available():
    document = to_document(GAID)
    document["spec"]["gateway"] = {"tls": {"secretName": "cert"}}
    secured = parse(document)

    def serves(gaid, **status):
        status = {"observedGeneration": 2, **status}
        metadata = {"name": "assistant-gateway", "generation": 2}
        deployment = {"kind": "Deployment", "metadata": metadata, "status": status}
        return observed(gaid, [deployment], (), now=100.0).components["gateway"]

    waiting = {"replicas": 3, "updatedReplicas": 1, "availableReplicas": 2}
    assert not serves(secured, **waiting), "the pod with TLS waits for its Secret; those from before serve port 80"
    assert serves(GAID, **waiting), "any other roll-out is no outage"
    assert serves(secured, replicas=3, updatedReplicas=1, availableReplicas=3)
    assert serves(secured, replicas=2, updatedReplicas=2, availableReplicas=1)
    assert not serves(secured, observedGeneration=1, replicas=2, updatedReplicas=2, availableReplicas=2)
    assert not serves(secured)
