"""What Prometheus shall scrape of a service, and when somebody is told (pure).

Objects of the Prometheus operator; where a cluster does not have it, they are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tierserve.api import GenAIDeployment
from tierserve.render.kubernetes.metadata import DEPLOYMENT, Object, agents_name, child_name, common_labels, kube_object
from tierserve.render.kubernetes.settings import KubeSettings

API = "monitoring.coreos.com/v1"
KINDS = ((API, "ServiceMonitor"), (API, "PrometheusRule"))
SCRAPE_EVERY = "15s"


def monitoring_objects(gaid: GenAIDeployment, settings: KubeSettings) -> tuple[Object, ...]:
    """A ServiceMonitor for agents and HAProxy of the gateway, and a PrometheusRule with the service's alerts."""
    labels = {**settings.monitoring_labels, **common_labels(gaid.name, "monitoring")}
    return _monitor(gaid, labels), _rule(gaid, labels)


def _monitor(gaid: GenAIDeployment, labels: Mapping[str, str]) -> Object:
    spec = {
        "selector": {"matchLabels": {DEPLOYMENT: gaid.name, "app.kubernetes.io/component": "gateway"}},
        # Only the headless Service has ports of these names.
        "endpoints": [{"port": port, "interval": SCRAPE_EVERY} for port in ("agent", "metrics")],
        "targetLabels": [DEPLOYMENT],
    }
    return kube_object(gaid, API, "ServiceMonitor", _name(gaid), labels, spec=spec)


def _rule(gaid: GenAIDeployment, labels: Mapping[str, str]) -> Object:
    groups = [{"name": f"tierserve-{gaid.name}", "rules": rules(gaid)}]
    return kube_object(gaid, API, "PrometheusRule", _name(gaid), labels, spec={"groups": groups})


def rules(gaid: GenAIDeployment) -> list[dict[str, Any]]:
    """Recorded percentile and alerts, each with the first thing to look at."""
    of = f'{{namespace="{gaid.metadata.namespace or "default"}",service="{agents_name(gaid.name)}"}}'
    objective = gaid.spec.objective.response_time
    quantile, target_s = objective.percentile / 100, objective.target.value
    recorded = f"tierserve:request_duration_seconds:p{objective.percentile:g}".replace(".", "_")
    buckets = f"rate(tierserve_gateway_request_duration_seconds_bucket{of}[5m])"
    name = gaid.name
    return [
        {"record": recorded, "expr": f"histogram_quantile({quantile:g}, sum by (namespace, service, le) ({buckets}))"},
        _alert(gaid, "TierServeSloMissed", "warning", "5m", f"{recorded}{of} > {target_s:g}",
               f"p{objective.percentile:g} of {name} is {{{{ $value | humanizeDuration }}}}, over {target_s:g} s"),
        _alert(gaid, "TierServePoolDown", "critical", "2m", f"max by (pool) (tierserve_gateway_up{of}) == 0",
               f"pool {{{{ $labels.pool }}}} of {name} takes no requests"),
        _alert(gaid, "TierServeScalingHeld", "warning", "2m",
               f"max by (pool) (tierserve_gateway_decision_age_seconds{of}) > 120",
               f"no fresh decision for pool {{{{ $labels.pool }}}} of {name}: its replicas are held"),
    ]  # fmt: skip


def _alert(  # noqa: PLR0917 (a table above reads better without names)
    gaid: GenAIDeployment, name: str, severity: str, after: str, expr: str, summary: str
) -> dict[str, Any]:
    look = f"See: kubectl tierserve status {gaid.name} --namespace {gaid.metadata.namespace or 'default'}"
    return {
        "alert": name,
        "expr": expr,
        "for": after,
        "labels": {"severity": severity},
        "annotations": {"summary": summary, "description": look},
    }


def _name(gaid: GenAIDeployment) -> str:
    return child_name(gaid.name, "gateway")
