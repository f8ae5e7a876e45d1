"""Kubernetes objects of a service's gateway: ConfigMap, Deployment, Services, PodDisruptionBudget (pure)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tierserve.api import GenAIDeployment
from tierserve.plan.placement import Placement
from tierserve.render.haproxy.agent_config import agent_config
from tierserve.render.haproxy.config import GatewaySpec, render_haproxy
from tierserve.render.haproxy.from_deployment import GatewayAddresses, gateway_spec
from tierserve.render.haproxy.model import ANY_ADDRESS
from tierserve.render.kubernetes.metadata import (
    DEPLOYMENT,
    Object,
    agents_name,
    common_labels,
    gateway_name,
    kube_object,
    own_and_inherited,
)
from tierserve.render.kubernetes.ray_service import head_host, serve_host
from tierserve.render.kubernetes.settings import (
    AGENT_PORT,
    CONTAINER_SECURITY,
    DECISIONS_PORT,
    HAPROXY_METRICS_PORT,
    HTTP_PORT,
    HTTPS_PORT,
    LOG_PORT,
    POD_SECURITY,
    SERVE_PORT,
    KubeSettings,
)

CONFIG, RUN, TLS = "/etc/tierserve", "/run/tierserve", "/etc/tierserve-tls"
CERTIFICATE = f"{TLS}/tls.pem"
CERTIFICATE_ONLY = "/etc/tierserve-certificate"
"""Folder of the certificate in the agent's container, which does not get the key."""
PLAIN = "haproxy.cfg"
LINGER_S = 5


def gateway_objects(
    gaid: GenAIDeployment, placements: Sequence[Placement], settings: KubeSettings
) -> tuple[Object, ...]:
    """ConfigMap, Deployment, both Services and the PodDisruptionBudget of the gateway."""
    return (
        _config(gaid, placements, settings),
        _deployment(gaid, settings),
        _service(gaid),
        _agents(gaid),
        _budget(gaid),
    )


def endpoint(gaid: GenAIDeployment) -> str:
    """Base URL of the service inside the cluster."""
    scheme = "https" if _secret(gaid) else "http"
    return f"{scheme}://{gateway_name(gaid.name)}.{gaid.metadata.namespace or 'default'}.svc"


def agents_url(gaid: GenAIDeployment) -> str:
    """Base URL of the gateway agents; the DNS name of a headless Service, with an address per pod."""
    return f"http://{agents_name(gaid.name)}.{gaid.metadata.namespace or 'default'}.svc:{AGENT_PORT}"


def _labels(gaid: GenAIDeployment) -> dict[str, str]:
    return common_labels(gaid.name, "gateway")


def _selector(gaid: GenAIDeployment) -> dict[str, str]:
    return {DEPLOYMENT: gaid.name, "app.kubernetes.io/component": "gateway"}


def _secret(gaid: GenAIDeployment) -> str | None:
    """Name of the Secret with certificate and key; None for plain HTTP."""
    tls = gaid.spec.gateway.tls
    return tls.secret_name if tls else None


# ---- ConfigMap ----


def _spec(gaid: GenAIDeployment, placements: Sequence[Placement], settings: KubeSettings) -> GatewaySpec:
    # HAProxy's own resolver has no search path: names must be fully qualified.
    upstreams = {p.pool: (f"{serve_host(gaid, p)}.{settings.cluster_domain}", SERVE_PORT) for p in placements}
    at = GatewayAddresses(
        bind=ANY_ADDRESS,
        port=HTTP_PORT,
        upstreams=upstreams,
        admin_socket=f"{RUN}/admin.sock",
        log_address=f"127.0.0.1:{LOG_PORT}",
        metrics_bind=ANY_ADDRESS,
        metrics_port=HAPROXY_METRICS_PORT,
        resolve=settings.ip_family.lower(),
    )
    spec = gateway_spec(gaid, placements, at)
    share = settings.gateway_replicas
    pools = tuple(replace(p, max_in_flight=-(-p.max_in_flight // share)) for p in spec.pools)
    return replace(
        spec,
        pools=pools,
        server_state_file=f"{RUN}/servers.state",
    )


def _with_tls(gaid: GenAIDeployment, spec: GatewaySpec) -> GatewaySpec:
    tls = gaid.spec.gateway.tls
    plain_http = tls.plain_http if tls else "redirect"
    return replace(spec, port=HTTPS_PORT, tls_certificate=CERTIFICATE, plain_port=HTTP_PORT, plain_http=plain_http)


def _config_file(gaid: GenAIDeployment) -> str:
    """Name of the HAProxy file in the ConfigMap.

    There is one for pods with TLS and one for pods without: while TLS is being enabled, pods without a certificate keep
    a file that they can load, until the new pods are ready.
    """
    return "haproxy-tls.cfg" if _secret(gaid) else PLAIN


def _config(gaid: GenAIDeployment, placements: Sequence[Placement], settings: KubeSettings) -> Object:
    spec = _spec(gaid, placements, settings)
    decisions = {p.pool: f"http://{head_host(gaid, p)}:{DECISIONS_PORT}/decisions" for p in placements}
    agent = agent_config(
        spec, placements, decisions,
        listen="", port=AGENT_PORT, gateways=settings.gateway_replicas,
        certificate=f"{CERTIFICATE_ONLY}/tls.crt" if _secret(gaid) else None,
    )  # fmt: skip
    files = {PLAIN: render_haproxy(spec), "agent.json": json.dumps(agent, sort_keys=True, indent=1)}
    if _secret(gaid):
        files[_config_file(gaid)] = render_haproxy(_with_tls(gaid, spec))
    return kube_object(gaid, "v1", "ConfigMap", gateway_name(gaid.name), _labels(gaid), data=files)


# ---- Deployment ----


def _deployment(gaid: GenAIDeployment, settings: KubeSettings) -> Object:
    spec = {
        "replicas": settings.gateway_replicas,
        "selector": {"matchLabels": _selector(gaid)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": {"metadata": own_and_inherited(gaid, _labels(gaid)), "spec": _pod(gaid, settings)},
    }
    return kube_object(gaid, "apps/v1", "Deployment", gateway_name(gaid.name), _labels(gaid), spec=spec)


def _pod(gaid: GenAIDeployment, settings: KubeSettings) -> dict[str, Any]:
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": _selector(gaid)},
    }
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,
        # An upper bound: HAProxy exits after its last stream.
        "terminationGracePeriodSeconds": math.ceil(gaid.spec.gateway.response_timeout.value) + LINGER_S + 5,
        # Else each container's process is PID 1, which ignores a SIGTERM that comes before its handler is set: a pod
        # deleted while it starts would stay until the grace period ends.
        "shareProcessNamespace": True,
        "securityContext": dict(POD_SECURITY),
        "topologySpreadConstraints": [spread],
        "containers": [_haproxy(gaid, settings), _agent(gaid, settings)],
        "volumes": [
            {"name": "config", "configMap": {"name": gateway_name(gaid.name)}},
            {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
            *_certificate_volume(gaid),
        ],
    }
    if settings.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    return pod


def _certificate_volume(gaid: GenAIDeployment) -> list[dict[str, Any]]:
    secret = _secret(gaid)
    if secret is None:
        return []
    # HAProxy loads the key of tls.pem from tls.pem.key.
    items = [{"key": "tls.crt", "path": "tls.pem"}, {"key": "tls.key", "path": "tls.pem.key"}]
    return [
        {"name": "tls", "secret": {"secretName": secret, "items": items}},
        {"name": "certificate", "secret": {"secretName": secret, "items": [{"key": "tls.crt", "path": "tls.crt"}]}},
    ]


def _haproxy(gaid: GenAIDeployment, settings: KubeSettings) -> dict[str, Any]:
    command = [
        "python",
        "-m",
        "tierserve_serving.gateway.entrypoint",
        "--config",
        f"{CONFIG}/{_config_file(gaid)}",
        "--run",
        RUN,
    ]
    probe: dict[str, Any] = {"path": "/healthz", "port": "http"}
    ports = [
        {"name": "http", "containerPort": HTTP_PORT},
        {"name": "metrics", "containerPort": HAPROXY_METRICS_PORT},
    ]
    container = _container("haproxy", settings, [*command, "--linger", str(LINGER_S)])
    if _secret(gaid):
        probe |= {"port": "https", "scheme": "HTTPS"}
        ports.append({"name": "https", "containerPort": HTTPS_PORT})
        container["command"] += ["--follow", CERTIFICATE]
        container["volumeMounts"].append({"name": "tls", "mountPath": TLS, "readOnly": True})
    return {
        **container,
        "ports": ports,
        "resources": {"requests": {"cpu": "200m", "memory": "128Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
        # Ready if HAProxy accepts requests: if all tiers are down it still responds with API errors.
        "readinessProbe": {"httpGet": probe, "periodSeconds": 2},
        "livenessProbe": {"httpGet": probe, "periodSeconds": 10, "failureThreshold": 6},
    }


def _agent(gaid: GenAIDeployment, settings: KubeSettings) -> dict[str, Any]:
    command = ["python", "-m", "tierserve_serving.gateway.agent", "--config", f"{CONFIG}/agent.json", "--watch"]
    container = _container("agent", settings, command)
    if _secret(gaid):
        mount = {"name": "certificate", "mountPath": CERTIFICATE_ONLY, "readOnly": True}
        container["volumeMounts"].append(mount)
    return {
        **container,
        "ports": [{"name": "agent", "containerPort": AGENT_PORT}],
        # It buffers and parses bodies whose model HAProxy cannot read, at most 128 MiB in total.
        "resources": {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"cpu": "500m", "memory": "512Mi"}},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "agent"}, "periodSeconds": 10},
    }


def _container(name: str, settings: KubeSettings, command: list[str]) -> dict[str, Any]:
    return {
        "name": name,
        "image": settings.serving_image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": command,
        "securityContext": {**CONTAINER_SECURITY, "readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": "config", "mountPath": CONFIG, "readOnly": True}, {"name": "run", "mountPath": RUN}],
    }


# ---- Services and PodDisruptionBudget ----


def _service(gaid: GenAIDeployment) -> Object:
    # targetPort by name: port 443 selects only pods that have it, while port 80 still selects all.
    numbers = {"http": 80, **({"https": 443} if _secret(gaid) else {})}
    spec = {
        "type": "ClusterIP",
        "ipFamilyPolicy": "PreferDualStack",  # both address families if the cluster has both
        "selector": _selector(gaid),
        "ports": [{"name": n, "port": p, "targetPort": n, "protocol": "TCP"} for n, p in numbers.items()],
    }
    return kube_object(gaid, "v1", "Service", gateway_name(gaid.name), _labels(gaid), spec=spec)


def _agents(gaid: GenAIDeployment) -> Object:
    spec = {
        "clusterIP": "None",
        "ipFamilyPolicy": "SingleStack",  # an agent with two addresses would be polled, and counted, twice
        "selector": _selector(gaid),
        "ports": [
            {"name": "agent", "port": AGENT_PORT, "targetPort": "agent", "protocol": "TCP"},
            {"name": "metrics", "port": HAPROXY_METRICS_PORT, "targetPort": "metrics", "protocol": "TCP"},
        ],
    }
    return kube_object(gaid, "v1", "Service", agents_name(gaid.name), _labels(gaid), spec=spec)


def _budget(gaid: GenAIDeployment) -> Object:
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": _selector(gaid)}}
    name = gateway_name(gaid.name)
    return kube_object(gaid, "policy/v1", "PodDisruptionBudget", name, _labels(gaid), spec=spec)
