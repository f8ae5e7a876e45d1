"""The page docs/reference.md, made from the schema, the presets, the rules and the table of unused fields.

`python -m tierserve.api.schema.reference --write FILE` writes it; `--check FILE` fails when it is stale.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tierserve.api.presets import ACCELERATORS, TIERS, AcceleratorPreset, TierPreset
from tierserve.api.schema.crd import schema
from tierserve.api.schema.openapi import EXAMPLES
from tierserve.api.schema.rules import RULES
from tierserve.api.schema.unused import UNUSED

INTRODUCTION = """\
# Reference: the fields of a GenAIDeployment

Made by `python -m tierserve.api.schema.reference` from the models; do not edit. The same definition is
`crds/genaideployments.yaml` for the API server. `tierserve validate FILE` gives the verdicts of the API server and
those of the planner, each with the field, the value and what to do about it.

Units: bytes as Kubernetes quantities (`16Gi`, `1.5G`), durations as in Go (`800ms`, `2m30s`), plain numbers with an
SI suffix (`13.1G`), bit rates (`10Gbit`), power (`400W`), masses (`3kg`). A name has lower-case letters, digits and
dashes, at most 40 of them; `metadata.name` begins with a letter. A model has the name by which clients ask for it, as
hubs write it (`qwen2.5-7b`, `org/Name-8B`), at most 96 characters.
"""
ABOUT_PRESETS = """\
## Presets

Accelerators (`accelerator.preset`); prices per hour are round list prices, to be overridden.

| preset | memory | FLOP/s | bandwidth | idle, max | price |
|---|---|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    spec = schema()["properties"]["spec"]
    sections = ["".join(_section(name, node)) for name, node in spec["properties"].items()]
    return "\n".join([INTRODUCTION, *sections, "".join(_presets()), "".join(_rules()), "".join(_unused())])


def _section(name: str, node: dict[str, Any]) -> Iterator[str]:
    yield f"## spec.{name}\n\n{node['description']}\n\n| field | type | default | what it says |\n|---|---|---|---|\n"
    for path, field in _fields(node, name if node["type"] != "array" else f"{name}[]"):
        words = " ".join([field.get("description", ""), *_bounds(field)])
        yield f"| `{path}` | {_type(field)} | {_default(field)} | {words} |\n"


def _fields(node: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    inner = node.get("items", node)
    if "properties" not in inner:
        yield path, node
    required = inner.get("required", ())
    for name, child in inner.get("properties", {}).items():
        field = {**child, "required": name in required}
        deeper = child.get("items", child)
        if "properties" in deeper:
            yield from _fields(child, f"{path}.{name}" + ("[]" if "items" in child else ""))
        else:
            yield f"{path}.{name}", field


def _type(field: dict[str, Any]) -> str:
    if "enum" in field:
        return ", ".join(f"`{one}`" for one in field["enum"])
    if field.get("type") == "array":
        return "list of names"
    if field.get("type") == "object":
        return "map of texts"
    known = EXAMPLES.get(field.get("pattern", ""), "")
    return known.partition(" such as ")[0].partition(" of lower")[0].removeprefix("a ") or str(field.get("type", ""))


def _default(field: dict[str, Any]) -> str:
    if field.get("required") is True:
        return "required"
    value = field.get("default")
    return "" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _bounds(field: dict[str, Any]) -> Iterator[str]:
    if field.get("type") in {"integer", "number"}:
        least, most = field.get("minimum"), field.get("maximum")
        if least is not None and most is not None:
            yield f"From {least} to {most}."
        elif least is not None:
            yield f"At least {least}."


def _presets() -> Iterator[str]:
    yield ABOUT_PRESETS
    yield from (_accelerator(name, preset) for name, preset in ACCELERATORS.items())
    yield "\nKinds of tier (Wang et al. 2023, Table 2), for what a tier leaves out.\n\n"
    yield "| kind | memory | round trip | connections | replicas.max | up, down |\n|---|---|---|---|---|---|\n"
    yield from (_tier(preset) for preset in TIERS.values())


def _accelerator(name: str, preset: AcceleratorPreset) -> str:
    figures = f"{preset.bandwidth / 1e9:g} GB/s | {preset.idle_w:g} W, {preset.max_w:g} W | {preset.price:g}"
    return f"| `{name}` | {preset.memory} | {preset.flops} | {figures} |\n"


def _tier(preset: TierPreset) -> str:
    network = f"{preset.uplink_bps / 1e9:g} Gbit, {preset.downlink_bps / 1e9:g} Gbit"
    size = f"{preset.memory_bytes / 1e9:g} GB | {preset.rtt_s * 1e3:g} ms | {preset.connections}"
    return f"| `{preset.kind}` | {size} | {preset.max_replicas} | {network} |\n"


def _rules() -> Iterator[str]:
    yield "\n## Rules between fields\n\nChecked by the API server and by `tierserve validate` alike.\n\n"
    yield "| where | what is refused | what to do |\n|---|---|---|\n"
    for rule in RULES:
        where = ".".join(part for part in (rule.at, rule.field.replace("[m]", "[]").replace("[t]", "[]")) if part)
        yield f"| `{where.replace('[c]', '[]')}` | {rule.message} | {rule.hint} |\n"


def _unused() -> Iterator[str]:
    yield "\n## Fields that not every command acts on\n\nNamed by `tierserve validate` and the condition Accepted.\n\n"
    yield "| field | why |\n|---|---|\n"
    for unused in UNUSED:
        yield f"| `{unused.path}` | {unused.why} |\n"


def main(arguments: list[str] | None = None) -> int:
    """Write or check the file; 1 when it is stale."""
    parser = argparse.ArgumentParser(prog="python -m tierserve.api.schema.reference")
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--write", type=Path, metavar="FILE")
    group.add_argument("--check", type=Path, metavar="FILE")
    given = parser.parse_args(arguments)
    if given.write:
        given.write.write_text(page(), encoding="utf-8")
        return 0
    if given.check.exists() and given.check.read_text(encoding="utf-8") == page():
        return 0
    print(
        f"{given.check} is stale\n    run python -m tierserve.api.schema.reference --write {given.check}",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
