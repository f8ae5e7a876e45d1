"""Objects of a cluster and the words of the gateway agents -> Observed (pure); what is not known stays unknown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tierserve.api import GenAIDeployment
from tierserve.plan.placement import Placement
from tierserve.render.kubernetes.gateway import endpoint
from tierserve.render.kubernetes.metadata import gateway_name, ray_service_name
from tierserve.status.build import Observed, PoolObserved

_SUMS = (
    "offered_total", "arrivals_total", "in_flight", "queued", "max_in_flight", "total", "count", "errors", "aborted",
    "rate",
)  # fmt: skip
_WORST = {
    "p50_s": max, "p95_s": max, "p99_s": max, "first_byte_p95_s": max, "queue_p95_s": max, "within_target": min
}  # fmt: skip


def observed(
    gaid: GenAIDeployment,
    placements: Sequence[Placement],
    children: Iterable[Mapping[str, Any]],
    agents: Sequence[Mapping[str, Any]],
    *,
    now: float,
    problems: Sequence[str] = (),
) -> Observed:
    """What is known of a service.

    Args:
        gaid, placements: the service and its pools.
        children: RayServices and Deployments as they are.
        agents: the /status of each gateway agent that answers.
        now: Unix seconds.
        problems: what went wrong in this pass, in words.
    """
    by_name = {(one["kind"], one["metadata"]["name"]): one for one in children}
    pools = {
        p.pool: _pool(p, by_name.get(("RayService", ray_service_name(gaid.name, p))), agents, now) for p in placements
    }
    gateway = by_name.get(("Deployment", gateway_name(gaid.name)), {})
    parts = {"gateway": _gateway_serves(gaid, gateway)}
    return Observed(now, endpoint(gaid), pools, parts, tuple(problems))


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


def _pool(
    placement: Placement, ray: Mapping[str, Any] | None, agents: Sequence[Mapping[str, Any]], now: float
) -> PoolObserved:
    app = _application(ray, placement.pool)
    seen = [pool for agent in agents if (pool := (agent.get("pools") or {}).get(placement.pool))]
    decisions = [pool["decision"] for pool in seen if pool.get("decision")]
    decision = max(decisions, key=lambda d: float(d.get("t", 0.0)), default=None)
    running = decision.get("running") if decision else None
    return PoolObserved(
        app=app.get("status"),
        message=_message(ray, app),
        running=None if running is None else int(running),
        desired=None if decision is None else int(decision.get("target", 0)),
        decision=decision,
        gateway=together(seen) if seen else None,
    )


def _application(ray: Mapping[str, Any] | None, pool: str) -> Mapping[str, Any]:
    """The Serve application as KubeRay last saw it: on the cluster that serves, else on the one that is coming."""
    status = (ray or {}).get("status") or {}
    for which in ("activeServiceStatus", "pendingServiceStatus"):
        found: Mapping[str, Any] | None = ((status.get(which) or {}).get("applicationStatuses") or {}).get(pool)
        if found:
            return found
    return {}


def _message(ray: Mapping[str, Any] | None, app: Mapping[str, Any]) -> str:
    if ray is None:
        return "its RayService is not there yet"
    if not ray.get("status"):
        return "KubeRay has not looked at its RayService yet: is its operator running?"
    if app:
        return str(app.get("message") or "")
    conditions = ray["status"].get("conditions") or []
    ready: Mapping[str, Any] = next((c for c in conditions if c.get("type") == "Ready"), {})
    return str(ready.get("message") or "its Ray cluster is starting")


def together(seen: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One pool as several gateways see it: sums of what they count, the worst of their percentiles."""
    first = {name: value for name, value in seen[0].items() if name not in {"decision", "decision_age_s"}}
    for name in _SUMS:
        known = [pool[name] for pool in seen if pool.get(name) is not None]
        if known:
            first[name] = sum(known)
    for name, worst in _WORST.items():
        known = [pool[name] for pool in seen if pool.get(name) is not None]
        if known:
            first[name] = worst(known)
    return first
