"""CEL evaluation as in the API server: its types, and the Kubernetes functions that the rules use.

celpy implements the language but not Kubernetes' libraries; `duration` is replaced because celpy's is limited to
microseconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import celpy
from celpy import celtypes

from tierserve.api.units import Duration, Quantity

Schema = Mapping[str, Any]


def _quantity(text: Any) -> Any:
    return celtypes.StringType(text)


def _as_float(text: Any) -> Any:
    return celtypes.DoubleType(Quantity(str(text)).value)


def _duration(text: Any) -> Any:
    return celtypes.DoubleType(Duration(str(text)).value)


def _replace(text: Any, old: Any, new: Any) -> Any:
    return celtypes.StringType(str(text).replace(str(old), str(new)))


def _sum(numbers: Any) -> Any:
    return celtypes.DoubleType(math.fsum(numbers))


def _join(texts: Any, between: Any) -> Any:
    return celtypes.StringType(str(between).join(str(text) for text in texts))


def _as_gi(number: Any) -> Any:
    """For messages only: not a function of Kubernetes."""
    return celtypes.StringType(f"{float(number) / 2**30:.4g}Gi")


FUNCTIONS: dict[str, Any] = {
    "quantity": _quantity,
    "asApproximateFloat": _as_float,
    "duration": _duration,
    "replace": _replace,
    "sum": _sum,
    "join": _join,
    "asGi": _as_gi,
}


@lru_cache(maxsize=512)
def _program(expression: str) -> Any:
    environment = celpy.Environment()
    return environment.program(environment.compile(expression), functions=FUNCTIONS)


def evaluate(expression: str, variables: Mapping[str, Any]) -> Any:
    """The value of an expression; a CEL error raises ValueError: the API server would reject the object too."""
    outcome = _program(expression).evaluate(dict(variables))
    if isinstance(outcome, celpy.CELEvalError):
        raise ValueError(str(outcome))
    return outcome


def typed(value: Any, schema: Schema) -> Any:
    """A JSON value as a CEL value of the type in the schema: 1 is a double if the schema type is number."""
    kind = schema.get("type")
    if kind == "number":
        return celtypes.DoubleType(value)
    if kind == "integer":
        return celtypes.IntType(int(value))
    if kind == "array":
        return celtypes.ListType([typed(item, schema["items"]) for item in value])
    if isinstance(value, Mapping):
        return celtypes.MapType(
            {celtypes.StringType(key): typed(child, _child(schema, key)) for key, child in value.items()}
        )
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return celpy.json_to_cel(value)


def _child(schema: Schema, key: str) -> Schema:
    child = schema.get("properties", {}).get(key, schema.get("additionalProperties", {}))
    return child if isinstance(child, Mapping) else {}
