"""From apply to Ready: a GenAIDeployment and a RayService written by hand, alternately, on the same cluster.

And the time from killing the operator's pod until a change made meanwhile is applied.

    make cluster && python -m bench.kubernetes.apply_to_ready --rounds 3

Both serve one pool with one replica of the same engine in the same image on the same node. The one by hand is that of
KubeRay's guide: a head, a worker, `num_replicas: 1`, no autoscaler.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import on_cluster  # noqa: E402
from host_cluster import paths  # noqa: E402

from tierserve.api import parse  # noqa: E402
from tierserve.plan.placement import place  # noqa: E402
from tierserve.render.kubernetes.ray_service import ray_service  # noqa: E402
from tierserve.render.kubernetes.settings import KubeSettings  # noqa: E402

ONE_POOL = """
apiVersion: serving.tierserve.io/v1alpha1
kind: GenAIDeployment
metadata: {name: one-pool}
spec:
  objective: {responseTime: {percentile: 95, target: 1500ms}}
  models: [{name: chat, engine: emulated, memory: {weights: 16Gi, perRequest: 250Mi}, output: {tokens: 32}}]
  tiers: [{name: cloud, kind: cloud, accelerator: {preset: A100-80GB}, models: [chat], replicas: {min: 1, max: 1}}]
"""
SETTINGS = KubeSettings(serving_image="ghcr.io/tierserve/serving:0.1.0")


def by_hand() -> dict[str, Any]:
    """A RayService as a user would write it, for the same replica."""
    gaid = parse(yaml.safe_load(ONE_POOL))
    (placement,) = place(gaid)
    ours = ray_service(gaid, placement, SETTINGS)
    cluster = ours["spec"]["rayClusterConfig"]
    (application,) = json.loads(ours["spec"]["serveConfigV2"])["applications"]
    (deployment,) = application["deployments"]
    serve = {
        "http_options": {"host": "0.0.0.0", "port": 8000},
        "applications": [
            {
                "name": "app",
                "route_prefix": "/",
                "import_path": application["import_path"],
                "args": application["args"],
                "deployments": [{"name": deployment["name"], "num_replicas": 1}],
            }
        ],
    }
    head, (group,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    for one in (head, group):
        one["template"].pop("metadata")
    group |= {"minReplicas": 1, "maxReplicas": 1, "replicas": 1, "resources": {"CPU": "1"}}
    group.pop("labels")
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": "by-hand"},
        "spec": {
            "serveConfigV2": yaml.safe_dump(serve),
            "rayClusterConfig": {
                "rayVersion": cluster["rayVersion"],
                "headGroupSpec": head,
                "workerGroupSpecs": [group],
            },
        },
    }


def seconds_to_ready(shell: on_cluster.Shell, document: dict[str, Any], what: str) -> float:
    """Apply, wait for the condition Ready, delete, wait until the pods are gone."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(document, file)
        file.flush()
        start = time.monotonic()
        shell.run(f"kubectl apply -f {file.name}", quiet=True)
        query = "jsonpath='{.status.conditions[?(@.type==\"Ready\")].status}'"
        shell.until(f"kubectl get {what} -o {query}", lambda text: text.strip("'\n ") == "True", 600, f"{what} Ready")
        took = time.monotonic() - start
        shell.run(f"kubectl delete -f {file.name}", quiet=True)
    shell.until("kubectl get pods -o name", lambda text: "pod/" not in text, 300, "no pods")
    return took


def seconds_to_recover(shell: on_cluster.Shell, name: str, maximum: int) -> float:
    """Kill the operator's pod without notice, change `replicas.max`, wait until the RayService has it."""
    start = time.monotonic()
    shell.run(
        f"kubectl --namespace {on_cluster.NAMESPACE} delete pod -l app.kubernetes.io/name=tierserve-operator "
        "--grace-period 0 --force", quiet=True,
    )  # fmt: skip
    change = [{"op": "replace", "path": "/spec/tiers/0/replicas/max", "value": maximum}]
    shell.run(f"kubectl patch gaid {name} --type json -p '{json.dumps(change)}'", quiet=True)
    shell.until(
        f"kubectl get rayservice {name}-cloud-default -o jsonpath='{{.spec.serveConfigV2}}'",
        lambda text: f'"max_replicas": {maximum}' in text, 120, "the change",
    )  # fmt: skip
    return time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    shell = on_cluster.Shell(None if os.environ.get("KUBECONFIG") else paths.kubeconfig())
    if "kuberay-operator" not in shell.run("kubectl get deployments -A", quiet=True):
        on_cluster.install_kuberay(shell)
    if "tierserve-operator" not in shell.run("kubectl get deployments -A", quiet=True):
        on_cluster.install_tierserve(shell)
    theirs, ours, recoveries = [], [], []
    document = yaml.safe_load(ONE_POOL)
    name = document["metadata"]["name"]
    for number in range(rounds):
        theirs.append(seconds_to_ready(shell, by_hand(), "rayservice by-hand"))
        ours.append(seconds_to_ready(shell, document, f"gaid {name}"))
        print(
            f"round {number + 1}: RayService by hand {theirs[-1]:.0f} s, GenAIDeployment {ours[-1]:.0f} s", flush=True
        )
    shell.run(f"kubectl apply -f - <<'END'\n{ONE_POOL}END", quiet=True)
    shell.until(f"kubectl get rayservice {name}-cloud-default -o name", lambda text: "/" in text, 60, "a RayService")
    for maximum in range(2, 2 + rounds):
        recoveries.append(seconds_to_recover(shell, name, maximum))
        time.sleep(5)
    shell.run(f"kubectl delete gaid {name}", quiet=True)
    print(f"\n{os.cpu_count()} cores; medians of {rounds}:")
    print(f"RayService by hand   {statistics.median(theirs):4.0f} s  ({min(theirs):.0f} to {max(theirs):.0f})")
    print(f"GenAIDeployment      {statistics.median(ours):4.0f} s  ({min(ours):.0f} to {max(ours):.0f})")
    low, high, middle = min(recoveries), max(recoveries), statistics.median(recoveries)
    print(f"operator killed      {middle:4.0f} s  ({low:.0f} to {high:.0f}) until a change is applied")


if __name__ == "__main__":
    main()
