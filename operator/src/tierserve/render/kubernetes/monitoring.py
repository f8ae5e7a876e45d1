"""ServiceMonitor and PrometheusRule of a service (pure); not applied if the cluster lacks these CRDs."""

from __future__ import annotations

from collections.abc import Mapping

from tierserve.api import GenAIDeployment
from tierserve.render.kubernetes.alerts import rules
from tierserve.render.kubernetes.metadata import DEPLOYMENT, Object, child_name, common_labels, kube_object
from tierserve.render.kubernetes.settings import KubeSettings

API = "monitoring.coreos.com/v1"
KINDS = ((API, "ServiceMonitor"), (API, "PrometheusRule"))
SCRAPE_EVERY = "15s"


def monitoring_objects(gaid: GenAIDeployment, settings: KubeSettings) -> tuple[Object, ...]:
    """ServiceMonitor of the gateway's agents and HAProxy processes, and PrometheusRule with the service's alerts."""
    labels = {**settings.monitoring_labels, **common_labels(gaid.name, "monitoring")}
    return _monitor(gaid, labels), _rule(gaid, labels, settings)


def _monitor(gaid: GenAIDeployment, labels: Mapping[str, str]) -> Object:
    spec = {
        "selector": {"matchLabels": {DEPLOYMENT: gaid.name, "app.kubernetes.io/component": "gateway"}},
        # Only the headless Service has ports of these names.
        "endpoints": [{"port": port, "interval": SCRAPE_EVERY} for port in ("agent", "metrics")],
        "targetLabels": [DEPLOYMENT],
    }
    return kube_object(gaid, API, "ServiceMonitor", _name(gaid), labels, spec=spec)


def _rule(gaid: GenAIDeployment, labels: Mapping[str, str], settings: KubeSettings) -> Object:
    groups = [{"name": f"tierserve-{gaid.name}", "rules": rules(gaid, settings)}]
    return kube_object(gaid, API, "PrometheusRule", _name(gaid), labels, spec={"groups": groups})


def _name(gaid: GenAIDeployment) -> str:
    return child_name(gaid.name, "gateway")
