"""YAML parser with kubectl's rules and the line of each field; content that JSON does not support is rejected.

The node graph of a document is checked before values are constructed: aliases take no space in the graph, so a file of
500 bytes that expands to 400 million values is detected by counting.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from tierserve.api.errors import Problem, ValidationFailed

# etcd stores objects of up to 1.5 MB; one with so many values is near that, and takes PyYAML about 5 s.
MAX_VALUES = 50_000
# The schema has 10 levels, like most of Kubernetes; the limit bounds the recursion of all code that reads a document.
MAX_DEPTH = 100
_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_NUMBERS = {f"{_TAG}int", f"{_TAG}float"}
_SCALARS = {f"{_TAG}{name}" for name in ("str", "int", "float", "bool", "null", "merge", "value")}
_COLLECTIONS = {f"{_TAG}map", f"{_TAG}seq"}


class Loader(yaml.SafeLoader):
    """PyYAML without dates and base-60 numbers, with 1e9 as a number, and with a limit on nodes."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._composed = self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose the next node within the limits; an anchor may be redefined, as in YAML 1.2 and kubectl."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        self._composed += 1
        self._depth += 1
        if self._composed > MAX_VALUES:
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_VALUES:,} values", problem_mark=event.start_mark)
        if self._depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_DEPTH} levels", problem_mark=event.start_mark)
        if not isinstance(event, yaml.AliasEvent):
            self.anchors.pop(event.anchor, None)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


_DROPPED = {f"{_TAG}timestamp", f"{_TAG}float", f"{_TAG}int"}
Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag not in _DROPPED]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    f"{_TAG}int",
    re.compile(r"^(?:[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+)$"),
    list("-+0123456789"),
)
Loader.add_implicit_resolver(
    f"{_TAG}float",
    re.compile(
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def documents(text: str) -> list[tuple[Any, dict[str, int]]]:
    """Each document that is not empty, with the line (from 1) of each field path.

    Raises:
        ValidationFailed: the string is not YAML; or contains what JSON, and so the API server, does not support: a key
            that is not a string, a duplicate key, an alias inside its own anchor, NaN, tags; or is too large or deep.
    """
    try:
        return list(_documents(text))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        message = "; ".join(filter(None, (error.context, error.problem)))
        raise ValidationFailed([Problem("", f"is not YAML: {message}", _hint(text, line), line=line)]) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = Problem(
            "", f"is not YAML: contains the character U+{error.character:04X}", "use a YAML file", line=line
        )
        raise ValidationFailed([problem]) from error


def _documents(text: str) -> Iterator[tuple[Any, dict[str, int]]]:
    loader = Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is None or node.tag == f"{_TAG}null":
                continue
            _Normalised(loader, text).visit(node, "")
            yield loader.construct_document(node), dict(_lines(node, ""))
    finally:
        loader.dispose()


def _hint(text: str, line: int | None) -> str:
    """Hint for a line that is not YAML."""
    lines = text.splitlines()
    content = lines[line - 1] if line and line <= len(lines) else ""
    if "{{" in content or "{%" in content:
        return "render the template first, e.g. helm template CHART | tierserve validate -"
    if "\t" in content:
        return "indent with spaces: YAML does not allow tabs"
    return "correct the line"


@dataclass(slots=True)
class _Normalised:
    """Checks a graph of nodes and expands its merge keys; each node is visited once, however many aliases it has."""

    loader: Loader
    text: str
    sizes: dict[int, int] = field(default_factory=dict)  # number of values that a node expands to, by its id
    open: set[int] = field(default_factory=set)  # nodes between the root and the current one

    def visit(self, node: yaml.Node, path: str) -> int:
        """The number of values that the node expands to."""
        size = self.sizes.get(id(node))
        if size is not None:
            return size
        if id(node) in self.open:
            raise self._rejected(node, path, "contains an alias to itself", "replace the alias by its value")
        if len(self.open) >= MAX_DEPTH:
            raise self._rejected(node, path, "is nested too deeply", f"use at most {MAX_DEPTH} levels")
        self.open.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            size = self._scalar(node, path)
        else:
            if node.tag not in _COLLECTIONS:
                raise self._rejected(
                    node, path, f"has the tag {_shown(node.tag)}, which JSON does not support", "remove the tag"
                )
            size = self._mapping(node, path) if isinstance(node, yaml.MappingNode) else self._sequence(node, path)
        self.open.remove(id(node))
        self.sizes[id(node)] = size
        return size

    def _sequence(self, node: yaml.Node, path: str) -> int:
        size = 1
        for number, child in enumerate(node.value):
            size = self._add(size, child, f"{path}[{number}]")
        return size

    def _mapping(self, node: yaml.MappingNode, path: str) -> int:
        size, first_lines = 1, dict[str, int]()
        for key, child in node.value:
            name = self._key(key, path)
            inner = f"{path}.{name}".lstrip(".")
            if name in first_lines:
                message = f"is a duplicate key (first in line {first_lines[name]})"
                raise self._rejected(key, inner, message, "remove one")
            first_lines[name] = key.start_mark.line + 1
            size = self._add(size, child, inner)
        if any(key.tag == _MERGE for key, _ in node.value):
            self._check_merged(node, path)
            self.loader.flatten_mapping(node)
        # The mapping's own keys come after merged ones, and so override them.
        node.value = list({key.value: (key, child) for key, child in node.value}.values())
        return size

    def _add(self, size: int, child: yaml.Node, path: str) -> int:
        total = size + self.visit(child, path)
        if total > MAX_VALUES:
            message = f"expands to more than {MAX_VALUES:,} values"
            raise self._rejected(child, path, message, "use fewer aliases of aliases")
        return total

    def _key(self, key: yaml.Node, path: str) -> str:
        """The key as a string, as in JSON: 1 and true become strings as written."""
        if not isinstance(key, yaml.ScalarNode) or key.tag not in _SCALARS or key.tag == f"{_TAG}null":
            line = self.text.splitlines()[key.start_mark.line]
            hint = _hint(self.text, key.start_mark.line + 1) if "{" in line else "use strings as keys"
            raise self._rejected(key, path, "has a key that is not a string", hint)
        if not _is_unicode(key.value):
            raise self._rejected(key, path, "has a key with an unpaired surrogate", "write the character itself")
        if key.tag != _MERGE:
            key.tag = f"{_TAG}str"
        return str(key.value)

    def _check_merged(self, node: yaml.MappingNode, path: str) -> None:
        for key, child in node.value:
            merged = child.value if isinstance(child, yaml.SequenceNode) else [child]
            if key.tag == _MERGE and not all(isinstance(one, yaml.MappingNode) for one in merged):
                raise self._rejected(
                    key, path, "merges a value that is not a mapping", "use << with an alias of a mapping"
                )

    def _scalar(self, node: yaml.ScalarNode, path: str) -> int:
        if not _is_unicode(node.value):
            raise self._rejected(node, path, "contains an unpaired surrogate", "write the character itself")
        if node.tag not in _SCALARS:
            raise self._rejected(
                node, path, f"has the tag {_shown(node.tag)}, which JSON does not support", "remove the tag"
            )
        plain = self.loader.resolve(yaml.ScalarNode, node.value, (True, False))  # type: ignore[no-untyped-call]
        if node.tag in (_MERGE, f"{_TAG}value"):  # a plain << or = that is a value
            node.tag = f"{_TAG}str"
        elif node.tag not in {f"{_TAG}str", plain} and not {plain, node.tag} <= _NUMBERS:
            raise self._rejected(node, path, f"has the tag {_shown(node.tag)} but is {node.value!r}", "remove the tag")
        elif node.tag in _NUMBERS and not self._is_number(node):
            raise self._rejected(
                node, path, f"{node.value[:40]} is not a number that JSON supports", "use a finite number"
            )
        return 1

    def _is_number(self, node: yaml.ScalarNode) -> bool:
        try:
            if node.tag == f"{_TAG}int":
                return -(2**63) <= self.loader.construct_yaml_int(node) < 2**63
            return math.isfinite(self.loader.construct_yaml_float(node))
        except ValueError:
            return False

    def _rejected(self, node: yaml.Node, path: str, message: str, hint: str) -> ValidationFailed:
        return ValidationFailed([Problem(path, message, hint, line=node.start_mark.line + 1)])


def _is_unicode(text: str) -> bool:
    """Whether the string can be encoded as UTF-8; an unpaired surrogate cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _shown(tag: str) -> str:
    return f"!!{tag.removeprefix(_TAG)}" if tag.startswith(_TAG) else tag


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
    """The line of a field, or of its nearest parent in the file."""
    ends = [match.start() for match in re.finditer(r"[.\[]", path)]
    around = (path[:end] for end in [len(path), *reversed(ends), 0])
    return next((lines[parent] for parent in around if parent in lines), None)
