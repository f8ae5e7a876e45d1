"""What the operator tells: events on transitions, metrics without lies, logs as JSON."""

from __future__ import annotations

import json
import logging
import math

from tierserve.controller.telemetry import JsonLines, Metrics, transitions

RESOURCE = {
    "apiVersion": "serving.tierserve.io/v1alpha1", "kind": "GenAIDeployment",
    "metadata": {"name": "assistant", "namespace": "chat", "uid": "0a1b"},
}  # fmt: skip


def status(**conditions):
    found = [{"type": t, "status": s, "reason": r, "message": "in words"} for t, (s, r) in conditions.items()]
    return {"conditions": found}


def told(before, after):
    return [(e["type"], e["reason"]) for e in transitions(RESOURCE, before, after)]


def test_only_what_changes_is_told():
    well = status(Ready=("True", "Serving"), Degraded=("False", "AsExpected"))
    assert told(well, well) == []
    assert told(well, status(Ready=("False", "ComponentsNotReady"), Degraded=("False", "AsExpected"))) == [
        ("Warning", "ComponentsNotReady")
    ]
    assert told(status(Ready=("False", "ComponentsNotReady")), well) == [("Normal", "Serving")]


def test_a_first_status_tells_only_what_is_wrong():
    assert told(None, status(Ready=("True", "Serving"), SLOMet=("Unknown", "NoTraffic"))) == []
    assert told(None, status(Degraded=("True", "Problems"))) == [("Warning", "Problems")]


def test_an_event_is_about_the_resource():
    (event,) = transitions(RESOURCE, None, status(Degraded=("True", "Problems")))
    assert event["involvedObject"]["uid"] == "0a1b"
    assert event["metadata"]["namespace"] == "chat"
    assert event["message"] == "Degraded is True: in words"


def shown(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, {"namespace": "chat", "name": "assistant", **labels})


def test_what_is_unknown_is_not_a_number_and_what_is_gone_has_no_series():
    metrics = Metrics()
    pools = [{"pool": "edge", "running": 2, "desired": 3}, {"pool": "cloud"}]
    metrics.show("chat", "assistant", {**status(Ready=("True", "x"), SLOMet=("Unknown", "x")), "pools": pools})
    assert shown(metrics, "tierserve_pool_replicas", pool="edge") == 2
    assert math.isnan(shown(metrics, "tierserve_pool_replicas", pool="cloud"))
    assert shown(metrics, "tierserve_deployment_condition", condition="Ready") == 1
    assert math.isnan(shown(metrics, "tierserve_deployment_condition", condition="SLOMet"))
    metrics.show("chat", "assistant", {"pools": pools[:1]})
    assert shown(metrics, "tierserve_pool_replicas", pool="cloud") is None
    metrics.forget("chat", "assistant")
    assert shown(metrics, "tierserve_pool_replicas", pool="edge") is None
    assert shown(metrics, "tierserve_deployment_condition", condition="Ready") is None


def test_a_log_line_is_one_object_with_its_fields():
    record = logging.LogRecord("tierserve", logging.INFO, "x.py", 1, "scaled %s", ("edge",), None)
    record.fields = {"service": "chat/assistant"}
    line = json.loads(JsonLines().format(record))
    assert (line["level"], line["message"], line["service"]) == ("info", "scaled edge", "chat/assistant")
