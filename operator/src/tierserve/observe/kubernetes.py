"""Objects of a cluster and the words of the gateway agents -> Observed (pure); what is not known stays unknown."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from tierserve.api import GenAIDeployment
from tierserve.render.kubernetes.gateway import endpoint
from tierserve.render.kubernetes.metadata import REVISION, SITE, TIER, gateway_name
from tierserve.state import Observed, PoolObserved

_SUMS = (
    "offered_total", "arrivals_total", "in_flight", "queued", "max_in_flight", "total", "count", "errors", "aborted",
    "rate",
)  # fmt: skip
_NEVER = float("inf")
_WORST = {
    "p50_s": max, "p95_s": max, "p99_s": max, "first_byte_p95_s": max, "queue_p95_s": max, "within_target": min
}  # fmt: skip


def observed(
    gaid: GenAIDeployment,
    children: Iterable[Mapping[str, Any]],
    agents: Sequence[Mapping[str, Any]],
    *,
    now: float,
    settled: Collection[str] = (),
    problems: Sequence[str] = (),
) -> Observed:
    """What is known of a service.

    Args:
        gaid: the service.
        children: its RayServices and Deployments as they are.
        agents: the /status of each gateway agent that answers.
        now: Unix seconds.
        settled: names of the RayServices whose status is that of their last version (see `has_caught_up`).
        problems: what is wrong, one sentence each.
    """
    children = list(children)
    services = {pool_of(one): one for one in children if one["kind"] == "RayService"}
    pools = {pool: _pool(pool, ray, agents, settled=_name(ray) in settled) for pool, ray in services.items()}
    name = gateway_name(gaid.name)
    gateway = next((one for one in children if (one["kind"], _name(one)) == ("Deployment", name)), {})
    components = {"gateway": _gateway_serves(gaid, gateway)}
    routed = _routed(agents, gateway.get("status") or {})
    return Observed(now, endpoint(gaid), pools, components, tuple(problems), routed)


def _gateway_serves(gaid: GenAIDeployment, deployment: Mapping[str, Any]) -> bool:
    """Whether a pod of the gateway is available; where TLS is switched on, one of those that serve it.

    While TLS is switched on, pods without it go on; without the Secret they do so for ever.
    """
    status = deployment.get("status") or {}
    available, replicas, updated = (int(status.get(f"{n}eplicas") or 0) for n in ("availableR", "r", "updatedR"))
    if not (gaid.spec.gateway.tls and gaid.spec.gateway.tls.secret_name):
        return available > 0
    is_current = (status.get("observedGeneration") or 0) >= (deployment["metadata"].get("generation") or 0)
    before = replicas - updated  # pods of older templates: with maxUnavailable 0 they stay until the new are available
    return is_current and available > before


def pool_of(one: Mapping[str, Any]) -> str:
    """Name of the pool that an object belongs to; empty for objects of the whole service."""
    labels = one["metadata"].get("labels") or {}
    return f"{labels[TIER]}-{labels[SITE]}" if labels.get(TIER) and labels.get(SITE) else ""


def has_caught_up(ray: Mapping[str, Any]) -> bool:
    """Whether KubeRay has acted on the last version of a RayService, and no other Ray cluster is to replace its own.

    Its first status after a change of the Serve configuration still shows the applications as they were before:
    KubeRay (1.6) reads Serve's state before it submits the configuration. It is right from the next one on.
    """
    status = ray.get("status") or {}
    seen, generation = status.get("observedGeneration"), ray["metadata"].get("generation")
    return (
        seen is not None and seen == generation and not (status.get("pendingServiceStatus") or {}).get("rayClusterName")
    )


def _name(one: Mapping[str, Any]) -> str:
    return str(one["metadata"]["name"])


def _routed(agents: Sequence[Mapping[str, Any]], pods: Mapping[str, Any]) -> frozenset[str] | None:
    """Pools that gateways send requests to; None while fewer agents answer than there are pods."""
    lists = [agent.get("routed") for agent in agents]
    if None in lists or len(lists) < int(pods.get("replicas") or 0):
        return None
    return frozenset(name for names in lists for name in names or ())


def _pool(pool: str, ray: Mapping[str, Any], agents: Sequence[Mapping[str, Any]], *, settled: bool) -> PoolObserved:
    app, update = _applications(ray, pool)
    seen = [figures for agent in agents if (figures := (agent.get("pools") or {}).get(pool))]
    reports = [one for one in seen if one.get("decision")]
    latest: Mapping[str, Any] = min(reports, key=_decision_age_s, default={})
    decision = latest.get("decision")
    age_s = _decision_age_s(latest)
    running = None if decision is None else decision.get("running")
    target = None if decision is None else decision.get("target")
    annotations = ray["metadata"].get("annotations") or {}
    return PoolObserved(
        app=app.get("status"),
        message=_message(ray, update or app),
        running=None if running is None else int(running),
        desired=None if target is None else int(target),
        decision=decision,
        gateway=together(seen) if seen else None,
        decision_age_s=age_s if age_s < _NEVER else None,
        revision=annotations.get(REVISION) if settled and has_caught_up(ray) else None,
        previous=int(running) if update is not None and running is not None else None,
        update=None if update is None else update.get("status", "STARTING"),
    )


def _decision_age_s(report: Mapping[str, Any]) -> float:
    """Age of a decision by the agent's own clock; infinite where it tells none."""
    age_s = report.get("decision_age_s")
    return _NEVER if age_s is None else float(age_s)


def _applications(ray: Mapping[str, Any], pool: str) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    """The Serve application as KubeRay last saw it, and that of the Ray cluster that is to replace it, if there is one.

    Before the first cluster serves, the one that is coming counts as the first of the two.
    """
    status = ray.get("status") or {}
    active, pending = (status.get(which) or {} for which in ("activeServiceStatus", "pendingServiceStatus"))
    serving, coming = ((one.get("applicationStatuses") or {}).get(pool) for one in (active, pending))
    is_replaced = bool(pending.get("rayClusterName") or coming) and bool(active.get("rayClusterName") or serving)
    if not is_replaced:
        return serving or coming or {}, None
    # During an upgrade KubeRay does not look at the applications of the cluster that serves: they are as they were.
    return serving or {"status": "RUNNING"}, coming or {}


def _message(ray: Mapping[str, Any], app: Mapping[str, Any]) -> str:
    if not ray.get("status"):
        return "KubeRay has not looked at its RayService yet: is its operator running?"
    if app:
        deployments = (app.get("serveDeploymentStatuses") or {}).values()
        return "\n".join(filter(None, (app.get("message"), *(one.get("message") for one in deployments))))
    conditions = ray["status"].get("conditions") or []
    ready: Mapping[str, Any] = next((c for c in conditions if c.get("type") == "Ready"), {})
    return str(ready.get("message") or "its Ray cluster is starting")


def together(seen: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One pool as several gateways see it: sums of what they count, the worst of their percentiles."""
    first = {name: value for name, value in seen[0].items() if name not in {"decision", "decision_age_s"}}
    up = [pool["up"] for pool in seen if pool.get("up") is not None]
    if up:
        first["up"] = any(up)
    for name in _SUMS:
        known = [pool[name] for pool in seen if pool.get(name) is not None]
        if known:
            first[name] = sum(known)
    for name, worst in _WORST.items():
        known = [pool[name] for pool in seen if pool.get(name) is not None]
        if known:
            first[name] = worst(known)
    return first
