"""YAML as Kubernetes' tools read it, with the line of each field."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from tierserve.api.errors import Problem, ValidationFailed


class Loader(yaml.SafeLoader):
    """PyYAML without dates and base-60 numbers, with 1e9 as a number, and with an error for a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that is there twice."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                mark = key.start_mark.line + 1
                problem = Problem(key.value, "is there twice in one mapping", "leave one out", line=mark)
                raise ValidationFailed([problem])
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_DROPPED = {"tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:float", "tag:yaml.org,2002:int"}
Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag not in _DROPPED]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^(?:[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+)$"),
    list("-+0123456789"),
)
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def documents(text: str) -> list[tuple[Any, dict[str, int]]]:
    """Each document with the line (from 1) of each field path; raises ValidationFailed for what is not YAML."""
    try:
        nodes = [node for node in yaml.compose_all(text, Loader) if node is not None]
        values = [value for value in yaml.load_all(text, Loader) if value is not None]
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise ValidationFailed([Problem("", f"is not YAML: {error.problem}", "fix the line", line=line)]) from error
    except (yaml.YAMLError, ValueError) as error:
        raise ValidationFailed([Problem("", f"is not YAML: {error}", "fix the file")]) from error
    return [(value, dict(_lines(node, ""))) for value, node in zip(values, nodes, strict=False)]


def _lines(node: yaml.Node, path: str) -> Iterator[tuple[str, int]]:
    yield path, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            inner = f"{path}.{key.value}".lstrip(".")
            yield from _lines(child, inner)
            yield inner, key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for number, child in enumerate(node.value):
            yield from _lines(child, f"{path}[{number}]")


def line_of(path: str, lines: dict[str, int]) -> int | None:
    """The line of a field, or of the nearest thing around it that is written."""
    ends = [match.start() for match in re.finditer(r"[.\[]", path)]
    around = (path[:end] for end in [len(path), *reversed(ends), 0])
    return next((lines[one] for one in around if one in lines), None)
