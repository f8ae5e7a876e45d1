"""Converts pydantic models to a structural schema of Kubernetes: no references, no null, all bounds kept."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]
KEPT = (
    "type",
    "description",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "maxProperties",
    "required",
    "x-kubernetes-int-or-string",
)
LIST_KEYS = ("name", "type", "pool")


def structural(model: type[BaseModel]) -> Schema:
    """The structural schema of a model, by alias."""
    whole = model.model_json_schema(by_alias=True, mode="validation")
    return _node(whole, whole.get("$defs", {}))


def _node(source: Schema, defs: dict[str, Schema]) -> Schema:
    source = _resolved(source, defs)
    node = {key: source[key] for key in KEPT if key in source}
    if "const" in source:
        node["enum"] = [source["const"]]
    if source.get("type") == "array":
        _add_items(node, source, defs)
    elif source.get("type") == "object":
        _add_properties(node, source, defs)
    _add_default(node, source.get("default"))
    return dict(sorted(node.items()))


def _resolved(source: Schema, defs: dict[str, Schema]) -> Schema:
    """Resolve $ref and remove the null of `T | None`; keywords beside a reference take precedence over its target."""
    beside = {key: value for key, value in source.items() if key not in {"$ref", "anyOf"}}
    if "$ref" in source:
        return {**_resolved(defs[source["$ref"].rpartition("/")[2]], defs), **beside}
    if "anyOf" in source:
        (only,) = (option for option in source["anyOf"] if option.get("type") != "null")
        return {**_resolved(only, defs), **beside}
    return source


def _add_items(node: Schema, source: Schema, defs: dict[str, Schema]) -> None:
    items = node["items"] = _node(source["items"], defs)
    key = next((key for key in LIST_KEYS if key in items.get("required", ())), None)
    if "x-kubernetes-list-type" in source:
        node["x-kubernetes-list-type"] = source["x-kubernetes-list-type"]
    elif items["type"] == "string":
        node["x-kubernetes-list-type"] = "set"
    elif key:
        node |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
    else:
        node["x-kubernetes-list-type"] = "atomic"


def _add_properties(node: Schema, source: Schema, defs: dict[str, Schema]) -> None:
    if "properties" in source:
        node["properties"] = {name: _node(child, defs) for name, child in source["properties"].items()}
        if source.get("additionalProperties") is True:
            node["x-kubernetes-preserve-unknown-fields"] = True
    elif isinstance(source.get("additionalProperties"), dict):
        node["additionalProperties"] = _node(source["additionalProperties"], defs)
    else:
        node["x-kubernetes-preserve-unknown-fields"] = True


def _add_default(node: Schema, default: Any) -> None:
    """Objects default to {} when something inside them has a default: the API server fills in the rest."""
    if node.get("type") == "object":
        if default is not None and any("default" in child for child in node.get("properties", {}).values()):
            node["default"] = {}
    elif default not in (None, [], ""):
        node["default"] = _plain(default)


def _plain(value: Any) -> Any:
    """Remove nulls, and write integral floats as integers."""
    if isinstance(value, dict):
        return {key: _plain(child) for key, child in value.items() if child is not None}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
