"""A parent chart with TierServe as an optional dependency."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.helm]
CHART = Path(__file__).resolve().parents[2] / "charts" / "tierserve"
Render = Callable[..., dict[tuple[str, str], dict[str, Any]]]


@pytest.fixture(scope="module")
def umbrella(tmp_path_factory: pytest.TempPathFactory, helm: Any) -> Render:
    """Function that renders the parent chart with given values; objects by kind and name."""
    chart = tmp_path_factory.mktemp("umbrella") / "platform"
    chart.mkdir()
    dependency = {
        "name": "tierserve", "version": ">=0.0.0-0", "repository": f"file://{CHART}", "condition": "tierserve.enabled"
    }  # fmt: skip
    about = {"apiVersion": "v2", "name": "platform", "version": "0.1.0", "dependencies": [dependency]}
    (chart / "Chart.yaml").write_text(yaml.safe_dump(about))
    (chart / "values.yaml").write_text(yaml.safe_dump({"tierserve": {"enabled": True}}))
    done = helm("dependency", "update", str(chart))
    assert done.returncode == 0, done.stderr

    def render(values: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
        file = chart.parent / "values.yaml"
        file.write_text(yaml.safe_dump(values))
        done = helm("template", "x", str(chart), "--kube-version", "1.34.4", "--values", str(file))
        assert done.returncode == 0, done.stderr
        objects = yaml.load_all(done.stdout, yaml.CSafeLoader)
        return {(one["kind"], one["metadata"]["name"]): one for one in objects if one}

    return render


def test_it_is_rendered_if_enabled(umbrella):
    found = umbrella({})
    assert ("Deployment", "x-tierserve-operator") in found
    assert ("CustomResourceDefinition", "genaideployments.serving.tierserve.io") in found


def test_nothing_is_rendered_if_disabled(umbrella):
    assert umbrella({"tierserve": {"enabled": False}}) == {}


@pytest.mark.parametrize("secret", [{"name": "registry"}, "registry"])
def test_global_values_are_used(umbrella, secret):
    found = umbrella({"global": {"imagePullSecrets": [secret], "imageRegistry": "registry.example"}})
    pod = found["Deployment", "x-tierserve-operator"]["spec"]["template"]["spec"]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]


def test_values_of_the_parent_chart_are_used(umbrella):
    found = umbrella({"tierserve": {"fullnameOverride": "ts", "watchNamespaces": ["red"]}})
    assert ("Role", "ts-default") in found
