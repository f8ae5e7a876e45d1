"""Fixtures: helm, the chart's objects."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "tierserve"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Raises the timeout of the first test, which may build helm."""
    for item in items:
        if item.get_closest_marker("helm"):
            item.add_marker(pytest.mark.timeout(1500))


@pytest.fixture(scope="session")
def kuberay_crds(request: pytest.FixtureRequest, binaries: ModuleType) -> list[Path]:
    """KubeRay's CRDs."""
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        return list(binaries.kuberay_crds())


@pytest.fixture(scope="session")
def helm(request: pytest.FixtureRequest, binaries: ModuleType) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Function that runs helm, which is built first if it is missing."""
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        binary = binaries.helm()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(binary), *arguments], capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.fixture(scope="session")
def rendered(helm: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., list[dict[str, Any]]]:
    """Function that renders the chart with `--set` values and returns its objects."""

    def render(*values: str) -> list[dict[str, Any]]:
        sets = [part for value in values for part in ("--set", value)]
        done = helm("template", "tierserve", str(CHART), "--namespace", "ops", "--kube-version", "1.34.4", *sets)
        assert done.returncode == 0, done.stderr
        return [one for one in yaml.safe_load_all(done.stdout) if one]

    return render
