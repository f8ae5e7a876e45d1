"""Metrics: unknown is NaN, and a deleted resource has no series."""

from __future__ import annotations

import math

from tierserve.controller.metrics import Metrics


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
