"""Defaulting and validation by a structural schema, as in the API server: nulls, defaults, types and bounds."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tierserve.api.carbon_series import SERIES_PATTERN
from tierserve.api.errors import Problem
from tierserve.api.units import Amount, BitRate, Duration, Mass, Power, Quantity
from tierserve.api.v1alpha1.base import MODEL_NAME_PATTERN, NAME_PATTERN, SERVICE_NAME_PATTERN, SUBDOMAIN_PATTERN
from tierserve.api.v1alpha1.models import SOURCE_PATTERN
from tierserve.api.v1alpha1.pod_template import RESOURCE_QUANTITY_PATTERN
from tierserve.api.v1alpha1.tiers import RESOURCE_PATTERN

Schema = Mapping[str, Any]
EXAMPLES = {unit.pattern: unit.example for unit in (Quantity, Amount, Duration, BitRate, Power, Mass)} | {
    NAME_PATTERN: "a name of lower-case letters, digits and dashes",
    SERVICE_NAME_PATTERN: "a name of lower-case letters, digits and dashes that begins with a letter",
    SUBDOMAIN_PATTERN: "a name of lower-case letters, digits, dashes and dots",
    MODEL_NAME_PATTERN: "a model's name such as large, qwen2.5-7b or org/Name-8B",
    SERIES_PATTERN: "lines of a time (HH:MM, or RFC 3339 in all lines), a comma and gCO2e/kWh, such as 06:30,210",
    RESOURCE_PATTERN: "the name of an extended resource such as nvidia.com/gpu",
    RESOURCE_QUANTITY_PATTERN: "a resource quantity such as 500m, 2 or 16Gi",
    SOURCE_PATTERN: "a source such as hf://org/model, s3://, gs://, oci://, pvc://, file:// or pypi://package",
}


def _is_integer(value: object) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, float) and value.is_integer())


TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": _is_integer,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, Mapping),
}
# Former fields and values, each with its replacement.
FORMER = {
    "spec.tiers[].replicas.idle": "renamed: use scaleToZeroAfter",
    "spec.tiers[].replicas.standby": "removed: replicas for bursts are kept by what arrivals needed",
    "spec.gateway.queueOrder: deadline": "renamed: use adaptiveLIFO",
    "spec.objective.optimize.mode: False": 'YAML reads off without quotes as false: write "off", or leave it out',
    **{
        f"spec.objective.optimize: {by}": f"write optimize: {{by: {by}}}"
        for by in ("cost", "energy", "carbon", "latency")
    },
} | dict.fromkeys(
    (
        "spec.cache",
        "spec.pipeline",
        "spec.sync",
        "spec.guard",
        "spec.routing.privacy",
        "spec.tiers[].accelerator.type",
        "spec.gateway.auth",
        "spec.gateway.rateLimits",
        "spec.gateway.tls.mutual",
    ),
    "remove it; the feature is not supported in this version",
)
WORDS = {"array": "a list", "object": "a mapping", "integer": "an integer", "string": "a string"}


def with_defaults(value: Any, schema: Schema) -> Any:
    """A copy without nulls and with defaults, at all depths."""
    if isinstance(value, Mapping):
        present = {key: child for key, child in value.items() if child is not None}
        for name, child in schema.get("properties", {}).items():
            if name not in present and "default" in child:
                present[name] = copy.deepcopy(child["default"])
        return {key: with_defaults(child, _child(schema, key)) for key, child in present.items()}
    if isinstance(value, list):
        return [with_defaults(item, schema.get("items", {})) for item in value]
    return value


def _child(schema: Schema, key: str) -> Schema:
    child = schema.get("properties", {}).get(key, schema.get("additionalProperties", {}))
    return child if isinstance(child, Mapping) else {}


def check(value: Any, schema: Schema, path: str = "") -> Iterator[Problem]:
    """Yield all violations of `schema` by `value`, including unknown fields."""
    if schema.get("x-kubernetes-int-or-string"):
        if not isinstance(value, str) and not _is_integer(value):
            yield _wrong(path, value, f"must be {_example(schema)}", _hint(schema))
            return
    elif "type" in schema and not TYPES[schema["type"]](value):
        word = WORDS.get(schema["type"], f"a {schema['type']}")
        example = _example(schema) if schema["type"] == "string" and "pattern" in schema else word
        yield _wrong(path, value, f"must be {example}", _former(f"{path}: {value}") or f"use {example}")
        return
    yield from _check_scalar(value, schema, path)
    if isinstance(value, Mapping):
        yield from _check_mapping(value, schema, path)
    elif isinstance(value, list):
        yield from _check_list(value, schema, path)


def _wrong(path: str, value: object, message: str, hint: str) -> Problem:
    return Problem(path, message, hint, value)


def _example(schema: Schema) -> str:
    return EXAMPLES.get(schema.get("pattern", ""), f"a string that matches {schema.get('pattern', '')}")


def _hint(schema: Schema) -> str:
    return f"use {_example(schema)}"


def _check_scalar(value: Any, schema: Schema, path: str) -> Iterator[Problem]:
    if "enum" in schema and value not in schema["enum"]:
        options = [str(option) for option in schema["enum"]]
        hint = _former(f"{path}: {value}") or _closest(str(value), options) or f"use {' or '.join(options)}"
        yield _wrong(path, value, f"must be one of {', '.join(options)}", hint)
    if isinstance(value, str):
        yield from _check_text(value, schema, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from _check_number(value, schema, path)


def _check_text(value: str, schema: Schema, path: str) -> Iterator[Problem]:
    if len(value) > schema.get("maxLength", len(value)):
        yield _wrong(path, value, f"must have at most {schema['maxLength']} characters", "shorten it")
    elif len(value) < schema.get("minLength", 0):
        yield _wrong(path, value, "must not be empty", _hint(schema))
    elif "pattern" in schema and not re.fullmatch(schema["pattern"].removeprefix("^").removesuffix("$"), value):
        yield _wrong(path, value, f"must be {_example(schema)}", _hint(schema))


def _check_number(value: float, schema: Schema, path: str) -> Iterator[Problem]:
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and value < least:
        yield _wrong(path, value, f"must be at least {least}", f"use at least {least}")
    if most is not None and value > most:
        yield _wrong(path, value, f"must be at most {most}", f"use at most {most}")


def _check_mapping(value: Mapping[str, Any], schema: Schema, path: str) -> Iterator[Problem]:
    properties = schema.get("properties", {})
    if len(value) > schema.get("maxProperties", len(value)):
        yield _wrong(path, None, f"must have at most {schema['maxProperties']} entries", "remove some")
    for name in schema.get("required", ()):
        if name not in value:
            about = properties[name].get("description", "")
            yield _wrong(_join(path, name), None, "is required", f"add it. {about}".strip())
    for name, child in value.items():
        if name in properties or "additionalProperties" in schema:
            yield from check(child, _child(schema, name), _join(path, name))
        elif properties and not schema.get("x-kubernetes-preserve-unknown-fields"):
            field = _join(path, str(name))
            hint = (
                _former(field)
                or _closest(str(name), list(properties))
                or f"the known fields are {', '.join(properties)}"
            )
            yield _wrong(field, None, "is not a known field", hint)


def _former(field: str) -> str | None:
    return FORMER.get(re.sub(r"\[\d+\]", "[]", field))


def _closest(given: str, options: Sequence[str]) -> str | None:
    close = difflib.get_close_matches(given, options, 1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else None


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _check_list(value: Sequence[Any], schema: Schema, path: str) -> Iterator[Problem]:
    least, most = schema.get("minItems", 0), schema.get("maxItems", len(value))
    if len(value) < least:
        yield _wrong(path, None, f"must have at least {least} elements", "add one")
    if len(value) > most:
        yield _wrong(path, None, f"must have at most {most} elements", "remove some")
    for number, item in enumerate(value):
        yield from check(item, schema["items"], f"{path}[{number}]")
    yield from _check_unique(value, schema, path)


def _check_unique(value: Sequence[Any], schema: Schema, path: str) -> Iterator[Problem]:
    keys = schema.get("x-kubernetes-list-map-keys", ())
    if not keys and schema.get("x-kubernetes-list-type") != "set":
        return
    seen: set[str] = set()
    for number, item in enumerate(value):
        key = repr([item.get(k) for k in keys] if isinstance(item, Mapping) else item)
        if key in seen:
            where = f"{path}[{number}]" + (f".{keys[0]}" if keys else "")
            shown = item.get(keys[0]) if keys and isinstance(item, Mapping) else item
            yield _wrong(where, shown, "must be unique", "remove or rename one")
        seen.add(key)
