"""Events: one per changed condition, Warning where it is bad."""

from __future__ import annotations

from tierserve.controller.events import transitions

RESOURCE = {
    "apiVersion": "serving.tierserve.io/v1alpha1", "kind": "GenAIDeployment",
    "metadata": {"name": "assistant", "namespace": "chat", "uid": "0a1b"},
}  # fmt: skip


def status(**conditions):
    found = [{"type": t, "status": s, "reason": r, "message": "in words"} for t, (s, r) in conditions.items()]
    return {"conditions": found}


def events_of(before, after):
    return [(e["type"], e["reason"]) for e in transitions(RESOURCE, before, after)]


def test_only_what_changes_is_events_of():
    well = status(Ready=("True", "Serving"), Degraded=("False", "AsExpected"))
    assert events_of(well, well) == []
    assert events_of(well, status(Ready=("False", "ComponentsNotReady"), Degraded=("False", "AsExpected"))) == [
        ("Warning", "ComponentsNotReady")
    ]
    assert events_of(status(Ready=("False", "ComponentsNotReady")), well) == [("Normal", "Serving")]


def test_a_first_status_posts_only_warnings():
    assert events_of(None, status(Ready=("True", "Serving"), SLOMet=("Unknown", "NoTraffic"))) == []
    assert events_of(None, status(Degraded=("True", "Problems"))) == [("Warning", "Problems")]


def test_an_event_is_about_the_resource():
    (event,) = transitions(RESOURCE, None, status(Degraded=("True", "Problems")))
    assert event["involvedObject"]["uid"] == "0a1b"
    assert event["metadata"]["namespace"] == "chat"
    assert event["message"] == "Degraded is True: in words"
