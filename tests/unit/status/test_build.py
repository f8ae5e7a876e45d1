"""The conditions answer "is it well?", and say "not known" where nothing is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tierserve.api import Problem, load
from tierserve.api.schema.crd import schema
from tierserve.api.v1alpha1.models import Profile
from tierserve.api.v1alpha1.objective import Optimize
from tierserve.plan.placement import place
from tierserve.state import Observed, PoolObserved
from tierserve.status.build import rejected, status, without_nulls
from tierserve.status.pools import lacks_replicas
from tierserve.status.profile import duration

GAID = load(Path(__file__).parents[3] / "examples" / "assistant.yaml")
PLACEMENTS = place(GAID)
NOW = 1_800_000_000.0


def decision(**changes: object) -> dict[str, object]:
    return {"lambda": 2.0, "rho": 0.5, "replicas": 1, "reason": "one meets it", "stale": False} | changes


def well() -> Observed:
    pool = PoolObserved("RUNNING", "", 1, 1, decision(), {"p95_s": 0.9, "queued": 0, "up": True}, 1.0)
    return Observed(NOW, "http://127.0.0.1:8080", {p.pool: pool for p in PLACEMENTS}, {"gateway": True})


def with_pool(observed: Observed, **changes: object) -> Observed:
    name = PLACEMENTS[0].pool
    return replace(observed, pools={**observed.pools, name: replace(observed.pools[name], **changes)})


def conditions(observed: Observed, previous: dict | None = None) -> dict[str, dict]:
    return {c["type"]: c for c in status(GAID, PLACEMENTS, observed, previous)["conditions"]}


def test_all_is_well_when_every_pool_serves_within_its_target():
    answer = {kind: c["status"] for kind, c in conditions(well()).items()}
    assert answer == {
        "Accepted": "True",
        "Ready": "True",
        "Progressing": "False",
        "Degraded": "False",
        "ScalingActive": "True",
        "SLOMet": "True",
        "ProfileFits": "Unknown",
    }


def test_not_ready_names_the_pool_that_is_waited_for():
    ready = conditions(with_pool(well(), running=0, app="DEPLOYING"))["Ready"]
    assert ready["status"] == "False"
    assert PLACEMENTS[0].pool in ready["message"]


def scaled_to_zero(pools: int) -> tuple[list, Observed]:
    """The first so many pools have a floor of 0 and no replica, the policy says why."""
    placements = [replace(p, min_replicas=0) if i < pools else p for i, p in enumerate(PLACEMENTS)]
    observed, seen = well(), decision(replicas=0, reason="0 replicas: scaled to zero, no request for 40 s")
    for one in placements[:pools]:
        sleeper = PoolObserved("RUNNING", "", 0, 0, seen, None, 1.0)
        observed = replace(observed, pools={**observed.pools, one.pool: sleeper})
    return placements, observed


def test_a_pool_at_zero_is_ready_and_named():
    placements, observed = scaled_to_zero(1)
    document = status(GAID, placements, observed)
    found = {c["type"]: c for c in document["conditions"]}
    assert (document["ready"], found["Ready"]["reason"]) == ("True", "Serving")
    assert f"scaled to zero: {PLACEMENTS[0].pool}" in found["Ready"]["message"]
    assert (found["Degraded"]["status"], found["Progressing"]["status"]) == ("False", "False")
    assert [p["scaledToZero"] for p in document["pools"]] == [True] + [False] * (len(placements) - 1)
    assert document["tiers"] == f"{len(placements)}/{len(placements)}"
    assert not lacks_replicas(observed)


def test_a_service_with_all_pools_at_zero_is_ready_with_reason_scaled_to_zero():
    placements, observed = scaled_to_zero(len(PLACEMENTS))
    ready = next(c for c in status(GAID, placements, observed)["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("True", "ScaledToZero")


@pytest.mark.parametrize(
    "changes", [{"desired": 1}, {"running": None}, {"app": "DEPLOY_FAILED"}, {"app": None}, {"desired": None}]
)
def test_a_pool_that_starts_or_fails_or_is_unknown_is_not_scaled_to_zero(changes: dict):
    placements, observed = scaled_to_zero(1)
    name = placements[0].pool
    observed = replace(observed, pools={**observed.pools, name: replace(observed.pools[name], **changes)})
    assert status(GAID, placements, observed)["pools"][0]["scaledToZero"] is False


def test_a_pool_with_a_minimum_and_no_replica_is_not_scaled_to_zero():
    document = status(GAID, PLACEMENTS, with_pool(well(), running=0, desired=0))
    assert document["pools"][0]["scaledToZero"] is False
    assert document["ready"] == "False"


def test_a_component_that_is_down_makes_the_service_not_ready_and_is_named():
    ready = conditions(replace(well(), components={"gateway": False}))["Ready"]
    assert (ready["status"], ready["reason"]) == ("False", "ComponentsNotReady")
    assert "gateway" in ready["message"]


@pytest.mark.parametrize(
    "seen",
    [{"decision": None}, {"decision_age_s": 16.0}, {"decision_age_s": None}, {"decision": decision(stale=True)}],
)
def test_missing_or_stale_decisions_make_scaling_inactive(seen: dict):
    scaling = conditions(with_pool(well(), **seen))["ScalingActive"]
    assert (scaling["status"], scaling["reason"]) == ("False", "MetricsMissing")


def test_without_traffic_the_slo_is_neither_met_nor_missed():
    quiet = replace(well(), pools={n: replace(p, gateway=None) for n, p in well().pools.items()})
    assert conditions(quiet)["SLOMet"]["status"] == "Unknown"


def test_a_missed_target_names_pool_and_figures():
    slo = conditions(with_pool(well(), gateway={"p95_s": 9.0}))["SLOMet"]
    assert slo["status"] == "False"
    assert "9000 ms" in slo["message"]


def test_what_serve_does_not_answer_is_unknown_and_not_zero_replicas():
    pool = status(GAID, PLACEMENTS, Observed(NOW, "http://x"))["pools"][0]
    assert pool["running"] is None
    assert pool["desired"] is None


def test_the_time_of_transition_moves_only_with_the_status():
    first = status(GAID, PLACEMENTS, well())
    later = conditions(replace(well(), now=NOW + 5), first)["Ready"]
    assert later["lastTransitionTime"] == first["conditions"][0]["lastTransitionTime"]
    broken = conditions(replace(well(), now=NOW + 9, components={"agent": False}), first)["Ready"]
    assert broken["lastTransitionTime"] != later["lastTransitionTime"]


def test_the_columns_of_kubectl_are_filled():
    body = status(GAID, PLACEMENTS, with_pool(well(), gateway={"p95_s": 1.234, "in_flight": 3, "queued": 2}))
    assert (body["ready"], body["tiers"], body["replicas"]) == ("True", "3/3", 3)
    assert (body["p95"], body["connections"]) == ("1230ms", 5)
    assert status(GAID, PLACEMENTS, Observed(NOW, "http://x"))["connections"] is None


@pytest.mark.parametrize(
    ("made", "seen", "error"),
    [
        (decision(predicted_p95_s=1.1), {"p95_s": 1.0}, 0.1),
        (decision(predicted_p95_s=0.6), {"p95_s": 1.2}, -0.5),
        (decision(predicted_p95_s=0.6, percentile=99.0), {"p95_s": 1.2}, None),
        (decision(predicted_p95_s=None), {"p95_s": 1.2}, None),
        (decision(predicted_p95_s=0.6), {"p95_s": None}, None),
    ],
)
def test_the_error_of_the_model_is_predicted_over_observed_where_both_are_known(made, seen, error):
    body = status(GAID, PLACEMENTS, with_pool(well(), decision=made, gateway=seen))
    assert body["pools"][0]["modelError"] == error


def calibration(**changes: object) -> dict[str, object]:
    seen = {"alpha": 0.01234, "beta": 4e-4, "gamma": 6.1e-9, "used": True, "profile_error": -0.4, "drift": False}
    return decision(calibration=seen | changes)


def test_a_profile_that_is_off_is_reported_with_the_measured_one():
    body = status(GAID, PLACEMENTS, with_pool(well(), decision=calibration()))
    fits = next(c for c in body["conditions"] if c["type"] == "ProfileFits")
    assert (fits["status"], fits["reason"]) == ("False", "ProfileOff")
    assert "40% less" in fits["message"]
    assert "profile: {alpha: 12.34ms, beta: 400us, gamma: 6.1ns}" in fits["message"]
    pool = body["pools"][0]
    assert pool["profileError"] == -0.4
    Profile.model_validate({k: pool["measuredProfile"][k] for k in ("alpha", "beta", "gamma")})  # as a file takes it
    assert [p["profileError"] for p in body["pools"][1:]] == [None] * (len(PLACEMENTS) - 1)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (calibration(profile_error=0.14), "True"),
        (calibration(profile_error=0.16), "False"),
        (calibration(used=False), "Unknown"),
        (decision(calibration=None), "Unknown"),
    ],
)
def test_a_profile_is_judged_where_it_is_measured_only(seen, expected):
    assert conditions(with_pool(well(), decision=seen))["ProfileFits"]["status"] == expected


@pytest.mark.parametrize("seconds", [0.0, 1e-16, 3e-13, 6.1e-9, 9.9996e-7, 1e-3, 0.0123456, 1.0, 999.96, 9999.0])
def test_a_measured_time_reads_back_as_it_was(seconds):
    assert duration(seconds).value == pytest.approx(seconds, rel=1e-3, abs=1e-15)


def test_accepted_lists_the_fields_that_nothing_acts_on():
    (accepted,) = (c for c in status(GAID, PLACEMENTS, well(), cluster=True)["conditions"] if c["type"] == "Accepted")
    assert (accepted["status"], accepted["reason"]) == ("True", "Accepted")
    changed = GAID.spec.objective.model_copy(update={"optimize": Optimize(by="energy")})
    gaid = GAID.model_copy(update={"spec": GAID.spec.model_copy(update={"objective": changed})})
    (accepted,) = (c for c in status(gaid, PLACEMENTS, well())["conditions"] if c["type"] == "Accepted")
    assert (accepted["status"], accepted["reason"]) == ("True", "AcceptedWithHints")
    assert "spec.objective.optimize.by" in accepted["message"]


def test_what_is_not_known_is_left_out_where_null_is_no_value():
    assert without_nulls({"p95": None, "pools": [{"app": None, "pool": "edge"}], "replicas": 0}) == {
        "pools": [{"pool": "edge"}], "replicas": 0,
    }  # fmt: skip


def test_a_rejected_spec_keeps_the_status_and_reports_field_and_hint():
    before = {"endpoint": "http://here", "conditions": [{"type": "SLOMet", "status": "True"}], "pools": [1]}
    problem = Problem("spec.tiers[0].replicas.max", "must be at least min, 1", "give max at least 1", 0)
    found = rejected({"metadata": {"generation": 4}}, [problem], 0.0, before)
    assert (found["endpoint"], found["pools"], found["observedGeneration"]) == ("http://here", [1], 4)
    by_type = {c["type"]: c for c in found["conditions"]}
    assert by_type["Degraded"]["message"] == (
        "spec.tiers[0].replicas.max: must be at least min, 1 (got 0): give max at least 1"
    )
    assert by_type["Accepted"] == by_type["Degraded"] | {"type": "Accepted", "status": "False"}
    assert (by_type["Ready"]["status"], by_type["SLOMet"]["status"]) == ("False", "True")


def test_resource_usage_is_reported_per_pool_and_in_total():
    found = status(GAID, PLACEMENTS, well())
    cloud = next(p for p in found["pools"] if p["pool"] == "cloud-default")
    hardware = GAID.tier("cloud").hardware
    assert cloud["watts"] == round((hardware.idle_w + hardware.max_w) / 2, 2), "half used"
    assert cloud["costPerHour"] == hardware.price
    assert cloud["carbonGramsPerHour"] == pytest.approx(cloud["watts"] / 1e3 * 473, abs=0.01)
    assert found["watts"] == pytest.approx(sum(p["watts"] for p in found["pools"]), abs=0.02)


@pytest.mark.parametrize("seen", [{"running": None}, {"decision": None}, {"decision_age_s": 60.0}])
def test_a_total_with_an_unknown_pool_is_unknown(seen: dict):
    found = status(GAID, PLACEMENTS, with_pool(well(), **seen))
    assert found["watts"] is None
    assert [p["watts"] is None for p in found["pools"]] == [True, False, False]


# ---- Ready is of a generation ----


def at(generation: int, observed: Observed, before: dict | None = None, *, rendered: str = "new") -> dict:
    """The status of a generation whose pools are rendered as `rendered`."""
    gaid = GAID.model_copy(update={"metadata": GAID.metadata.model_copy(update={"generation": generation})})
    return status(gaid, PLACEMENTS, observed, before, revisions={p.pool: rendered for p in PLACEMENTS})


def serving(revision: str | None, **changes: object) -> Observed:
    pools = {name: replace(pool, revision=revision, **changes) for name, pool in well().pools.items()}
    return replace(well(), pools=pools)


def condition(document: dict, kind: str) -> dict:
    return next(c for c in document["conditions"] if c["type"] == kind)


@pytest.mark.parametrize("revision", ["old", None])
def test_a_generation_is_not_ready_before_it_serves_itself(revision):
    before = at(1, serving("old"), rendered="old")
    assert before["ready"] == "True"
    now = at(2, serving(revision, previous=1), before)
    ready = condition(now, "Ready")
    assert (ready["status"], ready["reason"], ready["observedGeneration"]) == ("False", "PoolsNotReady", 2)
    assert (condition(now, "Progressing")["status"], condition(now, "Progressing")["reason"]) == ("True", "RollingOut")
    assert now["tiers"] == f"0/{len(PLACEMENTS)}"
    assert [(p["running"], p["updated"]) for p in now["pools"]] == [(1, 0)] * len(PLACEMENTS), "the old capacity apart"
    assert at(2, serving("new"), now)["ready"] == "True"


def test_a_generation_that_was_ready_stays_ready_while_an_operator_rolls_it_out_anew():
    before = at(1, serving("old"), rendered="old")
    now = at(1, serving("old", previous=1), before)
    assert now["ready"] == "True"
    assert condition(now, "Progressing")["status"] == "True"


def test_a_pool_that_does_not_change_is_ready_in_the_next_generation_at_once():
    before = at(1, serving("same"), rendered="same")
    assert at(2, serving("same"), before, rendered="same")["ready"] == "True"


def test_a_first_roll_out_has_no_previous_revision():
    """KubeRay's status lags some seconds behind: replicas run, and of which revision is not known yet."""
    ready = condition(at(1, serving(None)), "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "PoolsNotReady")
    assert "previous" not in ready["message"]
    assert "1/1 replicas ready" in ready["message"]


def test_replicas_that_are_known_to_be_of_another_revision_are_not_updated():
    found = at(2, serving("old"), at(1, serving("old"), rendered="old"))
    assert [p["updated"] for p in found["pools"]] == [0] * len(PLACEMENTS)
    assert "1 of the previous one" in condition(found, "Ready")["message"]


@pytest.mark.parametrize("app", ["DEPLOYING", "DEPLOY_FAILED"])
def test_replicas_that_serve_while_a_revision_is_deployed_in_place_are_not_said_to_be_of_it(app):
    """Serve's configuration is the new one; of which revision its running replicas are, KubeRay does not say."""
    found = at(2, serving("new", app=app), at(1, serving("old"), rendered="old"))
    assert [(p["running"], p["updated"]) for p in found["pools"]] == [(1, None)] * len(PLACEMENTS)
    ready = condition(found, "Ready")
    assert ready["status"] == "False"
    assert app in ready["message"], "replicas are ready, so they are not the reason"


def test_replicas_of_the_previous_revision_are_counted_where_they_are_known():
    found = at(2, serving("new", app="DEPLOYING", running=3, previous=2), at(1, serving("old"), rendered="old"))
    assert [p["updated"] for p in found["pools"]] == [1] * len(PLACEMENTS)


SERVE_ERROR = """Failed to update the deployments ['replica'].
The deployment failed to start 3 times in a row. This may be due to a problem with its constructor or initial health \
check failing. See controller logs for details. Error:
\x1b[36mray::ServeReplica:edge:replica.initialize_and_get_metadata()\x1b[39m (pid=1, ip=10.0.0.1)
  File "/usr/lib/python3.11/concurrent/futures/_base.py", line 456, in result
    return self.__get_result()
RuntimeError: Traceback (most recent call last):
  File "/opt/tierserve/engines/sources.py", line 12, in path
    raise FileNotFoundError(path)
FileNotFoundError: /models/missing.gguf: no such file
"""


@pytest.mark.parametrize(
    "changes", [{"update": "DEPLOY_FAILED"}, {"app": "DEPLOY_FAILED"}, {"app": "UNHEALTHY"}, {"app": "DEPLOYING"}]
)
def test_degraded_names_the_replica_s_own_error(changes):
    found = at(2, serving("old", message=SERVE_ERROR, previous=1, **changes))
    assert found["ready"] == "False"
    degraded = condition(found, "Degraded")
    assert degraded["status"] == "True"
    assert "FileNotFoundError: /models/missing.gguf: no such file" in degraded["message"]
    assert "Traceback" not in degraded["message"]


@pytest.mark.parametrize("message", ["no such model", "", "x" * 5000])
def test_a_failure_without_a_traceback_is_degraded_all_the_same(message):
    degraded = conditions(with_pool(well(), app="DEPLOY_FAILED", message=message))["Degraded"]
    assert degraded["status"] == "True"
    assert message[:50] in degraded["message"]


def test_an_earlier_pool_that_still_serves_is_on_its_way_out():
    pools = {**well().pools, "gone-default": replace(well().pools[PLACEMENTS[0].pool])}
    progressing = conditions(replace(well(), pools=pools))["Progressing"]
    assert (progressing["status"], progressing["reason"]) == ("True", "RollingOut")
    assert "gone-default" in progressing["message"]


def test_what_is_not_known_is_not_settled():
    progressing = conditions(Observed(NOW, "http://x"))["Progressing"]
    assert (progressing["status"], progressing["reason"]) == ("Unknown", "NotObserved")


# ---- Ready is of now ----


@pytest.mark.parametrize(
    "changes",
    [
        {"decision_age_s": 3600.0},
        {"decision_age_s": None},
        {"gateway": {"up": False, "queued": 40}},
        {"gateway": {"up": False, "queued": 40}, "decision_age_s": 3600.0, "running": 6, "desired": 6},
    ],
)
def test_a_pool_that_the_gateway_finds_down_or_the_autoscaler_knows_nothing_of_is_not_ready(changes):
    found = status(GAID, PLACEMENTS, with_pool(well(), **changes))
    assert (condition(found, "Ready")["status"], condition(found, "Ready")["reason"]) == ("False", "PoolsNotReady")
    assert found["tiers"] == f"{len(PLACEMENTS) - 1}/{len(PLACEMENTS)}"


def test_a_serve_controller_that_is_restarted_does_not_make_a_service_unready():
    found = conditions(with_pool(well(), decision_age_s=25.0))
    assert (found["Ready"]["status"], found["ScalingActive"]["status"]) == ("True", "False")


# ---- what is written fits ----


def _longest(node: dict, value: object, path: str = "status") -> list[str]:
    """Paths of texts and lists that the CRD would refuse."""
    if isinstance(value, str):
        return [path] if len(value) > node.get("maxLength", 10**9) else []
    if isinstance(value, dict):
        known_fields = node.get("properties", {})
        return [bad for k, v in value.items() for bad in _longest(known_fields.get(k, {}), v, f"{path}.{k}")]
    if isinstance(value, list | tuple):
        bad = [path] if len(value) > node.get("maxItems", 10**9) else []
        return bad + [b for one in value for b in _longest(node.get("items", {}), one, f"{path}[]")]
    return []


def test_every_text_of_a_status_fits_the_definition():
    text = "x\u2028é" * 50_000
    pools = {
        name: replace(pool, app="DEPLOY_FAILED", update=text, message=text, decision=decision(reason=text))
        for name, pool in well().pools.items()
    }
    document = status(GAID, PLACEMENTS, replace(well(), pools=pools, endpoint=text, problems=(text,) * 100))
    status_schema = schema()["properties"]["status"]
    assert _longest(status_schema, document) == []
    assert len(json.dumps(document)) < 100_000
    problem = Problem("spec." + text, text, text, text)
    rejected_status = rejected({"metadata": {"generation": 4}}, [problem] * 100, 0.0, document)
    assert _longest(status_schema, rejected_status) == []


def test_figures_are_rounded_and_counters_left_to_the_metrics():
    gateway = {"p95_s": 0.123456, "offered_total": 17, "total": 5, "count": 3, "in_flight": 2, "up": True}
    pool = status(GAID, PLACEMENTS, with_pool(well(), gateway=gateway, decision=decision(rho=0.123456)))["pools"][0]
    assert pool["gateway"] == {"p95_s": 0.123, "in_flight": 2, "up": True}
    assert pool["decision"]["rho"] == 0.123


def test_a_download_is_in_the_status_of_its_pool_and_in_progressing():
    download = {"done_bytes": 3_123_456_789, "total_bytes": 15_000_000_000, "nodes": 2}
    observed = with_pool(well(), running=0, app="DEPLOYING", decision=decision() | {"download": download})
    document = status(GAID, PLACEMENTS, observed)
    assert document["download"] == "3.1 of 15 GB on 2 nodes"
    pool = next(p for p in document["pools"] if p["pool"] == PLACEMENTS[0].pool)
    assert pool["download"] == {"doneBytes": 3_100_000_000, "totalBytes": 15_000_000_000, "nodes": 2}
    assert "download" not in pool["decision"]
    progressing = next(c for c in document["conditions"] if c["type"] == "Progressing")
    assert (progressing["status"], progressing["reason"]) == ("True", "Downloading")
    assert "3.1 of 15 GB on 2 nodes" in progressing["message"]
    assert status(GAID, PLACEMENTS, well())["download"] is None
