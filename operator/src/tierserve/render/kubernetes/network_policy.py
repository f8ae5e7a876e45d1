"""NetworkPolicies of a service (pure).

Pods of tiers admit pods of the same service, the operator and KubeRay; gateway pods admit clients on their ports. The
peers that may read metrics are a setting (by default pods labelled as Prometheus). Egress is not restricted: which
model hubs and object stores pods may reach is up to the cluster.
"""

from __future__ import annotations

from typing import Any

from tierserve.api import GenAIDeployment
from tierserve.render.kubernetes.metadata import DEPLOYMENT, Object, child_name, common_labels, kube_object
from tierserve.render.kubernetes.settings import (
    AGENT_PORT,
    DASHBOARD_PORT,
    HAPROXY_METRICS_PORT,
    HTTP_PORT,
    HTTPS_PORT,
    RAY_METRICS_PORT,
    SERVE_PORT,
    KubeSettings,
)


def _in_any_namespace(label: str, value: str) -> dict[str, Any]:
    """Peer: pods with this label of the recommended set, in all namespaces."""
    return {"namespaceSelector": {}, "podSelector": {"matchLabels": {f"app.kubernetes.io/{label}": value}}}


_OPERATOR = _in_any_namespace("name", "tierserve-operator")
# The label of KubeRay's chart, and the label of its manifests.
_KUBERAY = (_in_any_namespace("name", "kuberay-operator"), _in_any_namespace("component", "kuberay-operator"))


def network_policies(gaid: GenAIDeployment, settings: KubeSettings) -> tuple[Object, ...]:
    """NetworkPolicies of the pods of the tiers and of the gateway."""
    return _policy(gaid, "tier", _tier_rules(gaid, settings)), _policy(gaid, "gateway", _gateway_rules(gaid, settings))


def _policy(gaid: GenAIDeployment, component: str, rules: list[dict[str, Any]]) -> Object:
    pods = {"matchLabels": {DEPLOYMENT: gaid.name, "app.kubernetes.io/component": component}}
    return kube_object(
        gaid, "networking.k8s.io/v1", "NetworkPolicy", child_name(gaid.name, component),
        common_labels(gaid.name, component),
        spec={"podSelector": pods, "policyTypes": ["Ingress"], "ingress": rules},
    )  # fmt: skip


def _tier_rules(gaid: GenAIDeployment, settings: KubeSettings) -> list[dict[str, Any]]:
    own = {"podSelector": {"matchLabels": {DEPLOYMENT: gaid.name}}}
    return [
        {"from": [own]},
        {"from": [*_KUBERAY, _OPERATOR], "ports": _ports(DASHBOARD_PORT, SERVE_PORT)},
        *_scraped(settings, RAY_METRICS_PORT),
    ]


def _gateway_rules(gaid: GenAIDeployment, settings: KubeSettings) -> list[dict[str, Any]]:
    own = {"podSelector": {"matchLabels": {DEPLOYMENT: gaid.name}}}
    return [
        {"ports": _ports(HTTP_PORT, HTTPS_PORT)},
        {"from": [own, _OPERATOR], "ports": _ports(AGENT_PORT)},
        *_scraped(settings, AGENT_PORT, HAPROXY_METRICS_PORT),
    ]


def _scraped(settings: KubeSettings, *ports: int) -> list[dict[str, Any]]:
    # An ingress rule without peers admits all sources.
    return [{"from": list(settings.scrape_from), "ports": _ports(*ports)}] if settings.scrape_from else []


def _ports(*ports: int) -> list[dict[str, Any]]:
    return [{"port": port, "protocol": "TCP"} for port in ports]
