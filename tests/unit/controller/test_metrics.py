"""Metrics: unknown is NaN, a deleted resource has no series, and labels have few values."""

from __future__ import annotations

import math

import pytest

from tierserve.controller.metrics import Metrics
from tierserve.runtime.kubernetes.client import ClusterError, ClusterUnreachableError, Request


def status(**conditions):
    found = [{"type": t, "status": s, "reason": r, "message": "in words"} for t, (s, r) in conditions.items()]
    return {"conditions": found}


def shown(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, {"namespace": "chat", "name": "assistant", **labels})


def test_unknown_values_are_nan_and_removed_pools_have_no_series():
    metrics = Metrics()
    pools = [{"pool": "edge", "running": 2, "desired": 3}, {"pool": "cloud"}]
    metrics.update("chat", "assistant", {**status(Ready=("True", "x"), SLOMet=("Unknown", "x")), "pools": pools}, 0.0)
    assert shown(metrics, "tierserve_pool_replicas", pool="edge") == 2
    assert math.isnan(shown(metrics, "tierserve_pool_replicas", pool="cloud"))
    assert shown(metrics, "tierserve_deployment_condition", condition="Ready") == 1
    assert math.isnan(shown(metrics, "tierserve_deployment_condition", condition="SLOMet"))
    metrics.update("chat", "assistant", {"pools": pools[:1]}, 0.0)
    assert shown(metrics, "tierserve_pool_replicas", pool="cloud") is None
    metrics.update(
        "chat", "assistant", {"pools": [pools[0] | {"download": {"doneBytes": 3, "totalBytes": 15, "nodes": 2}}]}, 0.0
    )
    assert shown(metrics, "tierserve_pool_download_done_bytes", pool="edge") == 3
    assert shown(metrics, "tierserve_pool_download_total_bytes", pool="edge") == 15
    metrics.update("chat", "assistant", {"pools": pools[:1]}, 0.0)
    assert shown(metrics, "tierserve_pool_download_total_bytes", pool="edge") is None
    metrics.forget("chat", "assistant")
    assert shown(metrics, "tierserve_pool_replicas", pool="edge") is None
    assert shown(metrics, "tierserve_deployment_condition", condition="Ready") is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ClusterError(403, "no right"), "Forbidden"),
        (ClusterError(429, "later"), "TooManyRequests"),
        (ClusterError(418, "a teapot"), "Other"),
        (ClusterUnreachableError("no answer"), "Unreachable"),
        (KeyError("a bug"), "Unexpected"),
    ],
)
def test_failed_reconciles_are_counted_by_a_reason_of_the_api_conventions(error, reason):
    metrics = Metrics()
    metrics.failed(error)
    assert metrics.registry.get_sample_value("tierserve_reconcile_errors_total", {"reason": reason}) == 1
    assert metrics.registry.get_sample_value("tierserve_reconcile_total", {"result": "error"}) == 1


def test_requests_are_counted_by_verb_resource_and_code_also_those_without_an_answer():
    metrics = Metrics()
    metrics.requested(Request("patch", "configmaps", 200, 0.02))
    metrics.requested(Request("patch", "configmaps", 0, 30.0))
    labels = {"verb": "patch", "resource": "configmaps"}
    value = metrics.registry.get_sample_value
    assert value("tierserve_operator_api_requests_total", {**labels, "code": "200"}) == 1
    assert value("tierserve_operator_api_requests_total", {**labels, "code": "<error>"}) == 1
    assert value("tierserve_operator_api_request_duration_seconds_sum", labels) == pytest.approx(30.02)


def test_the_depth_of_the_queue_is_read_at_each_scrape():
    metrics, depth = Metrics(), [3]
    metrics.watch_queue(lambda: depth[0])
    assert metrics.registry.get_sample_value("tierserve_operator_queue_depth") == 3
    depth[0] = 0
    assert metrics.registry.get_sample_value("tierserve_operator_queue_depth") == 0
