"""Programs of a host cluster: those of Kubernetes, CoreDNS, and the distribution's containerd."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import kube_binaries

PACKAGES = ("containerd", "runc", "containernetworking-plugins", "iptables", "conntrack", "debootstrap", "buildah",
            "iproute2", "ca-certificates")  # fmt: skip
PROGRAMS = ("containerd", "ctr", "runc", "iptables", "conntrack", "debootstrap", "buildah", "ip")
CNI_FOLDERS = ("/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni")


@dataclass(frozen=True, slots=True)
class Binaries:
    """Paths of the programs, and the folder of the CNI plugins."""

    etcd: Path
    apiserver: Path
    controller_manager: Path
    scheduler: Path
    proxy: Path
    kubelet: Path
    coredns: Path
    containerd: Path
    ctr: Path
    buildah: Path
    cni: Path


def missing() -> str | None:
    """Why this host cannot run a cluster, with a hint; None if it can."""
    if sys.platform != "linux":
        return "a host cluster needs Linux\n    with Docker: install kind, and `make cluster` uses it"
    if os.geteuid() != 0:
        return "a host cluster needs root (containers, addresses)\n    run it with sudo, or install Docker and kind"
    lacking = _lacking()
    if lacking and not shutil.which("apt-get"):
        words = ", ".join(lacking)
        return f"not installed: {words}\n    install them with the packages of your distribution, or Docker and kind"
    return None


def install() -> None:
    """Install missing packages of the distribution; SystemExit if that fails."""
    if not _lacking():
        return
    kube_binaries.say(f"packages of the distribution: {', '.join(PACKAGES)} ...")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run(["apt-get", *words], capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            sys.exit(f"cluster: apt-get {words[0]} exited with {done.returncode}: {done.stderr.strip()[-500:]}")


def ensure() -> Binaries:
    """All programs, downloaded or built if necessary; SystemExit with a hint if that fails."""
    if reason := missing():
        sys.exit(f"cluster: {reason}")
    install()
    server = kube_binaries.ensure()
    own = {name: kube_binaries.kubernetes(name) for name in kube_binaries.NODE_PROGRAMS}
    return Binaries(
        etcd=server.etcd, apiserver=server.apiserver, controller_manager=own["kube-controller-manager"],
        scheduler=own["kube-scheduler"], proxy=own["kube-proxy"], kubelet=own["kubelet"],
        coredns=kube_binaries.coredns(), containerd=_which("containerd"), ctr=_which("ctr"), buildah=_which("buildah"),
        cni=_cni() or Path(CNI_FOLDERS[0]),
    )  # fmt: skip


def _lacking() -> list[str]:
    return [name for name in PROGRAMS if not shutil.which(name)] + ([] if _cni() else ["the CNI plugins"])


def _cni() -> Path | None:
    return next((Path(folder) for folder in CNI_FOLDERS if Path(folder, "ptp").exists()), None)


def _which(name: str) -> Path:
    found = shutil.which(name)
    assert found is not None
    return Path(found)
