"""kind-config.yaml is read as kind reads it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "scripts"))

from host_cluster import kind_config, node  # noqa: E402


def test_nodes_have_the_names_that_kind_gives_and_the_labels_and_taints_of_the_file() -> None:
    spec = kind_config.read(ROOT / "kind-config.yaml")
    assert [n.name for n in spec.nodes] == [
        "tierserve-control-plane", "tierserve-worker", "tierserve-worker2", "tierserve-worker3", "tierserve-worker4",
    ]  # fmt: skip
    assert spec.nodes[0].taints == ()
    tiers = [n.labels.get("tierserve.io/tier") for n in spec.nodes[1:]]
    assert tiers == ["cloud", "edge", "edge", "device"]
    assert [n.labels.get("tierserve.io/site") for n in spec.nodes[2:4]] == ["berlin", "munich"]
    for one in spec.nodes[1:]:
        tier = one.labels["tierserve.io/tier"]
        assert one.taints == ({"key": "tierserve.io/tier", "value": tier, "effect": "NoSchedule"},)


def test_networks_of_nodes_do_not_meet() -> None:
    spec = kind_config.read(ROOT / "kind-config.yaml")
    assert len({n.pods for n in spec.nodes} | {n.address for n in spec.nodes}) == 2 * len(spec.nodes)
    assert spec.host == "10.244.0.1"
    assert spec.dns == "10.96.0.10"


def test_the_control_plane_is_tainted_by_default(tmp_path: Path) -> None:
    file = tmp_path / "kind.yaml"
    file.write_text("kind: Cluster\nnodes: [{role: control-plane}, {role: worker}]\n")
    spec = kind_config.read(file)
    assert spec.nodes[0].taints == (kind_config.CONTROL_PLANE_TAINT,)
    file.write_text("kind: Cluster\n")
    assert kind_config.read(file).nodes[0].taints == ()
    assert kind_config.read(file).name == "kind"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kind: Pod\n", "its kind must be Cluster"),
        ("{", "expected"),
        ("kind: Cluster\nnodes: [{role: worker}]\n", "must be the control-plane"),
        ("kind: Cluster\nnodes: [{role: control-plane}, {role: control-plane}]\n", "must be the control-plane"),
    ],
)
def test_an_invalid_file_is_rejected_with_a_hint(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "kind.yaml"
    file.write_text(text)
    with pytest.raises(SystemExit, match=says):
        kind_config.read(file)


def test_each_containerd_has_a_root_and_a_socket_of_its_own() -> None:
    first, second = (node.containerd_config(Path("/x") / name, Path("/cni")) for name in "ab")
    assert 'root = "/x/a/containerd"' in first
    assert 'address = "/x/b/containerd.sock"' in second
    assert "restrict_oom_score_adj = true" in first
