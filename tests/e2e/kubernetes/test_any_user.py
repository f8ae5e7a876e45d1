"""The images run as a user that they do not know, as OpenShift assigns one to each namespace."""

from __future__ import annotations

import json
import shlex
from typing import Any

SERVING = "ghcr.io/tierserve/serving:0.1.0"
USER = 1000680000
PROBE = "import getpass, os, ray; getpass.getuser(); ray.init(num_cpus=1, include_dashboard=False); print(os.getuid())"

PATIENCE = "RAY_raylet_start_wait_time_s=120"  # as the operator sets it: Ray gives up after 30 s, which busy nodes take


def test_ray_runs_in_the_serving_image_as_any_user(bare_cluster: Any) -> None:
    context = {"runAsUser": USER, "runAsGroup": 0, "runAsNonRoot": True}
    overrides = json.dumps({"spec": {"securityContext": context}})
    bare_cluster.kubectl(
        f"run any-user --image={SERVING} --restart=Never --overrides={shlex.quote(overrides)} --env={PATIENCE} "
        f"--command -- python -c {shlex.quote(PROBE)}"
    )
    try:
        pod = bare_cluster.until(
            lambda: (p := bare_cluster.get("pod any-user"))["status"]["phase"] in ("Succeeded", "Failed") and p,
            "the end of the pod",
            180,
        )
        logs = bare_cluster.kubectl("logs any-user", check=False)
        assert pod["status"]["phase"] == "Succeeded", logs
        assert str(USER) in logs
    finally:
        bare_cluster.kubectl("delete pod any-user --wait=false", check=False)


def test_the_operator_runs_as_any_user(cluster: Any) -> None:
    """All tests of this folder install it as such a user."""
    deployment = cluster.get("deployment tierserve-operator --namespace tierserve-system")
    assert deployment["spec"]["template"]["spec"]["securityContext"]["runAsUser"] == USER
    assert deployment["status"]["readyReplicas"] == 1
