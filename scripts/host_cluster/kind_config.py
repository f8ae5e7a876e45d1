"""Reads the nodes of kind-config.yaml: names as kind assigns them, labels and taints."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CONTROL_PLANE_TAINT = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One node.

    Attributes:
        name: of the node, as kind makes it from the name of the cluster.
        labels, taints: as in the API.
        address: of its kubelet, an address of the cluster's bridge.
        pods: the addresses of its pods.
    """

    name: str
    labels: Mapping[str, str]
    taints: tuple[Mapping[str, str], ...]
    address: str
    pods: str


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """The cluster: its name, its networks and its nodes; the first node is the control plane's."""

    name: str
    pods: ipaddress.IPv4Network
    services: ipaddress.IPv4Network
    nodes: tuple[NodeSpec, ...]

    @property
    def host(self) -> str:
        """Address of the host in the cluster: API server and DNS."""
        return str(self.pods[1])

    @property
    def dns(self) -> str:
        """Address of the Service kube-dns."""
        return str(self.services[10])


def read(path: Path, name: str | None = None) -> ClusterSpec:
    """The cluster of a kind configuration; SystemExit with error and hint if it is invalid."""
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise SystemExit(f"cluster: {path}: {error}") from error
    if not isinstance(document, dict) or document.get("kind") != "Cluster":
        raise SystemExit(f"cluster: {path}: not a kind configuration\n    its kind must be Cluster")
    title = name or document.get("name") or "kind"
    networking = document.get("networking") or {}
    pods = ipaddress.IPv4Network(networking.get("podSubnet", "10.244.0.0/16"))
    services = ipaddress.IPv4Network(networking.get("serviceSubnet", "10.96.0.0/16"))
    nodes = document.get("nodes") or [{"role": "control-plane"}]
    roles = [node.get("role", "control-plane") for node in nodes]
    if roles.count("control-plane") != 1 or roles[0] != "control-plane":
        raise SystemExit(f"cluster: {path}: nodes: {roles}\n    the first node, and only it, must be the control-plane")
    return ClusterSpec(title, pods, services, tuple(_nodes(title, nodes, pods)))


def _nodes(cluster: str, nodes: list[dict[str, Any]], pods: ipaddress.IPv4Network) -> Iterator[NodeSpec]:
    ranges = list(pods.subnets(new_prefix=24))  # the first is the host's and the kubelets'
    for index, node in enumerate(nodes):
        if index == 0:
            name, default = f"{cluster}-control-plane", [CONTROL_PLANE_TAINT] if len(nodes) > 1 else []
        else:
            name, default = f"{cluster}-worker{index if index > 1 else ''}", []
        taints = _registration(node).get("taints", default)
        address = str(ranges[0][index + 2])
        yield NodeSpec(name, node.get("labels") or {}, tuple(taints), address, str(ranges[index + 1]))


def _registration(node: Mapping[str, Any]) -> dict[str, Any]:
    """nodeRegistration of the node's patches for kubeadm, where kind has taints."""
    found: dict[str, Any] = {}
    for patch in node.get("kubeadmConfigPatches") or ():
        found |= (yaml.safe_load(patch) or {}).get("nodeRegistration") or {}
    return found
