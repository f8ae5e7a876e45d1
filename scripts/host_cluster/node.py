"""A node: a containerd and a kubelet with roots, sockets, network and logs of their own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from host_cluster import network, paths
from host_cluster.binaries import Binaries
from host_cluster.images import PAUSE
from host_cluster.kind_config import ClusterSpec, NodeSpec
from host_cluster.processes import alive, kill, start, stop, until


def up(spec: ClusterSpec, node: NodeSpec, binaries: Binaries) -> None:
    """Start a node's containerd and kubelet; it is Ready some seconds later."""
    folder = _folder(node.name)
    _containerd(folder, node, binaries)
    _kubelet(spec, folder, node, binaries)


def down(some: list[NodeSpec]) -> None:
    """Stop kubelets first, so that no container restarts; then containers, containerd, and the mounts of pods."""
    stop([f"kubelet-{node.name}" for node in some])
    for node in some:
        _end_containers(_folder(node.name))
    stop([f"containerd-{node.name}" for node in some])
    for node in some:
        _unmount(_folder(node.name))


def _folder(name: str) -> Path:
    return paths.cluster_dir() / "nodes" / name


# ---- up ----


def _containerd(folder: Path, node: NodeSpec, binaries: Binaries) -> None:
    """With the images of the store, by hard links: layers are read, never written."""
    (folder / "cni").mkdir(parents=True)
    subprocess.run(["cp", "-al", paths.image_store() / "root", folder / "containerd"], check=True)
    for database in [*(folder / "containerd").glob("*/meta.db"), *(folder / "containerd").glob("*/metadata.db")]:
        data = database.read_bytes()
        database.unlink()
        database.write_bytes(data)
    conflist = network.cni_config(node.pods, folder / "addresses")
    (folder / "cni" / "10-tierserve.conflist").write_text(json.dumps(conflist))
    config = folder / "containerd.toml"
    config.write_text(containerd_config(folder, binaries.cni))
    start(f"containerd-{node.name}", [binaries.containerd, "--config", config])
    until((folder / "containerd.sock").exists, f"containerd of {node.name}", f"containerd-{node.name}")


def containerd_config(folder: Path, cni: Path) -> str:
    """TOML of a containerd whose root is FOLDER/containerd."""
    return f"""version = 2
root = "{folder}/containerd"
state = "{folder}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt",
  "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true  # a machine may lack CAP_SYS_RESOURCE
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni}"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"""


def _kubelet(spec: ClusterSpec, folder: Path, node: NodeSpec, binaries: Binaries) -> None:
    config = folder / "kubelet.yaml"
    config.write_text(yaml.safe_dump(_kubelet_config(spec, folder, node)))
    (folder / "resolv.conf").write_text("")
    start(f"kubelet-{node.name}", [
        binaries.kubelet, f"--config={config}", f"--kubeconfig={paths.kubeconfig()}",
        f"--root-dir={folder / 'kubelet'}",
        f"--hostname-override={node.name}", f"--node-ip={node.address}", f"--cert-dir={folder / 'certificates'}",
        f"--node-labels={','.join(f'{key}={value}' for key, value in node.labels.items())}",
    ])  # fmt: skip


def _kubelet_config(spec: ClusterSpec, folder: Path, node: NodeSpec) -> dict[str, Any]:
    authority = paths.cluster_dir() / "control-plane" / "ca.crt"
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.address,
        "healthzPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": str(authority)},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": f"unix://{folder}/containerd.sock",
        # Several kubelets share the host's cgroups, and its cores: no quotas of time.
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [],
        "cpuCFSQuota": False,
        "oomScoreAdj": 0,
        "makeIPTablesUtilChains": False,  # leave no rules in the host's tables
        "failSwapOn": False,
        "failCgroupV1": False,
        "clusterDNS": [spec.dns],
        "clusterDomain": "cluster.local",
        "resolvConf": str(folder / "resolv.conf"),
        "podLogsDir": str(folder / "logs"),
        "volumePluginDir": str(folder / "plugins"),
        "registerWithTaints": [dict(taint) for taint in node.taints],
        # No eviction for a full disk of the developer's machine; and deleted images could not be pulled again.
        "evictionHard": {"nodefs.available": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "nodeStatusUpdateFrequency": "5s",
    }


# ---- down ----


def _bundles(folder: Path) -> Iterator[Path]:
    yield from (folder / "state" / "io.containerd.runtime.v2.task" / "k8s.io").glob("*")


def _end_containers(folder: Path) -> None:
    """Kill the containers of a node and their shims, and remove their networks, containerd running or not."""
    networks = set()
    for bundle in _bundles(folder):
        pid = _read_pid(bundle / "init.pid")
        if pid and bundle.name in _read(Path(f"/proc/{pid}/cgroup")):
            kill(pid)
        networks |= _networks(bundle / "config.json")
    for pid in _shims(str(folder / "containerd.sock")):
        kill(pid)
    for path in networks:
        subprocess.run(["umount", "-l", path], capture_output=True, check=False)
        Path(path).unlink(missing_ok=True)


def _networks(config: Path) -> set[str]:
    """Files of the network namespaces that a container of ours has."""
    try:
        spaces = json.loads(config.read_text())["linux"]["namespaces"]
    except (OSError, ValueError, KeyError):
        return set()
    return {space["path"] for space in spaces if space["type"] == "network" and "/netns/cni-" in space.get("path", "")}


def _shims(socket: str) -> Iterator[int]:
    """Shims of this containerd: its address is among their arguments."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            words = _read(entry / "cmdline").split("\0")
            if words[0].endswith("containerd-shim-runc-v2") and socket in words:
                yield int(entry.name)


def _unmount(folder: Path) -> None:
    """Everything mounted below a folder, the innermost first."""
    inside = f"{folder}{os.sep}"
    points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for point in sorted((p for p in points if p.startswith(inside)), key=len, reverse=True):
        subprocess.run(["umount", "-l", point], capture_output=True, check=False)


def _read_pid(path: Path) -> int | None:
    text = _read(path)
    return int(text) if text.isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def is_running(node: NodeSpec) -> bool:
    """Whether the node's kubelet runs."""
    return alive(f"kubelet-{node.name}") is not None
