"""The images of a host cluster: the project's own Dockerfiles, built by buildah on a base made of Debian's packages.

They are kept unpacked in one containerd root, from which every node gets a copy by hard links.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import kube_binaries

from host_cluster import paths
from host_cluster.processes import say

ROOT = Path(__file__).resolve().parents[2]
VERSION = "0.1.0"
PAUSE = "localhost/tierserve/pause:1"
OPERATOR = f"ghcr.io/tierserve/operator:{VERSION}"
SERVING = f"ghcr.io/tierserve/serving:{VERSION}"
KUBERAY = f"quay.io/kuberay/operator:{kube_binaries.KUBERAY_VERSION}"
PYTHON_BASE = "localhost/tierserve/python:bookworm"
RAY_BASE = "localhost/tierserve/ray:bookworm"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

# What Ray's own images have: a user ray (1000:100) and a Python of his first on PATH.
RAY_BASE_FILE = f"""FROM {PYTHON_BASE}
RUN useradd --uid 1000 --gid 100 --create-home --shell /bin/bash ray && python3 -m venv /home/ray/venv
ENV PATH=/home/ray/venv/bin:$PATH
USER 1000:100
WORKDIR /home/ray
"""
PROGRAM_FILE = 'FROM scratch\nCOPY program {path}\nUSER 65532:65532\nENTRYPOINT ["{path}"]\n'


@dataclass(frozen=True, slots=True)
class Builder:
    """buildah with its own storage."""

    buildah: Path

    def run(self, *words: str | Path) -> str:
        root = paths.cache() / "containers"
        command = [self.buildah, "--storage-driver", "overlay", "--root", root / "storage", "--runroot", root / "run"]
        environment = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
        done = subprocess.run(
            [str(w) for w in (*command, *words)], capture_output=True, text=True, env=environment, check=False
        )
        if done.returncode:
            lines = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
            sys.exit(f"images: buildah {words[0]} exited with {done.returncode}\n{lines}")
        return done.stdout.strip()

    def has(self, name: str) -> bool:
        """Whether an image exists."""
        return name in self.run("images", "--format", "{{.Name}}:{{.Tag}}").splitlines()

    def bud(self, name: str, dockerfile: str | Path, context: Path, **arguments: str) -> str:
        """Build a Dockerfile, given as a file or as its text, and return the id of the image."""
        words: list[str | Path] = []
        for key, value in arguments.items():
            words += ["--build-arg", f"{key}={value}"]
        if CERTIFICATES.exists():  # the machine's own authorities, for a registry behind a proxy
            words += ["--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro", "--build-arg", f"SSL_CERT_FILE={CERTIFICATES}"]
        with tempfile.TemporaryDirectory() as folder:
            if isinstance(dockerfile, str):
                written = Path(folder, "Dockerfile")
                written.write_text(dockerfile)
                dockerfile = written
            return self.run("bud", "-q", "--layers", *words, "-f", dockerfile, "-t", name, context).splitlines()[-1]


def ensure(buildah: Path, containerd: Path, ctr: Path) -> None:
    """Build missing images, and update the image store."""
    with kube_binaries.locked(paths.cache() / "containers", "images"):
        _ensure(Builder(buildah), containerd, ctr)


def _ensure(builder: Builder, containerd: Path, ctr: Path) -> None:
    ids = {
        PAUSE: _program(builder, PAUSE, kube_binaries.pause(), "/pause"),
        KUBERAY: _program(builder, KUBERAY, kube_binaries.kuberay_operator(), "/manager"),
        OPERATOR: _timed("the operator", lambda: builder.bud(
            OPERATOR, ROOT / "operator" / "Dockerfile", ROOT, PYTHON_IMAGE=_python(builder))),
        SERVING: _timed("replicas and gateways", lambda: builder.bud(
            SERVING, ROOT / "serving" / "Dockerfile", ROOT, RAY_IMAGE=_ray(builder))),
    }  # fmt: skip
    builder.run("rm", "--all")  # remains of failed builds
    _store(builder, containerd, ctr, ids)


def _timed(what: str, build: Callable[[], str]) -> str:
    start = time.monotonic()
    say(f"image of {what} ...")
    found = build()
    say(f"image of {what}: {time.monotonic() - start:.0f} s")
    return found


def _program(builder: Builder, name: str, program: Path, path: str) -> str:
    """An image of one static program."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy2(program, Path(folder, "program"))
        return builder.bud(name, PROGRAM_FILE.format(path=path), Path(folder))


def _python(builder: Builder) -> str:
    """Debian with its Python, from the mirror that this machine's apt is set to."""
    if not builder.has(PYTHON_BASE):
        _timed("Debian and its Python (2 minutes, once)", lambda: _debootstrap(builder))
    return PYTHON_BASE


def _debootstrap(builder: Builder) -> str:
    found = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)", "Created-By: Packages"],
        capture_output=True, text=True, check=False,
    ).stdout.split("\n")  # fmt: skip
    mirror = next((line.split()[0] for line in found if line.endswith(" bookworm")), None)
    packages = "--include=python3,python3-venv,ca-certificates,wget"
    with tempfile.TemporaryDirectory() as folder:
        command = ["debootstrap", "--variant=minbase", packages, "bookworm", folder, *([mirror] if mirror else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"images: debootstrap exited with {done.returncode}: {(done.stdout + done.stderr)[-500:]}")
        container = builder.run("from", "scratch")
        builder.run("add", "-q", container, folder, "/")
        builder.run("config", "--cmd", "/bin/bash", container)
        builder.run("commit", "-q", container, PYTHON_BASE)
        return builder.run("rm", container)


def _ray(builder: Builder) -> str:
    _python(builder)
    with tempfile.TemporaryDirectory() as folder:
        builder.bud(RAY_BASE, RAY_BASE_FILE, Path(folder))
    return RAY_BASE


# ---- the store ----


def _store(builder: Builder, containerd: Path, ctr: Path, ids: dict[str, str]) -> None:
    """Import changed images into the store; an incomplete store is recreated."""
    store = paths.image_store()
    note = store / "images.json"
    kept = json.loads(note.read_text()) if note.exists() else {}
    if not kept:
        shutil.rmtree(store, ignore_errors=True)
    changed = {name: image for name, image in ids.items() if kept.get(name) != image}
    if not changed:
        return
    note.unlink(missing_ok=True)
    start = time.monotonic()
    try:
        _import(builder, containerd, ctr, changed)
    except ImportFailedError as error:
        # containerd may collect a layer of the image that is replaced while the new one is unpacked on top of it
        say(f"{error}; the store is made anew")
        shutil.rmtree(store)
        _import(builder, containerd, ctr, ids)
    note.write_text(json.dumps(ids))
    say(f"images unpacked: {time.monotonic() - start:.0f} s")


def _import(builder: Builder, containerd: Path, ctr: Path, names: Iterable[str]) -> None:
    store = paths.image_store()
    store.mkdir(parents=True, exist_ok=True)
    with _Containerd(store, containerd, ctr) as daemon:
        for name in names:
            say(f"unpacking {name} ...")
            daemon.load(builder, name)


class ImportFailedError(RuntimeError):
    """containerd did not take an image."""


class _Containerd:
    """The containerd of the store, during imports."""

    def __init__(self, store: Path, containerd: Path, ctr: Path) -> None:
        self.store, self.containerd, self.ctr = store, containerd, ctr
        self.socket = store / "containerd.sock"

    def __enter__(self) -> _Containerd:
        config = self.store / "containerd.toml"
        config.write_text(
            f'version = 2\nroot = "{self.store}/root"\nstate = "{self.store}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\n  address = "{self.socket}"\n'
        )
        log = (self.store / "containerd.log").open("wb")
        self.process = subprocess.Popen([self.containerd, "--config", config], stdout=log, stderr=log)
        end = time.monotonic() + 30
        while not self.socket.exists():
            if self.process.poll() is not None or time.monotonic() > end:
                sys.exit(f"images: containerd does not start\n{(self.store / 'containerd.log').read_text()[-1500:]}")
            time.sleep(0.1)
        return self

    def load(self, builder: Builder, name: str) -> None:
        """Import one image through a temporary archive."""
        with tempfile.TemporaryDirectory(dir=self.store) as folder:
            archive = Path(folder, "image.tar")
            builder.run("push", "-q", "--disable-compression", name, f"docker-archive:{archive}:{name}")
            command = [self.ctr, "--address", self.socket, "--namespace", "k8s.io", "images", "import", archive]
            done = subprocess.run([str(w) for w in command], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ImportFailedError(f"import of {name} exited with {done.returncode}: {done.stderr.strip()[-500:]}")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)
        shutil.rmtree(self.store / "state", ignore_errors=True)
