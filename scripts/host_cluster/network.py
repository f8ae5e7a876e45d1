"""Network of the host: a bridge with the addresses of API server and kubelets, without external routes."""

from __future__ import annotations

import subprocess
from pathlib import Path

from host_cluster.kind_config import ClusterSpec
from host_cluster.processes import say

BRIDGE = "tierserve0"


def up(spec: ClusterSpec) -> None:
    """Add addresses and routes; SystemExit if the networks of the cluster are in use on this host."""
    taken = _ip("route", "show", "root", str(spec.pods)) + _ip("route", "show", "root", str(spec.services))
    if taken:
        raise SystemExit(
            f"cluster: {spec.pods} or {spec.services} is in use on this host: {taken.splitlines()[0]}\n"
            "    set networking.podSubnet and serviceSubnet in kind-config.yaml to free ranges"
        )
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    _ip("link", "add", BRIDGE, "type", "bridge")
    for address in (spec.host, *(node.address for node in spec.nodes)):
        _ip("address", "add", f"{address}/32", "dev", BRIDGE)
    _ip("link", "set", BRIDGE, "up")
    for network in (spec.pods, spec.services):
        # Packets for deleted pods are dropped here; routes of existing pods are more specific.
        _ip("route", "add", "blackhole", str(network))


def down(spec: ClusterSpec) -> None:
    """Remove the network; idempotent."""
    for network in (spec.pods, spec.services):
        _ip("route", "del", "blackhole", str(network), check=False)
    _ip("link", "del", BRIDGE, check=False)


def clean_services(kube_proxy: Path) -> None:
    """Remove kube-proxy's rules."""
    done = subprocess.run([kube_proxy, "--cleanup"], capture_output=True, text=True, check=False)
    if done.returncode:
        say(f"kube-proxy --cleanup ended with {done.returncode}: {done.stderr.strip()[-200:]}")


def cni_config(pods: str, state: Path) -> dict[str, object]:
    """Addresses of a node's pods: a pair of devices each, no bridge."""
    ipam = {
        "type": "host-local",
        "dataDir": str(state),
        "ranges": [[{"subnet": pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    return {"cniVersion": "0.4.0", "name": "tierserve", "plugins": [{"type": "ptp", "ipam": ipam}]}


def _ip(*words: str, check: bool = True) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise SystemExit(f"cluster: ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout
