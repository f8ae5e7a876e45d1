"""Objects and agents of a cluster, as one observation."""

from __future__ import annotations

from pathlib import Path

import yaml

from tierserve.api import parse
from tierserve.api.document import to_document
from tierserve.observe.kubernetes import observed
from tierserve.plan.placement import place

GAID = parse(yaml.safe_load((Path(__file__).parents[3] / "examples" / "assistant.yaml").read_text()))
PLACEMENTS = place(GAID)
POOL = "cloud-default"


def ray(**status):
    return {"kind": "RayService", "metadata": {"name": "assistant-cloud-default"}, "status": status}


def agent(**pool):
    return {"pools": {POOL: pool}}


def seen(children=(), agents=()):
    return observed(GAID, PLACEMENTS, children, agents, now=100.0)


def test_what_nobody_tells_is_unknown_and_not_zero():
    pool = seen().pools[POOL]
    assert (pool.app, pool.running, pool.desired, pool.gateway, pool.decision) == (None, None, None, None, None)
    assert pool.message == "its RayService is not there yet"
    assert seen().parts == {"gateway": False}


def test_an_application_is_as_kuberay_saw_it_first_on_the_cluster_that_serves():
    apps = {"applicationStatuses": {POOL: {"status": "RUNNING"}}}
    coming = {"applicationStatuses": {POOL: {"status": "DEPLOYING"}}}
    assert seen([ray(activeServiceStatus=apps, pendingServiceStatus=coming)]).pools[POOL].app == "RUNNING"
    assert seen([ray(pendingServiceStatus=coming)]).pools[POOL].app == "DEPLOYING"


def test_a_ray_service_that_nobody_looks_at_says_what_to_look_at():
    assert "is its operator running?" in seen([{**ray(), "status": {}}]).pools[POOL].message


def test_several_gateways_are_added_up_and_the_worst_percentile_counts():
    older = {"t": 90.0, "running": 1, "target": 1}
    newer = {"t": 99.0, "running": 2, "target": 3}
    pool = seen(agents=[
        agent(in_flight=3, queued=1, p95_s=0.8, within_target=1.0, decision=newer, decision_age_s=0.1),
        agent(in_flight=4, queued=0, p95_s=None, within_target=0.9, decision=older),
    ]).pools[POOL]  # fmt: skip
    assert pool.gateway == {"in_flight": 7, "queued": 1, "p95_s": 0.8, "within_target": 0.9}
    assert (pool.running, pool.desired, pool.decision) == (2, 3, newer)


def test_the_gateway_is_alive_when_a_pod_of_it_is_available():
    deployment = {"kind": "Deployment", "metadata": {"name": "assistant-gateway"}, "status": {"availableReplicas": 1}}
    assert seen([deployment]).parts == {"gateway": True}


def test_where_tls_is_switched_on_the_gateway_serves_only_when_a_pod_with_tls_is_available():
    document = to_document(GAID)
    document["spec"]["gateway"] = {"tls": {"secretName": "cert"}}
    secured = parse(document)

    def serves(gaid, **status):
        status = {"observedGeneration": 2, **status}
        metadata = {"name": "assistant-gateway", "generation": 2}
        deployment = {"kind": "Deployment", "metadata": metadata, "status": status}
        return observed(gaid, PLACEMENTS, [deployment], (), now=100.0).parts["gateway"]

    waiting = {"replicas": 3, "updatedReplicas": 1, "availableReplicas": 2}
    assert not serves(secured, **waiting), "the pod with TLS waits for its Secret; those from before serve port 80"
    assert serves(GAID, **waiting), "any other roll-out is no outage"
    assert serves(secured, replicas=3, updatedReplicas=1, availableReplicas=3)
    assert serves(secured, replicas=2, updatedReplicas=2, availableReplicas=1)
    assert not serves(secured, observedGeneration=1, replicas=2, updatedReplicas=2, availableReplicas=2)
    assert not serves(secured)
