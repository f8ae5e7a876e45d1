"""Validation of a document as by the API server: structural schema, CEL rules, then the models."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from tierserve.api.errors import Problem
from tierserve.api.schema import cel, openapi
from tierserve.api.schema.crd import at, nodes, schema
from tierserve.api.schema.rules import RULES, Rule
from tierserve.api.v1alpha1.deployment import API_VERSION, KIND, GenAIDeployment


def validated(document: Any) -> tuple[GenAIDeployment | None, list[Problem]]:
    """Validate a document: the object with defaults, or None and all errors."""
    problems = list(_check_head(document))
    if problems:
        return None, problems
    whole = with_defaults(document)
    problems = [*_check_name(whole), *openapi.check(whole, _checked_schema())]
    if not problems:
        problems = list(violated_rules(whole))
    if problems:
        return None, problems
    try:
        return GenAIDeployment.model_validate(whole), []
    except ValidationError as error:
        return None, [_from_pydantic(one) for one in error.errors()]


def with_defaults(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document as the API server stores it: without nulls and with defaults."""
    whole: dict[str, Any] = openapi.with_defaults(document, schema())
    return whole


def _checked_schema() -> dict[str, Any]:
    """The schema with any field in metadata, since the CRD does not declare the standard ones."""
    whole = schema()
    metadata = {**whole["properties"]["metadata"], "x-kubernetes-preserve-unknown-fields": True}
    return {**whole, "properties": {**whole["properties"], "metadata": metadata}}


def _check_head(document: Any) -> Iterator[Problem]:
    if not isinstance(document, Mapping):
        yield Problem("", "must be a mapping", "set apiVersion, kind, metadata and spec", document)
        return
    for field, value in (("apiVersion", API_VERSION), ("kind", KIND)):
        if document.get(field) is None:
            yield Problem(field, "is required", f"set {field}: {value}")
        elif document[field] != value:
            yield Problem(field, f"must be {value}", f"set {field}: {value}", document[field])


def _check_name(whole: Mapping[str, Any]) -> Iterator[Problem]:
    metadata = whole.get("metadata")
    if metadata is None or (isinstance(metadata, Mapping) and not metadata.get("name")):
        yield Problem("metadata.name", "is required", "set a name, e.g. assistant")


def violated_rules(whole: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the rules that a document violates, each with field and values."""
    for rule in RULES:
        for path, node in nodes(whole, rule.at):
            yield from _evaluate(rule, path, node)


def _evaluate(rule: Rule, path: str, node: Any) -> Iterator[Problem]:
    scope = {"self": cel.typed(node, at(schema(), rule.at))}
    try:
        if not cel.evaluate(rule.expression, scope):
            for bound, indices in _violations(rule, scope):
                field = _numbered(rule.field, indices)
                message = interpolated(rule.detail or rule.message, bound)
                yield Problem(f"{path}.{field}".strip("."), message, rule.hint, _lookup(node, field))
    except ValueError as error:
        yield Problem(f"{path}.{rule.field}".strip("."), f"cannot be evaluated: {error}", rule.hint)


def _violations(rule: Rule, scope: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, int]]]:
    """The variables and indices for which `must` is false; of an inner list only the first for each outer element."""
    if not rule.each:
        yield scope, {}
        return
    (variable, items), *inner = rule.each
    for index, item in enumerate(cel.evaluate(items, scope)):
        bound = {**scope, variable: item}
        if inner:
            (second, others) = inner[0]
            pairs = [(i, {**bound, second: x}) for i, x in enumerate(cel.evaluate(others, bound))]
            hits = [(b, {variable: index, second: i}) for i, b in pairs if not cel.evaluate(rule.must, b)]
            yield from hits[:1]
        elif not cel.evaluate(rule.must, bound):
            yield bound, {variable: index}


def _numbered(field: str, indices: Mapping[str, int]) -> str:
    return re.sub(r"\[(\w+)\]", lambda match: f"[{indices[match.group(1)]}]", field)


def _lookup(node: Any, field: str) -> Any:
    for step in re.findall(r"\w+", field):
        if isinstance(node, list):
            node = node[int(step)]
        elif step in node:
            node = node[step]
        else:
            return None
    return node if isinstance(node, str | int | float) else None


def interpolated(template: str, scope: Mapping[str, Any]) -> str:
    """Replace each ``{CEL}`` of a template by its value; braces may nest inside the CEL."""
    done, depth, start = "", 0, 0
    for position, letter in enumerate(template):
        if letter == "{":
            depth += 1
            start = position + 1 if depth == 1 else start
        elif letter == "}":
            depth -= 1
            done += _shown(cel.evaluate(template[start:position], scope)) if depth == 0 else ""
        elif depth == 0:
            done += letter
    return done


def _shown(value: Any) -> str:
    return f"{float(value):g}" if isinstance(value, float) else str(value)


def _from_pydantic(error: Any) -> Problem:
    path = ""
    for step in error["loc"]:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    return Problem(path.lstrip("."), error["msg"], "see docs/reference.md", error.get("input"))
