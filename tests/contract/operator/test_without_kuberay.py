"""The operator in a cluster without KubeRay, and what happens when it comes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.apiserver, pytest.mark.helm]
CHART = Path(__file__).resolve().parents[3] / "charts" / "tierserve"
INSTALL = "helm install kuberay-operator"


@pytest.fixture
def alone(
    apiserver: Any, script: Any, make_operator: Any, definitions: Any, tmp_path: Any, eventually: Any
) -> Iterator[Any]:
    """An operator that has never seen a RayService; KubeRay's definitions go first where other tests have left them."""
    for file in script("kube_binaries").kuberay_crds():
        apiserver.delete(f"{definitions}/{yaml.safe_load(file.read_text())['metadata']['name']}")
    eventually(lambda: apiserver.get("/apis/ray.io/v1/rayservices")[0] == 404, "no RayServices are served")
    process = make_operator(tmp_path, apiserver.url, apiserver.certificate, apiserver.token)
    process.start()
    yield process
    process.stop()
    sys.stdout.write(process.log.read_text(errors="replace")[-8000:])


def notes(script: Any, operator: Any) -> str:
    """What helm says at the end of an installation (which the API server only tries)."""
    binary = script("kube_binaries").helm()
    command = [str(binary), "install", "tierserve", str(CHART), "--dry-run=server", "--set", "crds.enabled=false"]
    environment = {**os.environ, "KUBECONFIG": str(operator.kubeconfig)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_condition_names_the_command_that_installs_it_and_goes_when_it_is_there(
    alone, apiserver, space, assistant, script, definitions, eventually
):
    space.create(assistant)
    degraded = eventually(
        lambda: (c := space.condition("assistant", "Degraded")).get("status") == "True" and c, "Degraded"
    )
    assert INSTALL in degraded["message"]
    assert INSTALL in notes(script, alone), "the chart says so, too"
    assert space.get("Deployment", "assistant-gateway"), "what can be made is made"
    for file in script("kube_binaries").kuberay_crds():
        code, reply = apiserver.create(definitions, yaml.safe_load(file.read_text()))
        assert code == 201, reply.get("message")
    eventually(lambda: len(space.names("RayService")) == 3, "a RayService for each pool", 60.0)
    assert INSTALL not in notes(script, alone)
    eventually(lambda: INSTALL not in space.condition("assistant", "Degraded")["message"], "the condition has gone")
