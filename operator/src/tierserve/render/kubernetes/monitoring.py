"""ServiceMonitor and PrometheusRule of a service (pure); not applied if the cluster lacks these CRDs."""

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
    """ServiceMonitor of the gateway's agents and HAProxy processes, and PrometheusRule with the service's alerts."""
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
    """Recording rule of the response-time percentile, and alerts."""
    of = f'{{namespace="{gaid.metadata.namespace or "default"}",service="{agents_name(gaid.name)}"}}'
    objective = gaid.spec.objective.response_time
    quantile, target_s = objective.percentile / 100, objective.target.value
    recorded = f"tierserve:request_duration_seconds:p{objective.percentile:g}".replace(".", "_")
    buckets = f"rate(tierserve_gateway_request_duration_seconds_bucket{of}[5m])"
    name = gaid.name
    return [
        {"record": recorded, "expr": f"histogram_quantile({quantile:g}, sum by (namespace, service, le) ({buckets}))"},
        _alert(gaid, "TierServeSLOMissed", "warning", "5m", f"{recorded}{of} > {target_s:g}",
               f"{name}: p{objective.percentile:g} of the response time is {{{{ $value | humanizeDuration }}}}, above "
               f"the target of {target_s:g} s"),
        _alert(gaid, "TierServePoolDown", "critical", "2m", f"max by (pool) (tierserve_gateway_up{of}) == 0",
               f"{name}: pool {{{{ $labels.pool }}}} is down at every gateway"),
        _alert(gaid, "TierServeScalingHeld", "warning", "2m",
               f"max by (pool) (tierserve_gateway_decision_age_seconds{of}) > 120",
               f"{name}: no scaling decision for pool {{{{ $labels.pool }}}} for {{{{ $value | humanizeDuration }}}}; "
               "the number of replicas stays as it is"),
    ]  # fmt: skip


def _alert(  # noqa: PLR0917 (a table above reads better without names)
    gaid: GenAIDeployment, name: str, severity: str, after: str, expr: str, summary: str
) -> dict[str, Any]:
    description = f"See: kubectl tierserve status {gaid.name} --namespace {gaid.metadata.namespace or 'default'}"
    return {
        "alert": name,
        "expr": expr,
        "for": after,
        "labels": {"severity": severity},
        "annotations": {"summary": summary, "description": description},
    }


def _name(gaid: GenAIDeployment) -> str:
    return child_name(gaid.name, "gateway")
