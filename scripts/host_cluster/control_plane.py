"""etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kube-proxy and CoreDNS, as processes of the host."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from host_cluster import certificates, paths
from host_cluster.binaries import Binaries
from host_cluster.kind_config import ClusterSpec
from host_cluster.processes import start, until
from tierserve.runtime.local.ports import free_ports

API_PORT = 6443
OWN_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
ORDER_DOWN = ("coredns", "kube-proxy", "kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd")


def up(spec: ClusterSpec, binaries: Binaries) -> None:
    """Start all components, each when its dependencies are ready."""
    folder = paths.cluster_dir() / "control-plane"
    authority = certificates.authority(folder)
    admin = authority.client("admin", "system:masters")
    write_kubeconfig(spec, authority, admin)
    etcd = _etcd(folder, binaries)
    serving = authority.server("apiserver", [spec.host, str(spec.services[1]), *OWN_NAMES])
    start("kube-apiserver", [binaries.apiserver, f"--etcd-servers={etcd}", *_apiserver(spec, folder, serving, admin)])
    until(is_ready, "the API server", "kube-apiserver")
    _controllers(folder, binaries)
    _proxy(spec, binaries)
    _dns(spec, folder, binaries)


def write_kubeconfig(spec: ClusterSpec, authority: certificates.Authority, admin: certificates.Pair) -> None:
    """Write the administrator's kubeconfig; components use it too."""
    document = {
        "apiVersion": "v1", "kind": "Config", "current-context": spec.name,
        "clusters": [{"name": spec.name, "cluster": {
            "server": f"https://{spec.host}:{API_PORT}", "certificate-authority": str(authority.certificate)}}],
        "users": [{"name": "admin", "user": {
            "client-certificate": str(admin.certificate), "client-key": str(admin.key)}}],
        "contexts": [{"name": spec.name, "context": {"cluster": spec.name, "user": "admin"}}],
    }  # fmt: skip
    paths.kubeconfig().write_text(yaml.safe_dump(document))


def request(path: str, body: dict[str, Any] | None = None, method: str = "GET") -> Any:
    """Send a request to the API server as administrator; raises urllib's errors."""
    document = yaml.safe_load(paths.kubeconfig().read_text())
    cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
    context = ssl.create_default_context(cafile=cluster["certificate-authority"])
    context.load_cert_chain(user["client-certificate"], user["client-key"])
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(
        f"{cluster['server']}{path}", data=data, method=method, headers={"Content-Type": "application/json"}
    )
    with opener.open(asked, timeout=20) as reply:
        text = reply.read().decode()
    return json.loads(text) if text.startswith(("{", "[")) else text


def is_ready() -> bool:
    """Whether the API server is ready."""
    try:
        return bool(request("/readyz") == "ok")
    except (OSError, KeyError):
        return False


def _etcd(folder: Path, binaries: Binaries) -> str:
    client, peer = (f"http://127.0.0.1:{port}" for port in free_ports(2))
    start("etcd", [
        binaries.etcd, f"--data-dir={folder / 'etcd'}", "--unsafe-no-fsync", "--log-level=warn",
        f"--listen-client-urls={client}", f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}",
    ])  # fmt: skip
    return client


def _apiserver(spec: ClusterSpec, folder: Path, serving: certificates.Pair, admin: certificates.Pair) -> list[str]:
    signing = certificates.service_account_key(folder / "service-accounts.key")
    return [
        f"--bind-address={spec.host}", f"--secure-port={API_PORT}",
        f"--advertise-address={spec.host}", f"--service-cluster-ip-range={spec.services}",
        f"--tls-cert-file={serving.certificate}", f"--tls-private-key-file={serving.key}",
        f"--client-ca-file={folder / 'ca.crt'}", "--authorization-mode=Node,RBAC",
        f"--kubelet-client-certificate={admin.certificate}", f"--kubelet-client-key={admin.key}",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={signing}",
        f"--service-account-signing-key-file={signing}", "--enable-priority-and-fairness=false",
    ]  # fmt: skip


def _controllers(folder: Path, binaries: Binaries) -> None:
    common = [f"--kubeconfig={paths.kubeconfig()}", "--leader-elect=false", "--secure-port=0"]
    start("kube-controller-manager", [
        binaries.controller_manager, *common, f"--root-ca-file={folder / 'ca.crt'}",
        f"--service-account-private-key-file={folder / 'service-accounts.key'}", "--concurrent-gc-syncs=5",
    ])  # fmt: skip
    start("kube-scheduler", [binaries.scheduler, *common])


def _proxy(spec: ClusterSpec, binaries: Binaries) -> None:
    metrics, health = free_ports(2)
    start("kube-proxy", [
        binaries.proxy, f"--kubeconfig={paths.kubeconfig()}", "--proxy-mode=iptables",
        f"--hostname-override={spec.nodes[0].name}", f"--metrics-bind-address=127.0.0.1:{metrics}",
        f"--healthz-bind-address=127.0.0.1:{health}", f"--nodeport-addresses={spec.host}/32",
        # These settings need capabilities that a machine may lack; the kernel's defaults suffice.
        "--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0s",
        "--conntrack-tcp-timeout-close-wait=0s",
    ])  # fmt: skip


def _dns(spec: ClusterSpec, folder: Path, binaries: Binaries) -> None:
    """Start CoreDNS on the host, with a Service; it resolves no names outside the cluster, so no query leaves the
    host."""
    corefile = folder / "Corefile"
    kubernetes = (
        f"kubernetes cluster.local in-addr.arpa {{\n    kubeconfig {paths.kubeconfig()} {spec.name}\n    ttl 1\n  }}"
    )
    # Two blocks: in one, template would answer before kubernetes.
    corefile.write_text(
        f"cluster.local:53 in-addr.arpa:53 {{\n  bind {spec.host}\n  errors\n  {kubernetes}\n}}\n"
        f".:53 {{\n  bind {spec.host}\n  template ANY ANY . {{\n    rcode NXDOMAIN\n  }}\n}}\n"
    )
    start("coredns", [binaries.coredns, "-conf", corefile])
    ports = [{"name": name, "port": 53, "protocol": name.split("-")[1].upper()} for name in ("dns-udp", "dns-tcp")]
    labels = {"kubernetes.io/service-name": "kube-dns"}
    service = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "kube-dns"},
        "spec": {"clusterIP": spec.dns, "ports": ports},
    }  # fmt: skip
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "kube-dns", "labels": labels},
        "endpoints": [{"addresses": [spec.host], "conditions": {"ready": True}}], "ports": ports,
    }  # fmt: skip
    until(lambda: _exists("/api/v1/namespaces/kube-system"), "the namespace kube-system", "kube-apiserver")
    request("/api/v1/namespaces/kube-system/services", service, "POST")
    request("/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices", endpoints, "POST")


def _exists(path: str) -> bool:
    try:
        request(path)
    except urllib.error.HTTPError:
        return False
    return True
