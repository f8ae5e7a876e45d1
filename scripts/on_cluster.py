"""Install KubeRay and TierServe on a cluster, and run commands against it as a user would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import kube_binaries

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "charts" / "tierserve"
NAMESPACE = "tierserve-system"
KUBERAY_READY = "kubectl --namespace kuberay-system rollout status deployment/kuberay-operator --timeout 180s"
DEFINITION = "crd/genaideployments.serving.tierserve.io"


class Shell:
    """Runs commands against one cluster; kubectl, helm and tierserve are those of this checkout."""

    def __init__(self, kubeconfig: Path | None = None, say: Callable[[str], None] = lambda _: None) -> None:
        self.say = say
        self.programs = tempfile.TemporaryDirectory(prefix="tierserve-bin-")
        for name, path in (("kubectl", kube_binaries.kubectl()), ("helm", kube_binaries.helm())):
            Path(self.programs.name, name).symlink_to(path)
        paths = [self.programs.name, sysconfig.get_path("scripts"), os.environ["PATH"]]
        self.environment = {**os.environ, "PATH": os.pathsep.join(paths), "TERM": "dumb", "COLUMNS": "120"}
        if kubeconfig:
            self.environment["KUBECONFIG"] = str(kubeconfig)

    def run(self, command: str, *, check: bool = True, quiet: bool = False) -> str:
        """Run a command line, print it with its output and return the output; RuntimeError if it fails."""
        done = subprocess.run(
            ["bash", "-c", command], cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False
        )
        text = done.stdout + ("" if done.returncode == 0 else done.stderr)
        if not quiet:
            self.say(f"$ {command}\n{text.rstrip()}\n")
        if check and done.returncode:
            raise RuntimeError(f"{command}\nexited with {done.returncode}:\n{text[-3000:]}")
        return text

    def start(self, command: str) -> subprocess.Popen[str]:
        """Start a command in the background, such as kubectl port-forward."""
        self.say(f"$ {command} &\n")
        return subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=ROOT, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def until(self, command: str, true: Callable[[str], bool], limit_s: float, what: str) -> str:
        """Repeat a command until its output is as expected; RuntimeError with the last output after the time limit."""
        end = time.monotonic() + limit_s
        while True:
            found = self.run(command, check=False, quiet=True)
            if true(found):
                return found
            if time.monotonic() > end:
                raise RuntimeError(f"not within {limit_s:g} s: {what}\n{command}:\n{found[-3000:]}")
            time.sleep(1)


def install_kuberay(shell: Shell) -> None:
    """Install KubeRay's operator from its own manifests, in its own namespace."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(kube_binaries.kuberay_config(), Path(folder, "config"))
        own = Path(folder, "own")
        own.mkdir()
        (own / "kustomization.yaml").write_text("namespace: kuberay-system\nresources: [../config/default]\n")
        shell.run("kubectl create namespace kuberay-system", quiet=True)
        shell.run(f"kubectl apply --server-side -k {own}", quiet=True)
    shell.run(KUBERAY_READY)


def install_tierserve(shell: Shell, options: str = "") -> None:
    """Install the chart, with options of helm such as `--set resyncPeriod=5s`."""
    words = f"helm install tierserve charts/tierserve --namespace {NAMESPACE} --create-namespace --wait {options}"
    shell.run(words.rstrip())
    shell.run(f"kubectl wait --for condition=established {DEFINITION}", quiet=True)
