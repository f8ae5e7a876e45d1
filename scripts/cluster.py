"""The cluster of kind-config.yaml: with kind where Docker is, else as processes of this host, without Docker.

    python scripts/cluster.py up      bring it up, with the images of this checkout
    python scripts/cluster.py down    end just what was started
    python scripts/cluster.py env     print where its kubeconfig is, for a shell

A host cluster has etcd, the control plane and a kubelet and containerd for each node, all of them real; it needs root.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also when it is imported from elsewhere

from host_cluster import binaries, control_plane, images, kind_config, network, node, paths, processes
from host_cluster.processes import say

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "kind-config.yaml"


def up(config: Path = CONFIG) -> Path:
    """Bring a host cluster up and return its kubeconfig; SystemExit with error and hint on failure."""
    spec = kind_config.read(config)
    with _one_at_a_time():
        if any(processes.alive(name) for name in processes.names()):
            sys.exit(f"cluster: already running\n    hint: use it: export KUBECONFIG={paths.kubeconfig()}\n"
                     "    or delete it: make cluster-down")  # fmt: skip
        found = binaries.ensure()
        images.ensure(found.buildah, found.containerd, found.ctr)
        down()  # remains of a cluster that was running when the machine was switched off
        with _taken_down_on_failure():
            _note(config, found)
            _timed("network", lambda: network.up(spec))
            _timed("control plane", lambda: control_plane.up(spec, found))
            _timed(f"{len(spec.nodes)} nodes", lambda: _nodes(spec, found))
    return paths.kubeconfig()


def down() -> None:
    """Delete the host cluster, or the remains of one, in an order that leaves nothing behind."""
    folder = paths.cluster_dir()
    if not (folder / "programs.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        return
    spec = kind_config.read(folder / "kind-config.yaml")
    node.down(list(spec.nodes))
    for name in control_plane.ORDER_DOWN:
        processes.stop([name])
    network.clean_services(Path(json.loads((folder / "programs.json").read_text())["kube-proxy"]))
    network.down(spec)
    shutil.rmtree(folder)


def _note(config: Path, found: binaries.Binaries) -> None:
    """State that `down` needs, stored because the checkout may have changed by then."""
    folder = paths.cluster_dir()
    folder.mkdir(parents=True)
    shutil.copyfile(config, folder / "kind-config.yaml")
    (folder / "programs.json").write_text(json.dumps({"kube-proxy": str(found.proxy)}))


def _nodes(spec: kind_config.ClusterSpec, found: binaries.Binaries) -> None:
    with ThreadPoolExecutor(len(spec.nodes)) as pool:
        list(pool.map(lambda one: node.up(spec, one, found), spec.nodes))
    for one in spec.nodes:
        processes.until(partial(_is_ready, one.name), f"node {one.name}", f"kubelet-{one.name}")


def _is_ready(name: str) -> bool:
    try:
        found = control_plane.request(f"/api/v1/nodes/{name}")
    except OSError:
        return False
    return any(c["type"] == "Ready" and c["status"] == "True" for c in found["status"].get("conditions", ()))


def _timed(what: str, work: Callable[[], object]) -> None:
    start = time.monotonic()
    work()
    say(f"{what}: {time.monotonic() - start:.0f} s")


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    paths.cache().mkdir(parents=True, exist_ok=True)
    with (paths.cache() / "cluster.lock").open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("cluster: another `make cluster` is running\n    hint: wait until it has finished")
        yield


@contextmanager
def _taken_down_on_failure() -> Iterator[None]:
    try:
        yield
    except BaseException:
        if os.environ.get("TIERSERVE_CLUSTER_KEEP"):
            say(f"kept with its logs in {paths.cluster_dir()}; `make cluster-down` deletes it")
        else:
            say("deleting the incomplete cluster (TIERSERVE_CLUSTER_KEEP=1 keeps it, with its logs)")
            down()
        raise


def kind_up() -> Path:
    """Create the same cluster with kind and the images of this checkout; raises CalledProcessError if a step fails."""
    name = kind_config.read(CONFIG).name
    subprocess.run(["kind", "create", "cluster", "--config", CONFIG], check=True)
    for image, folder in ((images.OPERATOR, "operator"), (images.SERVING, "serving")):
        subprocess.run(["docker", "build", "-q", "-f", f"{folder}/Dockerfile", "-t", image, "."], cwd=ROOT, check=True)
        subprocess.run(["kind", "load", "docker-image", image, "--name", name], check=True)
    return Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")


def kind_down() -> None:
    """Delete the kind cluster."""
    subprocess.run(["kind", "delete", "cluster", "--name", kind_config.read(CONFIG).name], check=True)


def uses_kind() -> bool:
    """Whether kind and a Docker engine are available."""
    if not (shutil.which("kind") and shutil.which("docker")):
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["up", "down", "env"])
    what, start = parser.parse_args().what, time.monotonic()
    if what == "env":
        print("" if uses_kind() else f"export KUBECONFIG={paths.kubeconfig()}")
        return
    if uses_kind():
        kind_up() if what == "up" else kind_down()
    elif what == "down":
        down()
    else:
        say(f"export KUBECONFIG={up()}")
    say(f"{what} after {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
