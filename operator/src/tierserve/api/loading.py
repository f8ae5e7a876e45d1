"""Loading: a YAML file or string to a `GenAIDeployment`, and back to a plain document."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel

from tierserve.api.errors import Problem, ValidationFailed
from tierserve.api.units import Unit
from tierserve.api.v1alpha1.deployment import KIND, GenAIDeployment
from tierserve.api.yaml_source import documents, line_of

# Largest request body of the API server.
MAX_BYTES = 3 * 2**20
# PowerShell's `>` writes UTF-16. UTF-32 comes first, because its byte order mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True, slots=True)
class Examined:
    """One GenAIDeployment of a file: the value, or its errors.

    Attributes:
        name: metadata.name as written; empty if there is none.
        lines: line (from 1) of each field path.
    """

    name: str
    gaid: GenAIDeployment | None
    problems: tuple[Problem, ...]
    lines: Mapping[str, int]

    def with_lines(self, problems: Iterable[Problem]) -> tuple[Problem, ...]:
        """The problems with the lines of their fields."""
        return tuple(replace(problem, line=line_of(problem.path, dict(self.lines))) for problem in problems)


def load(source: Path | str) -> GenAIDeployment:
    """Read a file (a path, or YAML with a line break) and validate its one GenAIDeployment.

    Raises:
        ValidationFailed: the file is not valid.
        OSError: the file cannot be read.
    """
    return load_text(text_of(source))


def load_text(text: str) -> GenAIDeployment:
    """Load the one GenAIDeployment of a YAML string; raises ValidationFailed if it is invalid or there are several."""
    every = examine(text)
    if len(every) != 1:
        names = ", ".join(examined.name or "(no name)" for examined in every)
        hint = f"keep one {KIND} in the file; other kinds are ignored"
        raise ValidationFailed([Problem("", f"must have one {KIND}, has {len(every)}: {names}", hint)])
    if every[0].gaid is None:
        raise ValidationFailed(every[0].problems)
    return every[0].gaid


def text_of(source: Path | str) -> str:
    """The string itself, or the content of the file `source`; raises ValidationFailed or OSError."""
    if isinstance(source, str) and "\n" in source:
        return source
    with Path(source).open("rb") as stream:
        return text_in(stream)


def text_in(stream: BinaryIO) -> str:
    """Read a stream in UTF-8, or in the encoding of its byte order mark; raises ValidationFailed."""
    content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        message = f"is larger than {MAX_BYTES // 2**20} MiB, the limit of the API server"
        raise ValidationFailed([Problem("", message, "use a smaller YAML file")])
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        hint = "use a YAML file encoded as UTF-8"
        raise ValidationFailed([Problem("", f"is not valid {encoding.upper()}", hint, line=line)]) from error


def examine(text: str) -> list[Examined]:
    """Every GenAIDeployment in a YAML string; other kinds are ignored, and Lists are expanded.

    Raises:
        ValidationFailed: the string is not YAML, or has no GenAIDeployment.
    """
    whole = [item for document, lines in documents(text) for item in _listed(document, lines)]
    chosen = [item for item in whole if _kind(item[0]) == KIND]
    if not chosen and len(whole) != 1:
        kinds = ", ".join(dict.fromkeys(_kind(document) or "an object without kind" for document, _ in whole))
        message = f"must have a {KIND}, has {kinds}" if whole else "is empty"
        raise ValidationFailed([Problem("", message, f"use a file with a {KIND}")])
    return [_examined(document, lines) for document, lines in chosen or whole]


def _examined(document: Any, lines: dict[str, int]) -> Examined:
    gaid, problems = _validated(document)
    metadata = document.get("metadata") if isinstance(document, Mapping) else None
    name = str(metadata.get("name") or "") if isinstance(metadata, Mapping) else ""
    examined = Examined(name, gaid, (), lines)
    return replace(examined, problems=examined.with_lines(problems))


def _kind(document: Any) -> str:
    return str(document.get("kind") or "") if isinstance(document, Mapping) else ""


def _listed(document: Any, lines: dict[str, int]) -> Iterator[tuple[Any, dict[str, int]]]:
    """The objects of a List, as `kubectl get -o yaml` writes it; else the document itself."""
    if not _kind(document).endswith("List") or not isinstance(document.get("items"), list):
        yield document, lines
        return
    for number, item in enumerate(document["items"]):
        start = f"items[{number}]"
        inside = {path.removeprefix(start): line for path, line in lines.items() if path.startswith(start)}
        yield item, {path.removeprefix("."): line for path, line in inside.items()}


def parse(document: Any) -> GenAIDeployment:
    """Validate a parsed document; raises ValidationFailed."""
    gaid, problems = _validated(document)
    if gaid is None:
        raise ValidationFailed(problems)
    return gaid


def to_document(gaid: GenAIDeployment) -> dict[str, Any]:
    """The object as the API server returns it: with defaults, without nulls and empty values."""
    return _fields_of(gaid)


def _fields_of(part: BaseModel) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        plain = _plain(value)
        # What is optional and set, though empty, is kept; an empty list, or an object by default, is not.
        if plain is not None and (plain not in ({}, []) or field.default is None):
            fields[field.alias or name] = plain
    return fields | (part.model_extra or {})


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return _fields_of(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Unit):
        return str(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _validated(document: Any) -> tuple[GenAIDeployment | None, list[Problem]]:
    # Imported here: CEL takes 0.15 s to import, and a replica that uses only the types should start fast.
    from tierserve.api.schema.validation import validated

    return validated(document)
