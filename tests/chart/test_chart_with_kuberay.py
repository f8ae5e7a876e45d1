"""The chart with KubeRay as a dependency. Tests do not download KubeRay's chart: its CRDs are used in its place."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.helm]
ROOT = Path(__file__).resolve().parents[2]
KUBERAY = "kuberay-operator"


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory, helm: Any, kuberay_crds: list[Path]) -> Path:
    """The chart with its dependencies, as after `helm dependency build`."""
    charts = Path(shutil.copytree(ROOT / "charts", tmp_path_factory.mktemp("charts"), dirs_exist_ok=True))
    stand_in = charts / KUBERAY
    (stand_in / "crds").mkdir(parents=True)
    for file in kuberay_crds:
        shutil.copy(file, stand_in / "crds")
    about = {"apiVersion": "v2", "name": KUBERAY, "version": "1.6.1", "type": "application"}
    (stand_in / "Chart.yaml").write_text(yaml.safe_dump(about))
    (stand_in / "templates").mkdir()
    (stand_in / "templates" / "one.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kuberay}\ndata: {replicas: '{{ .Values.replicas }}'}\n"
    )
    both = charts / "tierserve-with-kuberay"
    about = yaml.safe_load((both / "Chart.yaml").read_text())
    about["dependencies"][1]["repository"] = f"file://../{KUBERAY}"
    (both / "Chart.yaml").write_text(yaml.safe_dump(about))
    done = helm("dependency", "update", str(both))
    assert done.returncode == 0, done.stderr
    return both


def _kinds(helm: Any, chart: Path, *values: str) -> dict[tuple[str, str], dict[str, Any]]:
    sets = [part for value in values for part in ("--set", value)]
    done = helm("template", "tierserve", str(chart), "--include-crds", "--kube-version", "1.34.4", *sets)
    assert done.returncode == 0, done.stderr
    objects = yaml.load_all(done.stdout, yaml.CSafeLoader)  # libyaml: these CRDs take Python's own loader half a minute
    return {(one["kind"], one["metadata"]["name"]): one for one in objects if one}


def test_both_are_in_one_release_and_values_reach_each(helm, chart):
    found = _kinds(helm, chart, "tierserve.logFormat=text", f"{KUBERAY}.replicas=2")
    assert ("CustomResourceDefinition", "rayservices.ray.io") in found
    assert ("CustomResourceDefinition", "genaideployments.serving.tierserve.io") in found
    assert found["ConfigMap", "kuberay"]["data"] == {"replicas": "2"}
    assert "text" in str(found["Deployment", "tierserve-operator"])


def test_with_kuberay_disabled_only_tierserve_is_installed(helm, chart):
    found = _kinds(helm, chart, f"{KUBERAY}.enabled=false")
    assert ("Deployment", "tierserve-operator") in found
    assert not [name for kind, name in found if name.endswith("ray.io") or name == "kuberay"]


def test_the_versions_of_both_charts_fit():
    about = yaml.safe_load((ROOT / "charts" / "tierserve-with-kuberay" / "Chart.yaml").read_text())
    ours = yaml.safe_load((ROOT / "charts" / "tierserve" / "Chart.yaml").read_text())
    assert about["dependencies"][0]["version"] == ours["version"] == about["version"]
