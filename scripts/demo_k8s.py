"""The main job on a cluster: install, apply, serve, grow, shrink, delete; each command as a user would type it.

    make cluster && make demo-k8s
    python scripts/demo_k8s.py --transcript docs/kubernetes-transcript.md

Takes about eight minutes on 2 cores. KUBECONFIG says which cluster; without it, the one that `make cluster` made.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import on_cluster
from host_cluster import paths

SERVICE = "examples/two-tiers.yaml"
# What is asked of them: where, how well, of which tier.
TIER = "'metadata.labels.tierserve\\.io/tier'"
COLUMNS = f"-o custom-columns=NAME:metadata.name,STATUS:status.phase,NODE:spec.nodeName,TIER:{TIER}"
WORKERS = f"kubectl get pods -l ray.io/node-type=worker {COLUMNS}"
# kubectl port-forward reaches one pod of the gateway; of two, each would let in its half only. And the nodes here share
# the cores of one machine: replicas of a model on a GPU would ask for more.
OPTIONS = "--set 'serving.gatewayReplicas=1,serving.worker.cpu=200m'"


class Transcript:
    """What was typed and what came back, on the screen and for a page."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.start = time.monotonic()

    def note(self, text: str) -> None:
        stamp = f"{time.monotonic() - self.start:4.0f} s"
        print(f"\n[{stamp}] {text}", flush=True)
        self.lines.append(f"\n**{text}** ({stamp.strip()})\n")

    def say(self, text: str) -> None:
        print(text, flush=True)
        # The page is for any machine: paths of this one are not in it.
        for path, name in ((str(on_cluster.ROOT), "."), (str(Path.home()), "~")):
            text = text.replace(path, name)
        self.lines += [f"    {line}".rstrip() for line in text.splitlines()] + [""]

    def write(self, path: Path, title: str) -> None:
        page = f"# {title}\n\nMade by `python scripts/demo_k8s.py --transcript {path}`.\n"
        path.write_text(re.sub(r"\n{3,}", "\n\n", page + "\n".join(self.lines)).rstrip() + "\n")


@contextmanager
def port_forward(shell: on_cluster.Shell) -> Iterator[str]:
    """The gateway as a port of this machine."""
    process = shell.start("kubectl port-forward service/assistant-gateway 8080:80")
    try:
        line = process.stdout.readline() if process.stdout else ""
        if "127.0.0.1" not in line:
            sys.exit(f"demo: kubectl port-forward: {line or 'no answer'}\n    is port 8080 of this machine in use?")
        yield "http://127.0.0.1:8080"
    finally:
        process.terminate()
        process.wait(10)


def is_ready(text: str) -> bool:
    """Whether the JSON of a GenAIDeployment says Ready for what it is now."""
    try:
        found = json.loads(text)
    except ValueError:
        return False
    conditions = {c["type"]: c for c in found.get("status", {}).get("conditions", ())}
    ready = conditions.get("Ready", {})
    return bool(ready.get("status") == "True" and ready.get("observedGeneration") == found["metadata"]["generation"])


def demo(shell: on_cluster.Shell, page: Transcript) -> None:
    """All of it, in order."""
    page.note("The cluster: a node pool for each tier")
    shell.run("kubectl get nodes -L tierserve.io/tier,tierserve.io/site")
    page.note("KubeRay and TierServe")
    if "kuberay-operator" not in shell.run("kubectl get deployments -A", quiet=True):
        on_cluster.install_kuberay(shell)
    if "tierserve-operator" not in shell.run("kubectl get deployments -A", quiet=True):
        on_cluster.install_tierserve(shell, OPTIONS)
    page.note("A service is one file")
    shell.run(f"kubectl apply -f {SERVICE}")
    shell.until("kubectl get gaid assistant -o json", is_ready, 600, "Ready")
    page.note("Ready")
    shell.run("kubectl get gaid")
    shell.run(f"kubectl get pods {COLUMNS}")
    with port_forward(shell) as url:
        served(shell, page, url)
    page.note("No load: replicas go, worker pods with them (Ray keeps an idle one for a minute)")
    shell.until(f"{WORKERS} --no-headers | wc -l", lambda text: text.strip() == "2", 420, "two workers")
    shell.run("kubectl get gaid")
    shell.run("kubectl tierserve events assistant")
    page.note("Delete: nothing is left")
    shell.run("kubectl delete -f examples/two-tiers.yaml")
    mine = (
        "kubectl get rayservices,rayclusters,deployments,services,configmaps,pods -l tierserve.io/deployment=assistant"
    )
    shell.until(f"{mine} -o name", lambda text: "/" not in text, 240, "nothing left")
    shell.run(mine)


def served(shell: on_cluster.Shell, page: Transcript, url: str) -> None:
    """An answer, then load and what comes of it."""
    page.note("An OpenAI-compatible endpoint")
    body = '{"model": "chat", "messages": [{"role": "user", "content": "Hello"}]}'
    shell.run(f"curl -sD - {url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}' | cut -c 1-200")
    page.note("Connections grow: the edge is full, the cloud takes what is over and gets replicas")
    shell.run(f"tierserve load {url} --connections 4,10 --duration 80s --warmup 50s")
    shell.run("kubectl get gaid")
    shell.run(WORKERS)
    page.note("Why has each tier the replicas it has?")
    shell.run("kubectl tierserve status assistant")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transcript", type=Path, help="write what was typed and what came back as a page")
    arguments = parser.parse_args()
    kubeconfig = None if os.environ.get("KUBECONFIG") else paths.kubeconfig()
    if kubeconfig and not kubeconfig.exists():
        kubeconfig = None  # kind's, in the home
    page = Transcript()
    shell = on_cluster.Shell(kubeconfig, page.say)
    if "Ready" not in shell.run("kubectl get nodes", check=False, quiet=True):
        sys.exit("demo: no cluster answers\n    make cluster brings one up; or set KUBECONFIG")
    demo(shell, page)
    if arguments.transcript:
        page.write(arguments.transcript, "A service on Kubernetes, from apply to delete")
    page.note("done")


if __name__ == "__main__":
    main()
