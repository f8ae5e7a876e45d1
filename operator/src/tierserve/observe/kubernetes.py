"""Objects of a cluster and reports of the gateway agents -> Observed (pure); missing data stays unknown."""

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
    """The observed state of a service.

    Args:
        gaid: the service.
        children: its RayServices and Deployments.
        agents: the /status of each gateway agent that answered.
        now: Unix seconds.
        settled: names of the RayServices whose status is up to date (see `has_caught_up`).
        problems: errors, one sentence each.
    """
    children = list(children)
    services = {pool_of(child): child for child in children if child["kind"] == "RayService"}
    pools = {pool: _pool(pool, ray, agents, settled=_name(ray) in settled) for pool, ray in services.items()}
    name = gateway_name(gaid.name)
    gateway = next((child for child in children if (child["kind"], _name(child)) == ("Deployment", name)), {})
    components = {"gateway": _gateway_serves(gaid, gateway)}
    routed = _routed(agents, gateway.get("status") or {})
    return Observed(now, endpoint(gaid), pools, components, tuple(problems), routed)


def _gateway_serves(gaid: GenAIDeployment, deployment: Mapping[str, Any]) -> bool:
    """Whether a pod of the gateway is available; with TLS, whether one of the current template is.

    When TLS is switched on, pods of the old template serve plain HTTP until the new ones are available, which never
    happens without the Secret.
    """
    status = deployment.get("status") or {}
    available, replicas, updated = (int(status.get(f"{n}eplicas") or 0) for n in ("availableR", "r", "updatedR"))
    if not (gaid.spec.gateway.tls and gaid.spec.gateway.tls.secret_name):
        return available > 0
    is_current = (status.get("observedGeneration") or 0) >= (deployment["metadata"].get("generation") or 0)
    before = replicas - updated  # pods of older templates; with maxUnavailable 0 they stay until new ones are available
    return is_current and available > before


def pool_of(obj: Mapping[str, Any]) -> str:
    """Name of the pool that an object belongs to; empty for objects of the whole service."""
    labels = obj["metadata"].get("labels") or {}
    return f"{labels[TIER]}-{labels[SITE]}" if labels.get(TIER) and labels.get(SITE) else ""


def has_caught_up(ray: Mapping[str, Any]) -> bool:
    """Whether KubeRay has observed the last generation of a RayService, and no Ray cluster is pending.

    The first status after a change of the Serve configuration still shows the old applications: KubeRay (1.6) reads
    Serve's state before it submits the configuration. From the next status on it is up to date.
    """
    status = ray.get("status") or {}
    latest, generation = status.get("observedGeneration"), ray["metadata"].get("generation")
    pending = (status.get("pendingServiceStatus") or {}).get("rayClusterName")
    return latest is not None and latest == generation and not pending


def _name(obj: Mapping[str, Any]) -> str:
    return str(obj["metadata"]["name"])


def _routed(agents: Sequence[Mapping[str, Any]], pods: Mapping[str, Any]) -> frozenset[str] | None:
    """Pools to which gateways route requests; None while fewer agents answer than there are pods."""
    lists = [agent.get("routed") for agent in agents]
    if None in lists or len(lists) < int(pods.get("replicas") or 0):
        return None
    return frozenset(name for names in lists for name in names or ())


def _pool(pool: str, ray: Mapping[str, Any], agents: Sequence[Mapping[str, Any]], *, settled: bool) -> PoolObserved:
    app, update = _applications(ray, pool)
    reports = [figures for agent in agents if (figures := (agent.get("pools") or {}).get(pool))]
    with_decision = [report for report in reports if report.get("decision")]
    latest: Mapping[str, Any] = min(with_decision, key=_decision_age_s, default={})
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
        gateway=merged(reports) if reports else None,
        decision_age_s=age_s if age_s < _NEVER else None,
        revision=annotations.get(REVISION) if settled and has_caught_up(ray) else None,
        previous=int(running) if update is not None and running is not None else None,
        update=None if update is None else update.get("status", "STARTING"),
    )


def _decision_age_s(report: Mapping[str, Any]) -> float:
    """Age of a decision by the agent's own clock; infinite if the agent does not report it."""
    age_s = report.get("decision_age_s")
    return _NEVER if age_s is None else float(age_s)


def _applications(ray: Mapping[str, Any], pool: str) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    """The Serve application of the active Ray cluster, and that of the pending cluster that will replace it, if any.

    Before the first cluster serves, the pending one counts as the active one.
    """
    status = ray.get("status") or {}
    active, pending = (status.get(which) or {} for which in ("activeServiceStatus", "pendingServiceStatus"))
    serving, coming = ((cluster.get("applicationStatuses") or {}).get(pool) for cluster in (active, pending))
    is_replaced = bool(pending.get("rayClusterName") or coming) and bool(active.get("rayClusterName") or serving)
    if not is_replaced:
        return serving or coming or {}, None
    # During an upgrade KubeRay does not update the applications of the active cluster: they still run.
    return serving or {"status": "RUNNING"}, coming or {}


def _message(ray: Mapping[str, Any], app: Mapping[str, Any]) -> str:
    if not ray.get("status"):
        return "no status from KubeRay yet; hint: check that its operator runs"
    if app:
        deployments = (app.get("serveDeploymentStatuses") or {}).values()
        return "\n".join(filter(None, (app.get("message"), *(deployment.get("message") for deployment in deployments))))
    conditions = ray["status"].get("conditions") or []
    ready: Mapping[str, Any] = next((c for c in conditions if c.get("type") == "Ready"), {})
    return str(ready.get("message") or "the Ray cluster is starting")


def merged(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Reports of several gateways on one pool as one: sums of counters, the worst of the percentiles."""
    first = {name: value for name, value in reports[0].items() if name not in {"decision", "decision_age_s"}}
    up = [pool["up"] for pool in reports if pool.get("up") is not None]
    if up:
        first["up"] = any(up)
    for name in _SUMS:
        values = [pool[name] for pool in reports if pool.get(name) is not None]
        if values:
            first[name] = sum(values)
    for name, worst in _WORST.items():
        values = [pool[name] for pool in reports if pool.get(name) is not None]
        if values:
            first[name] = worst(values)
    return first
