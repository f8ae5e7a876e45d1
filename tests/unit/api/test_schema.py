"""The CRD keeps what Kubernetes asks of a structural schema, and what keeps the cost of the rules in bounds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from tierserve.api.presets import ACCELERATORS
from tierserve.api.schema import reference
from tierserve.api.schema.__main__ import main
from tierserve.api.schema.crd import COLUMNS, schema
from tierserve.api.schema.crd import crd as whole_crd
from tierserve.api.schema.rules import RULES
from tierserve.api.v1alpha1.tiers import Preset

ROOT = Path(__file__).resolve().parents[3]
SPEC = schema()["properties"]["spec"]


def nodes(node: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for word in ("items", "additionalProperties"):
        if isinstance(node.get(word), dict):
            yield from nodes(node[word], f"{path}[]")


WHOLE = dict(nodes(schema(), ""))
IN_SPEC = dict(nodes(SPEC, "spec"))


def test_the_file_is_what_the_models_say() -> None:
    assert main(["--check", str(ROOT / "crds/genaideployments.yaml")]) == 0


def test_the_page_of_fields_is_what_the_models_say() -> None:
    assert reference.main(["--check", str(ROOT / "docs/reference.md")]) == 0


def test_a_stale_file_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stale = tmp_path / "crd.yaml"
    assert main(["--check", str(stale)]) == 1
    stale.write_text("{}")
    assert main(["--check", str(stale)]) == 1
    assert "make crds" in capsys.readouterr().err
    assert main(["--write", str(stale)]) == 0
    assert main(["--check", str(stale)]) == 0
    assert yaml.safe_load(stale.read_text()) == whole_crd()


def test_nothing_is_in_it_that_a_structural_schema_forbids() -> None:
    forbidden = {"$ref", "anyOf", "oneOf", "allOf", "const", "title", "exclusiveMinimum", "nullable", "not"}
    assert {path: forbidden & node.keys() for path, node in WHOLE.items() if forbidden & node.keys()} == {}
    assert [path for path, node in WHOLE.items() if node.get("additionalProperties") is False] == []
    untyped = [p for p, n in WHOLE.items() if "type" not in n and "x-kubernetes-int-or-string" not in n]
    assert untyped == []


def test_every_text_and_list_of_the_spec_has_a_bound() -> None:
    texts = [p for p, n in IN_SPEC.items() if n.get("type") == "string" and not {"maxLength", "enum"} & n.keys()]
    lists = [p for p, n in IN_SPEC.items() if n.get("type") == "array" and "maxItems" not in n]
    maps = [p for p, n in IN_SPEC.items() if "additionalProperties" in n and "maxProperties" not in n]
    assert (texts, lists, maps) == ([], [], [])


def test_every_field_has_a_description() -> None:
    undescribed = [p for p, n in IN_SPEC.items() if not p.endswith("[]") and not n.get("description", "").endswith(".")]
    assert undescribed == []


def test_named_lists_are_maps_by_name_and_lists_of_names_are_sets() -> None:
    kinds = {path: node["x-kubernetes-list-type"] for path, node in IN_SPEC.items() if node.get("type") == "array"}
    assert kinds["spec.models"] == kinds["spec.tiers"] == kinds["spec.traffic"] == "map"
    assert kinds["spec.routing.overflow"] == kinds["spec.tiers[].models"] == "set"
    assert kinds["spec.tiers[].placement.tolerations"] == "atomic"


def test_the_presets_of_the_schema_are_those_of_the_table() -> None:
    assert sorted(get_args(Preset)) == sorted(ACCELERATORS)


def test_the_columns_are_those_users_know() -> None:
    names = [name for name, *_ in COLUMNS]
    assert names == ["Ready", "Tiers", "Replicas", "P95", "Target", "Connections", "Download", "Age"]


def test_rules_have_unique_names_a_message_and_a_hint() -> None:
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)
    assert all(rule.message and rule.hint and rule.field for rule in RULES)
    assert all(len(rule.cel_message) < 2048 and "\n" not in rule.cel_message for rule in RULES)
