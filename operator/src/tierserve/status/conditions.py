"""Conditions of a GenAIDeployment, by the Kubernetes API conventions (pure).

`type`, `status` True | False | Unknown, `reason` in CamelCase, `message` for people, `observedGeneration`, and
`lastTransitionTime`, which changes only when `status` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from tierserve.api import GenAIDeployment, hints
from tierserve.api.errors import Problem
from tierserve.state import Observed, PoolObserved
from tierserve.status.pools import UNKNOWN_AFTER_S, download_text, is_down, is_unknown, observed_p95
from tierserve.status.profile import OFF, profiles_off
from tierserve.status.text import cause

Status = dict[str, Any]
ConditionStatus = Literal["True", "False", "Unknown"]

_FAILED = frozenset({"UNHEALTHY", "DEPLOY_FAILED"})  # states of a Serve application
_MAX_MESSAGE = 1000
"""Characters of a condition's message, below the 1024 of an Event's, which repeats it."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition before it gets its generation and time."""

    type: str
    status: ConditionStatus
    reason: str
    message: str


def conditions(
    gaid: GenAIDeployment,
    observed: Observed,
    pools: Sequence[Mapping[str, Any]],
    retiring: Sequence[str],
    *,
    cluster: bool,
) -> list[Condition]:
    """All conditions of a valid resource.

    Args:
        gaid: the resource.
        observed: the observed state.
        pools: their status entries.
        retiring: pools of an earlier spec that still serve.
        cluster: it runs on Kubernetes.
    """
    return [
        _accepted(gaid, cluster=cluster),
        _ready(observed, pools),
        _progressing(gaid, pools, retiring),
        _degraded(observed, pools),
        _scaling_active(pools),
        _slo_met(pools),
        _profile_fits(pools),
    ]


def rejected_conditions(problems: Sequence[Problem]) -> list[Condition]:
    """The conditions of a resource whose spec is invalid or cannot be placed."""
    reason, message = "CannotBePlanned", _message(problems)
    unchanged = "the spec is not accepted; the last accepted spec stays in effect"
    return [
        Condition("Accepted", "False", reason, message),
        Condition("Ready", "False", reason, unchanged),
        Condition("Progressing", "False", reason, "nothing is changed until the spec is corrected"),
        Condition("Degraded", "True", reason, message),
    ]


def _accepted(gaid: GenAIDeployment, *, cluster: bool) -> Condition:
    """Whether the spec is accepted; the message lists its warnings, such as fields without effect."""
    warnings = hints(gaid, cluster=cluster)
    if warnings:
        return Condition("Accepted", "True", "AcceptedWithHints", _message(warnings))
    return Condition("Accepted", "True", "Accepted", "all fields of the spec are in effect")


def _message(problems: Sequence[Problem]) -> str:
    """Field, message and hint of each problem, cut to the length of a condition's message."""
    return "; ".join(": ".join(filter(None, (p.path, p.message_with_value, p.hint))) for p in problems)[:_MAX_MESSAGE]


def _ready(observed: Observed, pools: Sequence[Mapping[str, Any]]) -> Condition:
    waiting = [p for p in pools if not p["ready"]]
    dead = sorted(name for name, alive in observed.components.items() if not alive)
    if dead:
        return Condition("Ready", "False", "ComponentsNotReady", f"not running: {', '.join(dead)}")
    if waiting:
        reasons = ", ".join(f"{p['pool']} ({_why_not_ready(p, observed)})" for p in waiting)
        message = f"{len(pools) - len(waiting)}/{len(pools)} pools ready; not ready: {reasons}"
        return Condition("Ready", "False", "PoolsNotReady", message)
    at_zero = [p["pool"] for p in pools if p["scaledToZero"]]
    serving = len(pools) - len(at_zero)
    if not serving:
        return Condition(
            "Ready",
            "True",
            "ScaledToZero",
            f"all pools are scaled to zero; a request to {observed.endpoint} starts a replica",
        )
    message = f"{serving} {'pool serves' if serving == 1 else 'pools serve'} at {observed.endpoint}"
    if at_zero:
        message += f"; scaled to zero: {', '.join(at_zero)}"
    return Condition("Ready", "True", "Serving", message)


def _why_not_ready(pool: Mapping[str, Any], observed: Observed) -> str:
    state = observed.pools.get(pool["pool"], PoolObserved())
    if is_unknown(state):
        return f"no autoscaler decision for more than {UNKNOWN_AFTER_S:.0f} s"
    if pool["app"] == "RUNNING" and state.running and pool["updated"] is None:
        return f"{_replicas(state.running, pool)} ready, their revision is not known yet"
    old = (state.running or 0) - (pool["updated"] or 0)
    if pool["app"] == "RUNNING" and old > 0:
        return f"{_replicas(pool['updated'], pool)} of this revision ready, {old} of the previous one"
    if pool["app"] == "RUNNING" and state.running and is_down(state.gateway):
        return "health checks of the gateway fail"
    failing = f", application {pool['app']}" if state.running and pool["app"] not in {None, "RUNNING"} else ""
    return f"{_replicas(state.running, pool)} ready{failing}"


def _replicas(count: int | None, pool: Mapping[str, Any]) -> str:
    desired = max(pool["desired"] or 0, pool["minReplicas"] or 0)
    return f"{'?' if count is None else count}/{desired} replicas"


def _progressing(gaid: GenAIDeployment, pools: Sequence[Mapping[str, Any]], retiring: Sequence[str]) -> Condition:
    if gaid.spec.paused:
        return Condition("Progressing", "False", "Paused", "spec.paused is true; nothing is changed")
    downloading = [p for p in pools if p["download"]]
    if downloading:
        names = ", ".join(p["pool"] for p in downloading)
        return Condition("Progressing", "True", "Downloading", f"downloading {download_text(downloading)}: {names}")
    updating = [
        p for p in pools if p["updated"] != p["running"] and p["update"] not in _FAILED and p["app"] not in _FAILED
    ]
    if updating or retiring:
        messages = [f"rolling out: {_each(updating, 'updated')}"] if updating else []
        messages += [f"serving until replaced: {', '.join(retiring)}"] if retiring else []
        return Condition("Progressing", "True", "RollingOut", "; ".join(messages))
    unknown = [p["pool"] for p in pools if p["app"] is None and p["running"] is None]
    if unknown:
        return Condition("Progressing", "Unknown", "NotObserved", f"no state is observed for {', '.join(unknown)}")
    scaling = [p for p in pools if p["app"] == "DEPLOYING" or (p["desired"] or 0) != (p["running"] or 0)]
    if scaling:
        return Condition("Progressing", "True", "Scaling", f"scaling: {_each(scaling, 'running')}")
    return Condition("Progressing", "False", "Settled", "all pools are at their desired replica count")


def _each(pools: Sequence[Mapping[str, Any]], field: str) -> str:
    word = "ready" if field == "running" else field
    return ", ".join(f"{p['pool']} ({_replicas(p[field], p)} {word})" for p in pools)


def _degraded(observed: Observed, pools: Sequence[Mapping[str, Any]]) -> Condition:
    problems = [*observed.problems, *filter(None, map(_failure, pools))]
    if problems:
        return Condition("Degraded", "True", "Problems", "; ".join(problems)[:_MAX_MESSAGE])
    return Condition("Degraded", "False", "AsExpected", "no errors")


def _failure(pool: Mapping[str, Any]) -> str:
    """The error of a pool, preferably the exception of its replicas; empty if there is none."""
    state = pool["update"] or pool["app"]
    error = cause(pool["message"])
    if state in _FAILED:
        return f"{pool['pool']}: {state}: {error or ' '.join(pool['message'].split()) or 'Ray Serve reports no reason'}"
    return f"{pool['pool']}: a replica fails to start: {error}" if error and state != "RUNNING" else ""


def _scaling_active(pools: Sequence[Mapping[str, Any]]) -> Condition:
    without = [p["pool"] for p in pools if not p["decision"] or p["decision"].get("stale")]
    if without:
        message = f"no current decision for {', '.join(without)}; replica counts are held"
        return Condition("ScalingActive", "False", "MetricsMissing", message)
    return Condition("ScalingActive", "True", "Deciding", "every pool has a current decision")


def _slo_met(pools: Sequence[Mapping[str, Any]]) -> Condition:
    measured = {p["pool"]: p95 for p in pools if (p95 := observed_p95(p)) is not None}
    if not measured:
        return Condition("SLOMet", "Unknown", "NoTraffic", "no requests in the last minute")
    missed = [
        f"{p['pool']} (p95 {measured[p['pool']] * 1e3:.0f} ms, target {p['targetSeconds'] * 1e3:.0f} ms)"
        for p in pools
        if p["pool"] in measured and measured[p["pool"]] > p["targetSeconds"]
    ]
    if missed:
        return Condition("SLOMet", "False", "TargetMissed", f"above the target: {', '.join(missed)}")
    return Condition("SLOMet", "True", "WithinTarget", "every pool with traffic is within its target")


def _profile_fits(pools: Sequence[Mapping[str, Any]]) -> Condition:
    if all(p["profileError"] is None for p in pools):
        return Condition(
            "ProfileFits", "Unknown", "NotMeasured", "not enough completed requests to evaluate the profile"
        )
    off = profiles_off(pools)
    if off:
        return Condition("ProfileFits", "False", "ProfileOff", "; ".join(off))
    return Condition("ProfileFits", "True", "AsMeasured", f"all profiles are within {OFF:.0%} of the measured times")


def stamped(condition: Condition, generation: int, now: float, previous: Status | None) -> dict[str, Any]:
    """A condition with its generation, and the time at which its status last changed."""
    before = next((c for c in (previous or {}).get("conditions", ()) if c["type"] == condition.type), None)
    changed = before is None or before["status"] != condition.status
    at = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if changed else before["lastTransitionTime"]  # type: ignore[index]
    return {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        "observedGeneration": generation,
        "lastTransitionTime": at,
    }
