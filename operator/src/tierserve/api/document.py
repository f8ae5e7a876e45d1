"""A deployment as a plain document, and the ways through it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from tierserve.api.units import Unit
from tierserve.api.v1alpha1.deployment import GenAIDeployment


def nodes(whole: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    """(path, node) for each node of a document at a path of the schema, such as ``spec.tiers[].replicas``."""
    found: list[tuple[str, Any]] = [("", whole)]
    for step in filter(None, path.split(".")):
        name = step.removesuffix("[]")
        inside = [(f"{where}.{name}".lstrip("."), node[name]) for where, node in found if name in node]
        found = inside if name == step else [(f"{w}[{i}]", x) for w, items in inside for i, x in enumerate(items)]
    yield from found


def to_document(gaid: GenAIDeployment) -> dict[str, Any]:
    """The object as the API server would give it back: all defaults, no nulls, nothing empty."""
    return _fields_of(gaid)


def _fields_of(part: BaseModel) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        plain = _plain(value)
        # An optional part that is there though empty says something; an empty list, or a part by default, does not.
        if plain is not None and (plain not in ({}, []) or (isinstance(value, BaseModel) and field.default is None)):
            found[field.alias or name] = plain
    return found | (part.model_extra or {})


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return _fields_of(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Unit):
        return str(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value
