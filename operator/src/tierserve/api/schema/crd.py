"""The CustomResourceDefinition, made from the models and the rules.

python -m tierserve.api.schema.crd --write FILE | --check FILE
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from tierserve.api.schema.rules import RULES, Rule
from tierserve.api.schema.structural import Schema, structural
from tierserve.api.v1alpha1.base import SERVICE_NAME_LENGTH, SERVICE_NAME_PATTERN
from tierserve.api.v1alpha1.deployment import GROUP, KIND, PLURAL, VERSION, Spec
from tierserve.api.v1alpha1.status import Status

NOTE = "# Made by `make crds` from operator/src/tierserve/api. Change it there.\n"
COLUMNS = (
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', "Whether the service answers."),
    ("Tiers", "string", ".status.tiers", "Pools ready of all pools."),
    ("Replicas", "integer", ".status.replicas", "Replicas that serve."),
    ("P95", "string", ".status.p95", "Response time seen at the percentile."),
    ("Target", "string", ".spec.objective.responseTime.target", "Response time promised."),
    ("Connections", "integer", ".status.connections", "Requests open at the gateway."),
    ("Age", "date", ".metadata.creationTimestamp", "Time since it was made."),
)


@lru_cache(maxsize=1)
def schema() -> Schema:
    """The structural schema of the whole object, with the rules in their places. Do not change it."""
    name = {"type": "string", "pattern": SERVICE_NAME_PATTERN, "maxLength": SERVICE_NAME_LENGTH}
    whole: Schema = {
        "description": "A generative-AI service over cloud, edge and device tiers.",
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object", "properties": {"name": name}},
            "spec": structural(Spec),
            "status": structural(Status),
        },
    }
    for rule in RULES:
        at(whole, rule.at).setdefault("x-kubernetes-validations", []).append(_validation(rule))
    return whole


def at(whole: Schema, path: str) -> Schema:
    """The node of the schema at a path such as ``spec.tiers[].replicas``."""
    node = whole
    for step in filter(None, path.split(".")):
        node = node["properties"][step.removesuffix("[]")]
        node = node["items"] if step.endswith("[]") else node
    return node


def nodes(whole: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    """(path, node) for each node of a document at a path of the schema, such as ``spec.tiers[].replicas``."""
    found: list[tuple[str, Any]] = [("", whole)]
    for step in filter(None, path.split(".")):
        name = step.removesuffix("[]")
        inside = [(f"{where}.{name}".lstrip("."), node[name]) for where, node in found if name in node]
        found = inside if name == step else [(f"{w}[{i}]", x) for w, items in inside for i, x in enumerate(items)]
    yield from found


def _validation(rule: Rule) -> Schema:
    return {"rule": rule.expression, "message": rule.cel_message, "fieldPath": rule.field_path}


def crd() -> dict[str, Any]:
    """The whole CustomResourceDefinition."""
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            {"name": name, "type": kind, "jsonPath": path, "description": about} for name, kind, path, about in COLUMNS
        ],
        "schema": {"openAPIV3Schema": schema()},
    }
    names = {
        "kind": KIND,
        "listKind": f"{KIND}List",
        "plural": PLURAL,
        "singular": KIND.lower(),
        "shortNames": ["gaid"],
        "categories": ["all"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{PLURAL}.{GROUP}",
            # The chart leaves a CRD of a newer release alone that it does not own.
            "labels": {"app.kubernetes.io/version": metadata.version("tierserve")},
        },
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


class _Plain(yaml.SafeDumper):
    """Writes shared values out in full."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def text() -> str:
    """The file."""
    return NOTE + yaml.dump(crd(), Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True)


def main(arguments: list[str] | None = None) -> int:
    """Write or check the file; 1 when it is stale."""
    parser = argparse.ArgumentParser(prog="python -m tierserve.api.schema.crd", description=__doc__)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--write", type=Path, metavar="FILE")
    group.add_argument("--check", type=Path, metavar="FILE")
    given = parser.parse_args(arguments)
    if given.write:
        given.write.parent.mkdir(parents=True, exist_ok=True)
        given.write.write_text(text(), encoding="utf-8")
        return 0
    if given.check.exists() and given.check.read_text(encoding="utf-8") == text():
        return 0
    print(f"{given.check} is not what the models say\n    run `make crds` and commit the file", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
